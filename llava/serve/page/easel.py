"""Paints the visitors' pictures, one at a time, whoever's they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Event, Lock, Thread

from llava.common.errors import InputError, one_line
from llava.common.masks import Pixels
from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings, StepSeen, Wish
from llava.painting.diffusion_model import DiffusionModel
from llava.painting.fitting import fit_prompt

WAITING_SECONDS = 0.5
"""Between two looks whether the picture before is done, and whether one is still waited for."""


@dataclass(frozen=True)
class Progress:
    """How far a picture is: `step` of `steps`, 0 while others are painted, and what is painted in the end.

    The prompt of the `wish` is the one that is used: cut to what the model reads. `details` go to the facts.
    """

    step: int
    steps: int
    wish: Wish
    details: dict[str, str | float]
    result: Pixels | None = None


class Easel:
    """Paints with one model."""

    def __init__(self, model: DiffusionModel) -> None:
        """Take the model, which nobody else may use."""
        self.model = model
        self._alone = Lock()

    def paint(self, wish: Wish, settings: DiffusionSettings) -> Iterator[Progress]:
        """Paint a picture, step by step; who does not go on with it, ends it.

        Raises:
            InputError: The model cannot be run with the settings; while it paints, it fails.
        """
        return self._paint(BlendedDiffusion(self.model, settings), wish)

    def _paint(self, painter: BlendedDiffusion, wish: Wish) -> Iterator[Progress]:
        while not self._alone.acquire(timeout=WAITING_SECONDS):
            yield Progress(0, painter.count, wish, painter.details)
        try:
            wish = replace(wish, prompt=fit_prompt(wish.prompt, self.model.tokenizers))
            yield Progress(0, painter.count, wish, painter.details)
            for step, result in enumerate(_steps(painter, wish), start=1):
                yield Progress(min(step, painter.count), painter.count, wish, painter.details, result)
        finally:
            self._alone.release()


class _Ended(Exception):
    """Nobody waits for the picture."""


def _steps(painter: BlendedDiffusion, wish: Wish) -> Iterator[Pixels | None]:
    """Yield None after each step, and at last the picture. Painting ends with the step in which the caller
    does."""
    seen: SimpleQueue[Pixels | Exception | None] = SimpleQueue()
    ended = Event()

    def watch(step: StepSeen) -> None:
        if ended.is_set():
            raise _Ended
        seen.put(None)

    def work() -> None:
        try:
            seen.put(painter.paint([wish], watch)[0])
        except Exception as error:
            seen.put(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while (got := seen.get()) is None:
            yield None
        if isinstance(got, InputError):
            raise got
        if isinstance(got, Exception):  # such as no memory left
            raise InputError(f"the picture cannot be painted ({one_line(got)})") from got
        yield got
    finally:
        ended.set()
        thread.join()
