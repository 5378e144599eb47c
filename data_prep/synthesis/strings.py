"""Where an insulator string lies in a photo: coordinates along and across it. Needs OpenCV and SciPy.

A point of a string is (u, v): u counts units from the first one's start, and v is -1 and 1 at the string's
two edges. Both go on beyond the string.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llava.common.boxes import Box
from llava.common.masks import Pixels
from llava.oddone import BoxError, find_odd

Floats = NDArray[np.float32]

FEWEST = 4  # units; with fewer, what repeats itself may be anything


@dataclass(frozen=True)
class InsulatorString:
    """The units of a string in a photo.

    `middle` and `half` are arrays (units + 1, 2) in pixels: where the cuts between the units cross the
    string's middle line, and half of each cut. `whole` are the units that are no fitting, nor cut by one.
    """

    middle: NDArray[np.float64]
    half: NDArray[np.float64]
    whole: tuple[int, ...]

    @property
    def units(self) -> int:
        return len(self.middle) - 1

    @property
    def period(self) -> float:
        """Return the distance of two units in pixels, at the string's middle."""
        return float(np.median(np.hypot(*np.diff(self.middle, axis=0).T)))

    @property
    def thickness(self) -> float:
        """Return the string's width in pixels."""
        return 2 * float(np.median(np.hypot(*self.half.T)))

    def to_photo(self, u: NDArray[np.floating], v: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Return x and y of points of the string."""
        middle, half = _between(self.middle, u), _between(self.half, u)
        x, y = (middle[k] + v * half[k] for k in (0, 1))
        return x.astype(np.float32), y.astype(np.float32)

    def area(self, units: range, beyond: float, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the part of a photo of (height, width) that shows some units, as slices of rows and columns.

        `beyond` is by how much more of v it shows on both sides.
        """
        u = np.repeat(np.linspace(units.start, units.stop, 2 * len(units) + 1), 2)
        x, y = self.to_photo(u, np.tile([-1 - beyond, 1 + beyond], len(u) // 2))
        height, width = size
        rows = slice(max(0, math.floor(y.min())), min(height, math.ceil(y.max()) + 1))
        columns = slice(max(0, math.floor(x.min())), min(width, math.ceil(x.max()) + 1))
        return rows, columns

    def coordinates(self, area: tuple[slice, slice]) -> tuple[Floats, Floats]:
        """Return u and v of each pixel of a part of the photo."""
        y, x = np.mgrid[area].astype(np.float64)
        chord = self.middle[-1] - self.middle[0]
        chord /= np.hypot(*chord)
        along = (x - self.middle[0, 0]) * chord[0] + (y - self.middle[0, 1]) * chord[1]
        places = (self.middle - self.middle[0]) @ chord
        u = np.interp(along, places, np.arange(len(places)))
        for _ in range(3):  # Newton's method; strings are nearly straight
            middle, half = _between(self.middle, u), _between(self.half, u)
            ahead, wider = _slope(self.middle, u), _slope(self.half, u)
            dx, dy = x - middle[0], y - middle[1]
            v = _across(dx, dy, ahead, half)
            ahead = ahead + v * wider
            dx, dy = dx - v * half[0], dy - v * half[1]
            u = u + (dx * half[1] - dy * half[0]) / (ahead[0] * half[1] - ahead[1] * half[0])
        return u.astype(np.float32), v.astype(np.float32)


def find_string(pixels: Pixels, box: Box) -> InsulatorString | None:
    """Find the string that a component's box holds; None where fewer than FEWEST units repeat themselves."""
    try:
        found = find_odd(Image.fromarray(pixels), box)
    except BoxError:
        return None
    whole = tuple(place for place, unit in enumerate(found.units) if not unit.left_out)
    if len(whole) < FEWEST:
        return None
    corners = np.array([unit.polygon for unit in found.units])  # (units, 4, 2): left, right, right, left
    top = np.concatenate([corners[:, 0], corners[-1:, 1]])
    bottom = np.concatenate([corners[:, 3], corners[-1:, 2]])
    return InsulatorString((top + bottom) / 2, (bottom - top) / 2, whole)


def _piece(points: NDArray[np.float64], u: NDArray[np.floating]) -> NDArray[np.intp]:
    return np.clip(np.floor(u), 0, len(points) - 2).astype(np.intp)


def _between(points: NDArray[np.float64], u: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return x and y, (2, ...), at places of a line, which goes on straight at its ends."""
    piece = _piece(points, u)
    return np.stack([points[piece, k] + (u - piece) * np.diff(points[:, k])[piece] for k in (0, 1)])


def _slope(points: NDArray[np.float64], u: NDArray[np.floating]) -> NDArray[np.float64]:
    piece = _piece(points, u)
    return np.stack([np.diff(points[:, k])[piece] for k in (0, 1)])


def _across(
    dx: NDArray[np.float64], dy: NDArray[np.float64], ahead: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how many `half` a step goes aside from `ahead`."""
    across: NDArray[np.float64] = (ahead[0] * dy - ahead[1] * dx) / (ahead[0] * half[1] - ahead[1] * half[0])
    return across
