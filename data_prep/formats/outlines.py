"""What readers share about shapes: numbers as files write them, the box and area of an outline in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llava.common.boxes import Box

Point = tuple[float, float]

# No picture comes near; sums and products of such numbers stay finite.
_LARGEST = 1e9


def number(value: object) -> float | None:
    """A JSON number or the text of an XML attribute as a float; None if it is none, not finite or absurd."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if abs(result) < _LARGEST else None


def name_of(value: object) -> str | None:
    """A class name on one line, without spaces around it; None if it is none."""
    return " ".join(value.split()) or None if isinstance(value, str) else None


def size(width: object, height: object) -> tuple[float, float] | None:
    """A picture's stated (width, height), None where absent or less than a pixel."""
    across, down = number(width), number(height)
    return (across, down) if across and down and across >= 1 and down >= 1 else None


def bounds(points: Sequence[Point]) -> Box:
    """The box around one or more points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(points: Sequence[Point]) -> float:
    """The area that a closed outline without crossings encloses (the shoelace formula)."""
    pairs = zip(points, [*points[1:], *points[:1]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def turned_corners(box: Box, degrees: float, pivot: Point) -> list[Point]:
    """The corners of `box` turned clockwise, as seen with y downwards, about `pivot`."""
    x1, y1, x2, y2 = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    px, py = pivot
    return [
        (px + (x - px) * cos - (y - py) * sin, py + (x - px) * sin + (y - py) * cos)
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    ]


def ellipse_box(centre: Point, radii: Point, degrees: float) -> Box:
    """The box around an ellipse with `radii` along its own axes, turned by `degrees`."""
    (x, y), (rx, ry) = centre, radii
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across, down = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return x - across, y - down, x + across, y + down


def mask_box(runs: Iterable[tuple[int, int]], width: int) -> tuple[Box, int] | None:
    """The box around, and the count of, the set pixels of a mask `width` pixels wide, None if none is set.

    `runs` are the set pixels in rows from the top left as (first, one past the last).
    """
    left, top, right, bottom, count = width, None, 0, 0, 0
    for start, stop in runs:
        if stop <= start:
            continue
        first, last = start // width, (stop - 1) // width
        top = first if top is None else min(top, first)
        bottom = max(bottom, last + 1)
        left = min(left, start % width if first == last else 0)
        right = max(right, (stop - 1) % width + 1 if first == last else width)
        count += stop - start
    return None if top is None else ((float(left), float(top), float(right), float(bottom)), count)
