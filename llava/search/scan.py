"""Go over a photo with an asker of windows: all of them once, then the best places again from five sides.

The asker may be the engine's (asking.py) or a simulated one: nothing here knows of models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from llava.search.ranking import EvidenceMap, Map, mean_probability
from llava.search.windows import Box, scales, shifted, windows

SECOND_LOOK = 8
"""How many places are looked at again, or as many as are wanted where those are more."""
EVENT_SECONDS = 0.2
EVENT_SHARE = 0.1
"""Events are at least EVENT_SECONDS apart, and ranking for them takes at most this share of the time."""

Ask = Callable[[Iterable[Box]], Generator[tuple[Box, float]]]
"""Takes windows; returns a generator of (window, probability of yes) in their order."""


@dataclass(frozen=True)
class Scan:
    """How far a scan is. `places` are (box, probability), the likeliest first."""

    stage: Literal["windows", "second look"]
    done: int
    total: int
    heat: Map
    places: list[tuple[Box, float]]


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


def all_windows(size: tuple[int, int], side: int) -> dict[Box, int]:
    """Return the windows of all sizes, the largest first, each with the side of its kind."""
    return {box: scale for scale in reversed(scales(size, side)) for box in windows(size, scale)}


def scan(size: tuple[int, int], side: int, ask: Ask, places: int) -> Generator[Scan]:
    """Yield how far the scan is, now and then and after each stage.

    Args:
        size: The photo's (width, height).
        side: Of the smallest windows.
        ask: Asks about windows.
        places: How many places are wanted.
    """
    evidence = EvidenceMap(size, side)
    sides = all_windows(size, side)
    clock = _Clock()
    with closing(ask(sides)) as asked:
        for done, (box, p_yes) in enumerate(asked, 1):
            evidence.add(box, p_yes, sides[box])
            if done == len(sides) or clock.due:
                began = time.monotonic()
                found = [(place, p) for place, p, _ in evidence.places(places)]
                yield Scan("windows", done, len(sides), evidence.heat, found)
                clock.restart(began)

    best = evidence.places(max(places, SECOND_LOOK))
    looks = {place: [place, *shifted(place, size)] for place, _, _ in best}
    likely = {place: p for place, p, _ in best}
    seen: dict[Box, float] = {}
    total = len(set(chain(*looks.values())))
    with closing(ask(dict.fromkeys(chain(*looks.values())))) as asked:
        for box, p_yes in asked:
            seen[box] = p_yes
            if len(seen) == total or clock.due:
                began = time.monotonic()
                for place, views in looks.items():
                    if all(view in seen for view in views):
                        likely[place] = mean_probability(seen[view] for view in views)
                ranked = sorted(likely.items(), key=lambda place: -place[1])[:places]
                yield Scan("second look", len(seen), total, evidence.heat, ranked)
                clock.restart(began)
