"""Answers from a model that is loaded in this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from eval.answering.questions import QuestionId, group_by_image, make_answer
from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.photo_cache import photo_at
from llava.common.records import Answer, Question
from llava.inference.engine import Engine, Request
from llava.model.builder import load_model
from llava.novelty.bank import read_bank
from llava.novelty.meter import NoveltyMeter
from llava.processing.vision import Pixels

if TYPE_CHECKING:
    from argparse import Namespace

READER_THREADS = min(4, os.cpu_count() or 1)
PREFETCHED_GROUPS = 4 * READER_THREADS
"""Groups of questions whose images are read before the engine needs them."""


class LocalModel:
    """The model that the flags `args` of eval.infer name, on `device`."""

    def __init__(self, args: Namespace, device: str | None) -> None:
        bank = read_bank(args.novelty) if args.novelty else None  # fails before anything slow
        loaded = load_model(
            args.model_path, args.model_base, device=device, load_8bit=args.load_8bit,
            load_4bit=args.load_4bit, conv_mode=args.conv_mode,
        )  # fmt: skip
        self.model_id = loaded.model_id
        self._engine = Engine(loaded)
        self._novelty = NoveltyMeter(self._engine.runner, bank) if bank else None
        self._args = args

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        """Yield the answers as the engine finishes them; `images` maps the images' names to paths.

        A question whose images cannot be read, or that the engine refuses, is answered with an error.
        """
        args = self._args
        by_id = {question.question_id: question for question in questions}
        refused: deque[Answer] = deque()
        pixels_of: dict[QuestionId, Sequence[Pixels]] = {}
        with closing(self._requests(questions, images, refused, pixels_of)) as requests:
            for result in self._engine.stream(
                requests,
                batch_size=args.batch_size,
                max_new_tokens=args.max_new_tokens,
                temperature=args.temperature,
                top_p=args.top_p,
                num_beams=args.num_beams,
                seed=args.seed,
            ):
                while refused:
                    yield refused.popleft()
                pixels = pixels_of.pop(result.question_id)
                novelty = self._novelty.of(pixels) if self._novelty else None
                yield make_answer(
                    by_id[result.question_id],
                    self.model_id,
                    result.text,
                    error=result.error,
                    choices=result.choices,
                    truncated=result.truncated,
                    novelty=novelty.to_json() if novelty else None,
                )
        yield from refused

    def _requests(
        self,
        questions: Sequence[Question],
        images: Mapping[str, Path],
        refused: deque[Answer],
        pixels_of: dict[QuestionId, Sequence[Pixels]],
    ) -> Generator[Request, None, None]:
        """Yield the requests, and note the pixels of each while it is open.

        Those about one image follow each other and share its pixels object.
        """
        for group, pixels in self._read_images(group_by_image(questions), images):
            for question in group:
                if isinstance(pixels, InputError):
                    refused.append(make_answer(question, self.model_id, error=str(pixels)))
                else:
                    pixels_of[question.question_id] = pixels
                    yield Request(question.question_id, question.text, pixels, question.choices)

    def _read_images(
        self, groups: Sequence[list[Question]], images: Mapping[str, Path]
    ) -> Iterator[tuple[list[Question], list[Pixels] | InputError]]:
        """Yield each group with its images, or the error of the first that cannot be read; read ahead."""

        def read(names: Sequence[str]) -> list[Pixels] | InputError:
            pixels, alone = self._engine.runner.processor.pixels, len(names) == 1
            try:
                return [pixels(open_image(photo_at(images[name])), alone=alone) for name in names]
            except InputError as error:
                return error

        pool = ThreadPoolExecutor(READER_THREADS)
        pending: deque[tuple[list[Question], Future[list[Pixels] | InputError]]] = deque()
        remaining = iter(groups)
        try:
            while True:
                for group in islice(remaining, PREFETCHED_GROUPS - len(pending)):
                    pending.append((group, pool.submit(read, group[0].images)))
                if not pending:
                    return
                group, future = pending.popleft()
                yield group, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
