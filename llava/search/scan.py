"""Go over a photo with an asker of windows: all of them once, then the best again from other sides.

The asker may be the engine's (asking.py) or a simulated one: nothing here knows of models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llava.search.ranking import HeatMap, best_places, centred, mean_probability
from llava.search.windows import Box, scales, shifted, windows

SECOND_LOOK = 8
"""How many places are looked at again, or as many as are wanted where those are more."""
EVENT_SECONDS = 0.2
"""Between two events at least: ranking and drawing cost time too."""

Ask = Callable[[Iterable[Box]], Any]
"""Takes windows; returns a generator of (window, probability of yes) in their order."""


@dataclass(frozen=True)
class Scan:
    """How far a scan is. `places` are (box, probability), the likeliest first."""

    stage: Literal["windows", "second look"]
    done: int
    total: int
    heat: NDArray[np.float32]
    places: list[tuple[Box, float]]


def all_windows(size: tuple[int, int], side: int) -> dict[Box, int]:
    """Return the windows of all sizes, the largest first, each with the side of its kind."""
    return {box: scale for scale in reversed(scales(size, side)) for box in windows(size, scale)}


def scan(size: tuple[int, int], side: int, ask: Ask, places: int) -> Iterator[Scan]:
    """Yield how far the scan is, at most every EVENT_SECONDS and after each stage.

    Args:
        size: The photo's (width, height).
        side: Of the smallest windows.
        ask: Asks about windows.
        places: How many places are wanted.
    """
    heat = HeatMap(size, side)
    sides = all_windows(size, side)
    answers: dict[Box, float] = {}
    last = time.monotonic()
    with closing(ask(sides)) as asked:
        for box, p_yes in asked:
            answers[box] = p_yes
            heat.add(box, p_yes, sides[box])
            if len(answers) == len(sides) or time.monotonic() - last > EVENT_SECONDS:
                found = [(place, answers[place]) for place in best_places(answers, places)]
                yield Scan("windows", len(answers), len(sides), heat.values, found)
                last = time.monotonic()

    best = best_places(answers, max(places, SECOND_LOOK))
    again = {box: place for place in best for box in shifted(place, size)}
    views = {place: [(place, answers[place])] for place in best}
    with closing(ask(again)) as asked:
        for done, (box, p_yes) in enumerate(asked, 1):
            views[again[box]].append((box, p_yes))
            heat.add(box, p_yes, sides[again[box]])
            if done == len(again) or time.monotonic() - last > EVENT_SECONDS:
                yield Scan("second look", done, len(again), heat.values, _ranked(views, places))
                last = time.monotonic()


def _ranked(views: dict[Box, list[tuple[Box, float]]], count: int) -> list[tuple[Box, float]]:
    """Return the places by the mean of all views of each."""
    ranked = [(centred(seen), mean_probability(p for _, p in seen)) for seen in views.values()]
    return sorted(ranked, key=lambda place: -place[1])[:count]
