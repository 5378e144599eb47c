"""What was found: the string's axis, its units, the odd one, and how sure one may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llava.common.errors import InputError

Array = NDArray[Any]
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
Polygon = list[Point]


class BoxError(InputError):
    """A box in which no string can be looked for: too small, or outside the photo."""


@dataclass(frozen=True)
class Axis:
    """Where a string may run, in pixels of the photo.

    Attributes:
        points: The line along its middle, from end to end; more than two points where it sags.
        period: The distance from one unit to the next.
        score: How periodic the line is, times its length; only its order means something.
    """

    points: list[Point]
    period: float
    score: float

    def to_json(self) -> dict[str, Any]:
        return {"points": _rounded(self.points), "period": round(self.period, 2), "score": round(self.score)}


@dataclass(frozen=True)
class Unit:
    """One repeating unit of the string.

    Attributes:
        polygon: Its outline in the photo.
        score: How unlike its neighbours it is, in robust standard deviations.
        left_out: Whether it is an end fitting, or cut by one, and was not compared.
    """

    polygon: Polygon
    score: float
    left_out: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "polygon": _rounded(self.polygon),
            "score": round(self.score, 2),
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class Odd:
    """The unit that is least like its neighbours.

    Attributes:
        index: Its place in `OddResult.units`.
        polygon: Its outline in the photo.
        part: The outline of the part of it that differs most.
        score: The unit's score.
        gap: By how much the score exceeds the next unit's, neighbours of this one apart.
        sure: Whether the gap is so large that it is right as a rule.
    """

    index: int
    polygon: Polygon
    part: Polygon
    score: float
    gap: float
    sure: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "polygon": _rounded(self.polygon),
            "part": _rounded(self.part),
            "score": round(self.score, 2),
            "gap": round(self.gap, 2),
            "sure": self.sure,
        }


@dataclass(frozen=True)
class OddResult:
    """What `find_odd` found in a photo.

    Attributes:
        size: Width and height of the photo.
        axis: The candidate that was taken, with the period that its units turned out to have; None where
            nothing repeats itself.
        candidates: All axes that were found, best first.
        units: The string's units from end to end.
        odd: The odd one; None where too few units can be compared.
        warnings: What makes the result doubtful, a sentence each.
        strip: The straightened string, RGB; empty without an axis.
        cuts: The columns of `strip` where a unit ends and the next one begins.
    """

    size: tuple[int, int]
    axis: Axis | None
    candidates: list[Axis]
    units: list[Unit] = field(default_factory=list)
    odd: Odd | None = None
    warnings: list[str] = field(default_factory=list)
    strip: Array = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), repr=False)
    cuts: list[float] = field(default_factory=list)

    def ranked(self) -> list[int]:
        """Return the indices of the compared units, the oddest first."""
        compared = [index for index, unit in enumerate(self.units) if not unit.left_out]
        return sorted(compared, key=lambda index: -self.units[index].score)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values; pictures are left out, coordinates are pixels of the photo."""
        return {
            "size": list(self.size),
            "axis": self.axis.to_json() if self.axis else None,
            "period": round(self.axis.period, 2) if self.axis else None,
            "units": [unit.to_json() for unit in self.units],
            "odd": self.odd.to_json() if self.odd else None,
            "candidates": [axis.to_json() for axis in self.candidates],
            "warnings": self.warnings,
        }


def _rounded(points: Polygon) -> list[list[float]]:
    return [[round(x, 1), round(y, 1)] for x, y in points]
