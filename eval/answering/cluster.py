"""Answers from a Ray cluster: an actor for each GPU, or CPU, holds the model (Ray Data's map_batches).

The model, the images and this package must lie under the same paths on every machine; only text travels.
Images at an address are fetched by the machine that answers about them.
"""

from __future__ import annotations

import json
import logging
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eval.answering.questions import batch_questions
from llava.common.cluster import connect, count_workers
from llava.common.errors import InputError, one_line
from llava.common.files import to_json
from llava.common.photo_cache import use_cache
from llava.common.records import Answer, Question

if TYPE_CHECKING:
    import numpy as np

MAX_BATCH_QUESTIONS = 256
"""Questions that an actor answers before its answers come back: the most that a kill loses, per actor."""


class Cluster:
    """The model that the flags `args` of eval.infer name, on the Ray cluster at `args.ray`.

    InputError if no cluster can be reached, or it has too few GPUs (or CPUs).
    """

    def __init__(self, args: Namespace) -> None:
        connect(args.ray, args.ray_workers, "ray.data")
        import ray

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._resource = "GPU" if ray.cluster_resources().get("GPU") and args.device != "cpu" else "CPU"
        self._workers = count_workers(self._resource, args.ray_workers)
        self._args = args

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        """Yield the answers as batches of the questions come back.

        InputError if the model cannot be loaded there, or a worker fails again and again.
        """
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items
        from ray.exceptions import RayError, RayTaskError

        if not questions:
            return
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        size = min(MAX_BATCH_QUESTIONS, -(-len(questions) // (4 * self._workers)))
        rows = [
            {"questions": json.dumps([question.model_dump(mode="json") for question in batch])}
            for batch in batch_questions(questions, size)
        ]
        answered = from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(self._args, str(Path.cwd())),
            batch_size=1,
            compute=ActorPoolStrategy(size=self._workers),
            num_gpus=1 if self._resource == "GPU" else None,
            num_cpus=1 if self._resource == "CPU" else None,
        )
        try:
            for row in answered.iter_rows():
                if row["problem"]:
                    raise InputError(row["problem"])
                yield Answer.model_validate_json(row["answer"])
        except RayTaskError:
            raise  # a mistake in the program: its traceback tells more
        except RayError as error:
            raise InputError(f"Ray's workers fail ({one_line(error)}); what is answered is kept") from None
        finally:
            ray.shutdown()


class _Worker:
    """An actor that holds a model and answers batches of questions.

    What is wrong with the input comes back as text: an exception would be buried in one of Ray's tracebacks.
    """

    def __init__(self, args: Namespace, directory: str) -> None:
        """`directory` is where the command was started, for names relative to it."""
        from eval.answering.local import LocalModel

        with suppress(OSError):  # absolute names need none
            os.chdir(directory)
        use_cache(args.cache_folder, args.cache_gb)
        self._folder: Path = args.image_folder
        self._problem = ""
        try:
            self._model = LocalModel(args, args.device)
        except InputError as error:
            self._problem = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        if self._problem:
            return {"answer": [""], "problem": [self._problem]}
        questions = [Question.model_validate(row) for row in json.loads(str(batch["questions"][0]))]
        images = {name: self._folder / name for question in questions for name in question.images}
        try:
            answers = [to_json(answer) for answer in self._model.answers(questions, images)]
        except InputError as error:
            return {"answer": [""], "problem": [str(error)]}
        return {"answer": answers, "problem": [""] * len(answers)}
