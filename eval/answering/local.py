"""Answers of a model that is loaded here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from eval.answering.questions import answer_line, by_image
from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.records import Answer, Question
from llava.inference.engine import Engine, Request
from llava.model.builder import load_model
from llava.processing.vision import Pixels

if TYPE_CHECKING:
    from argparse import Namespace

THREADS = min(4, os.cpu_count() or 1)
AHEAD = 4 * THREADS
"""Of so many groups of questions the pictures are opened before the engine asks for them."""


class LocalModel:
    """The model that the flags `args` of eval.infer name, on `device`."""

    def __init__(self, args: Namespace, device: str | None) -> None:
        loaded = load_model(
            args.model_path, args.model_base, device=device, load_8bit=args.load_8bit,
            load_4bit=args.load_4bit, conv_mode=args.conv_mode,
        )  # fmt: skip
        self.model_id = loaded.model_id
        self._engine = Engine(loaded)
        self._args = args

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        """The answers in the order in which they are found; `pictures` gives the path of each name. A
        question whose pictures cannot be read, or that cannot be asked, is answered with an error."""
        args = self._args
        asked = {question.question_id: question for question in questions}
        refused: deque[Answer] = deque()
        with closing(self._requests(questions, images, refused)) as requests:
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
                yield answer_line(
                    asked[result.question_id],
                    self.model_id,
                    result.text,
                    error=result.error,
                    choices=result.choices,
                    truncated=result.truncated,
                )
        yield from refused

    def _requests(
        self, questions: Sequence[Question], images: Mapping[str, Path], refused: deque[Answer]
    ) -> Generator[Request, None, None]:
        """The questions, those about one picture one after another and with the same object for it."""
        for group, shown in self._opened(by_image(questions), images):
            for question in group:
                if isinstance(shown, InputError):
                    refused.append(answer_line(question, self.model_id, error=str(shown)))
                else:
                    yield Request(question.question_id, question.text, shown, question.choices)

    def _opened(
        self, groups: Sequence[list[Question]], images: Mapping[str, Path]
    ) -> Iterator[tuple[list[Question], list[Pixels] | InputError]]:
        """Each group with its pictures, or what is wrong with the first that cannot be read; opened ahead."""

        def read(names: Sequence[str]) -> list[Pixels] | InputError:
            pixels, alone = self._engine.runner.processor.pixels, len(names) == 1
            try:
                return [pixels(open_image(images[name]), alone=alone) for name in names]
            except InputError as error:
                return error

        pool = ThreadPoolExecutor(THREADS)
        ahead: deque[tuple[list[Question], Future[list[Pixels] | InputError]]] = deque()
        coming = iter(groups)
        try:
            while True:
                for group in islice(coming, AHEAD - len(ahead)):
                    ahead.append((group, pool.submit(read, group[0].images)))
                if not ahead:
                    return
                group, future = ahead.popleft()
                yield group, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
