"""Outline geometry: bounding boxes and areas of polygons, rotated boxes, ellipses and masks.

Coordinates have x to the right and y downwards, as in images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llava.common.boxes import Box

Point = tuple[float, float]


def bounding_box(points: Sequence[Point]) -> Box:
    """Return the smallest box that holds the points, of which there is at least one."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(points: Sequence[Point]) -> float:
    """Return the area enclosed by a closed outline without crossings (the shoelace formula)."""
    edges = zip(points, [*points[1:], *points[:1]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in edges)) / 2


def rotated_corners(box: Box, degrees: float, pivot: Point) -> list[Point]:
    """Return the corners of `box` rotated about `pivot`, clockwise as seen on the image."""
    x1, y1, x2, y2 = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    px, py = pivot
    return [
        (px + (x - px) * cos - (y - py) * sin, py + (x - px) * sin + (y - py) * cos)
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    ]


def rotated_box(box: Box, degrees: float) -> tuple[Box, float]:
    """Return the box around `box` rotated about its centre, and the area of `box` itself."""
    x1, y1, x2, y2 = box
    corners = rotated_corners(box, degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
    return bounding_box(corners), polygon_area(corners)


def ellipse_box(centre: Point, radii: Point, degrees: float) -> Box:
    """Return the bounding box of an ellipse with `radii` along its own axes, rotated by `degrees`."""
    (x, y), (rx, ry) = centre, radii
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return x - half_width, y - half_height, x + half_width, y + half_height


def mask_box(runs: Iterable[tuple[int, int]], width: int) -> tuple[Box, int] | None:
    """Return the bounding box of a mask's set pixels and how many they are; None if none is set.

    Args:
        runs: Unbroken runs of set pixels as (index of the first, index after the last), pixels being
            numbered row by row from the top left.
        width: The mask's width in pixels.
    """
    left, top, right, bottom, count = width, None, 0, 0, 0
    for start, stop in runs:
        if stop <= start:
            continue
        first_row, last_row = start // width, (stop - 1) // width
        top = first_row if top is None else min(top, first_row)
        bottom = max(bottom, last_row + 1)
        left = min(left, start % width if first_row == last_row else 0)
        right = max(right, (stop - 1) % width + 1 if first_row == last_row else width)
        count += stop - start
    return None if top is None else ((float(left), float(top), float(right), float(bottom)), count)
