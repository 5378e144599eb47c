"""Go over a photo with an asker of windows: all of them once, then the best places again from five sides.

The asker may be the engine's (asking.py) or a simulated one: nothing here knows of models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from llava.search.ranking import EvidenceMap, Map, Place, mean_probability, ranked
from llava.search.windows import Box, longer, scales, shifted, windows

SECOND_LOOK = 12
"""How many places are looked at again, of all sizes of windows; more where more are wanted."""
EVENT_SECONDS = 0.2
EVENT_SHARE = 0.1
"""Events are at least EVENT_SECONDS apart, and ranking for them takes at most this share of the time."""

Ask = Callable[[Iterable[Box]], Generator[tuple[Box, float]]]
"""Takes windows; returns a generator of (window, probability of yes) in their order."""


@dataclass(frozen=True)
class Scan:
    """How far a scan is. `places` has the likeliest first."""

    stage: Literal["windows", "second look"]
    done: int
    total: int
    heat: Map
    places: list[Place]


class _Clock:
    """Says when the next event is due."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVENT_SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def restart(self, event_began: float) -> None:
        """Count from now; `event_began` is when making the event did."""
        now = time.monotonic()
        self._next = now + max(EVENT_SECONDS, (now - event_began) / EVENT_SHARE)


def all_windows(size: tuple[int, int], side: int) -> list[Box]:
    """Return the windows of all sizes, the largest first, for an early answer."""
    return [box for scale in reversed(scales(size, side)) for box in windows(size, scale)]


def scan(size: tuple[int, int], side: int, ask: Ask, places: int) -> Generator[Scan]:
    """Yield how far the scan is, now and then and after each stage.

    Args:
        size: The photo's (width, height).
        side: Of the smallest windows.
        ask: Asks about windows.
        places: How many places are wanted.
    """
    evidence = EvidenceMap(size, side)
    boxes = all_windows(size, side)
    clock = _Clock()
    with closing(ask(boxes)) as asked:
        for done, (box, p_yes) in enumerate(asked, 1):
            evidence.add(box, p_yes, longer(box))
            if done == len(boxes) or clock.due:
                began = time.monotonic()
                found = ranked(evidence.places(places), places)
                yield Scan("windows", done, len(boxes), evidence.heat, found)
                clock.restart(began)

    again_at_most = max(places, SECOND_LOOK)
    likeliest = sorted(evidence.places(again_at_most), key=lambda place: -place.p_yes)
    likely = {place.box: place.p_yes for place in likeliest[:again_at_most]}
    looks = {box: [box, *shifted(box, size)] for box in likely}
    again = {view: longer(place) for place, views in looks.items() for view in views}
    seen: dict[Box, float] = {}
    with closing(ask(again)) as asked:
        for box, p_yes in asked:
            seen[box] = p_yes
            evidence.add(box, p_yes, again[box])
            if len(seen) == len(again) or clock.due:
                began = time.monotonic()
                for place, views in looks.items():
                    if all(view in seen for view in views):
                        likely[place] = mean_probability(seen[view] for view in views)
                found = ranked((Place(place, p) for place, p in likely.items()), places)
                yield Scan("second look", len(seen), len(again), evidence.heat, found)
                clock.restart(began)
