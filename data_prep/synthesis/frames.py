"""Where a component runs and how thick it is: what lay on one can be laid on another. Needs OpenCV."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.strings import find_string
from llava.common.boxes import Box
from llava.common.masks import Pixels

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A place on a component: a point of the photo, and the direction there, in radians."""

    x: float
    y: float
    angle: float


@dataclass(frozen=True)
class Frame:
    """The middle line of a component, (n, 2) in pixels of its photo, and its thickness in pixels.

    `period` is the distance of its units, None where nothing repeats itself.
    """

    line: NDArray[np.float64]
    thickness: float
    period: float | None = None

    @property
    def length(self) -> float:
        return float(self._lengths()[-1])

    def _lengths(self) -> NDArray[np.float64]:
        """Return how far each point of the line is from its start, along it."""
        return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(self.line, axis=0).T))))

    def place(self, along: float) -> Place:
        """Return the place at so many pixels from the line's start; beyond its ends it goes on straight."""
        lengths = self._lengths()
        part = int(np.clip(np.searchsorted(lengths, along, "right") - 1, 0, len(self.line) - 2))
        (x1, y1), (x2, y2) = self.line[part], self.line[part + 1]
        share = (along - lengths[part]) / (lengths[part + 1] - lengths[part])
        # The direction is that of the surroundings: cuts between units are not placed to the pixel.
        before, after = self.line[max(part - 2, 0)], self.line[min(part + 3, len(self.line) - 1)]
        angle = math.atan2(after[1] - before[1], after[0] - before[0])
        return Place(float(x1 + share * (x2 - x1)), float(y1 + share * (y2 - y1)), angle)

    def locate(self, point: Point) -> tuple[float, float]:
        """Return how far along the line a point is, and how far aside (to the right of the direction)."""
        best = (math.inf, 0.0, 0.0)
        lengths = self._lengths()
        last = len(self.line) - 2
        for part, (start, end) in enumerate(zip(self.line[:-1], self.line[1:], strict=True)):
            ahead = (end - start) / np.hypot(*(end - start))
            to_point = np.asarray(point) - start
            along = float(to_point @ ahead)
            aside = float(ahead[0] * to_point[1] - ahead[1] * to_point[0])
            # Only the first and the last piece go on beyond their ends.
            inside = min(max(along, -math.inf if part == 0 else 0.0), _end(part, last, lengths))
            distance = math.hypot(along - inside, aside)
            if distance < best[0]:
                best = distance, float(lengths[part]) + inside, aside
        return best[1], best[2]


def _end(part: int, last: int, lengths: NDArray[np.float64]) -> float:
    return math.inf if part == last else float(lengths[part + 1] - lengths[part])


def find_frame(pixels: Pixels, box: Box) -> Frame:
    """Return the frame of the component in a box of a photo: that of a string whose units repeat themselves,
    else that of the box, along its longer side."""
    string = find_string(pixels, box)
    return box_frame(box) if string is None else Frame(string.middle, string.thickness, string.period)


def box_frame(box: Box) -> Frame:
    """Return the frame of something of which only the box is known."""
    x1, y1, x2, y2 = box
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if x2 - x1 >= y2 - y1:
        return Frame(np.array([[x1, y], [x2, y]]), y2 - y1)
    return Frame(np.array([[x, y1], [x, y2]]), x2 - x1)
