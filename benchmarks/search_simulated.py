"""A simulated answerer: it sees what lies in a window, and is wrong now and then, like a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np

from llava.search.windows import SEEN_PIXELS, Box

SURE, NOISE = 2.0, 1.5
"""The mean log-odds of what is there, and their standard deviation: in 9 of 100 windows it is mistaken."""
LURE = math.log(0.8 / 0.2)
"""The mean log-odds of what looks alike."""


def simulated(
    thing: Box, model_side: int, seed: int, lures: Sequence[Box] = ()
) -> Callable[[Iterable[Box]], Generator[tuple[Box, float]]]:
    """Return an asker of windows (scan.py) for a photo with one thing, and lures that look like it.

    The thing is seen where most of it lies in the window and is at least SEEN_PIXELS large in the model's
    input.
    """
    rng = np.random.default_rng(seed)

    def ask(boxes: Iterable[Box]) -> Generator[tuple[Box, float]]:
        for box in boxes:
            mean = -SURE
            if any(_seen(lure, box, model_side) for lure in lures):
                mean = LURE
            if _seen(thing, box, model_side):
                mean = SURE
            yield box, 1 / (1 + math.exp(-rng.normal(mean, NOISE)))

    return ask


def _seen(thing: Box, window: Box, model_side: int) -> bool:
    across = min(thing[2], window[2]) - max(thing[0], window[0])
    down = min(thing[3], window[3]) - max(thing[1], window[1])
    visible = max(across, 0) * max(down, 0) / ((thing[2] - thing[0]) * (thing[3] - thing[1]))
    side = max(window[2] - window[0], window[3] - window[1])
    return visible > 0.6 and (thing[2] - thing[0]) * model_side / side >= SEEN_PIXELS
