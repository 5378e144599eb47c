"""Ask the live engine about windows of a photo, a few at a time, however many there are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from PIL import Image

from llava.common.errors import InputError
from llava.inference.live import Handle, LiveEngine, QueueFullError
from llava.inference.requests import Request
from llava.inference.sampling import SamplingOptions
from llava.search.ranking import mean_probability
from llava.search.windows import Box

WORDINGS = ("Is there {}?", "Do you see {}?", "Does the picture show {}?")
"""Of the question, all asked of each window; their mean counts."""
YES, NO = ("yes", "Yes"), ("no", "No")
"""Models differ in how they write them."""
ENOUGH_DETAIL = 2
"""Times the model's side: windows of more pixels are reduced before they are prepared."""
THREADS = 2
"""That prepare windows while the model runs."""


class WindowAsker:
    """Asks whether windows of a photo show something, by the words for it."""

    def __init__(self, engine: LiveEngine, image: Image.Image, words: str) -> None:
        self._engine = engine
        self._image = image
        self._questions = [wording.format(words) for wording in WORDINGS]
        self._model_side = model_side(engine)

    def ask(self, boxes: Iterable[Box]) -> Generator[tuple[Box, float]]:
        """Yield each window with its probability of yes, in their order.

        At any moment only as many windows are prepared or asked as keep the engine busy. Closing the iterator
        cancels them.

        Raises:
            InputError: the words cannot be asked about, or the engine has failed.
            EngineClosedError: the engine is closed.
        """
        ahead = max(2, 2 * self._engine.places // len(self._questions))
        pending: deque[tuple[Box, Future[list[Handle]]]] = deque()
        stopped = Event()
        with ThreadPoolExecutor(THREADS, "llava-search") as pool:
            try:
                for box in boxes:
                    pending.append((box, pool.submit(self._submit, box, stopped)))
                    if len(pending) >= ahead:
                        yield self._answer(*pending.popleft())
                while pending:
                    yield self._answer(*pending.popleft())
            finally:
                stopped.set()
                for _, future in pending:
                    if not future.cancel() and future.exception() is None:
                        for handle in future.result():
                            handle.cancel()

    def _submit(self, box: Box, stopped: Event) -> list[Handle]:
        """Cut a window out, prepare it and put its questions in the engine's queue, once there is room."""
        (pixels,) = self._engine.runner.prepare_images([cut(self._image, box, self._model_side)])
        requests = [
            Request(f"{box} {number}", question, [pixels], choices=(*YES, *NO))
            for number, question in enumerate(self._questions)
        ]
        while not stopped.is_set():
            try:
                return self._engine.submit_together(requests, SamplingOptions(max_new_tokens=1))
            except QueueFullError:
                time.sleep(0.02)
        return []

    def _answer(self, box: Box, future: Future[list[Handle]]) -> tuple[Box, float]:
        probabilities = []
        for handle in future.result():
            result = handle.result()
            if result.choices is None:
                raise InputError(result.error or "the engine gave no probability")
            probabilities.append(sum(result.choices[word] for word in YES))
        return box, mean_probability(probabilities)


def model_side(engine: LiveEngine) -> int:
    """Return the side of the model's input, in pixels."""
    return engine.runner.processor.vision.square_processor.size[0]


def cut(image: Image.Image, box: Box, model_side: int) -> Image.Image:
    """Cut a window out of a photo, at no more than twice what the model sees of it.

    So the whole of a large photo is never copied.
    """
    factor = max(box[2] - box[0], box[3] - box[1]) // (ENOUGH_DETAIL * model_side)
    return image.reduce(factor, box) if factor > 1 else image.crop(box)
