"""Overlapping square windows over a photo of any size. Pure arithmetic.

With half a side of overlap, whatever is at most half a side large lies whole in at least one window. There
are about 4 W H / side^2 of them.
"""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels of the photo; x2 and y2 are beyond the last pixel."""

SEEN_PIXELS = 10
"""How large a thing must be in the model's input, about, to be seen."""
DEFAULT_SMALLEST = 2 * SEEN_PIXELS
"""Pixels of the photo: then the windows have twice the side of the model's input."""


def window_side(model_side: int, smallest: int | None = None) -> int:
    """Return the windows' side for things of `smallest` photo pixels and up.

    It is never less than half the model's input: there is nothing to see in pixels blown up further.
    """
    smallest = DEFAULT_SMALLEST if smallest is None else smallest
    return max(model_side * smallest // SEEN_PIXELS, model_side // 2, 1)


def windows(size: tuple[int, int], side: int) -> list[Box]:
    """Return windows that cover a photo, row by row; neighbours overlap by at least half a side.

    Args:
        size: The photo's (width, height).
        side: The windows' side; where the photo is smaller, they are as large as it is.
    """
    width, height = size
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]


def scales(size: tuple[int, int], side: int) -> list[int]:
    """Return the sides of windows for things of all sizes: `side` and its doubles, up to the whole photo."""
    sides = [side]
    while sides[-1] < min(size):
        sides.append(2 * sides[-1])
    if sides[-1] < max(size):
        sides.append(max(size))
    return sides


def shifted(box: Box, size: tuple[int, int], share: float = 0.2) -> list[Box]:
    """Return the window moved left, right, up and down by a share of its side, within the photo."""
    dx, dy = round((box[2] - box[0]) * share), round((box[3] - box[1]) * share)
    moved = [move(box, x, y, size) for x, y in ((-dx, 0), (dx, 0), (0, -dy), (0, dy))]
    return list(dict.fromkeys(other for other in moved if other != box))


def move(box: Box, dx: int, dy: int, size: tuple[int, int]) -> Box:
    """Return the box moved, but not out of a photo of `size`."""
    x1, y1, x2, y2 = box
    dx = min(max(dx, -x1), size[0] - x2)
    dy = min(max(dy, -y1), size[1] - y2)
    return x1 + dx, y1 + dy, x2 + dx, y2 + dy


def around(box: Box, factor: float, size: tuple[int, int]) -> Box:
    """Return the box enlarged around its centre, cut off where the photo ends."""
    dx = round((box[2] - box[0]) * (factor - 1) / 2)
    dy = round((box[3] - box[1]) * (factor - 1) / 2)
    return (
        max(box[0] - dx, 0),
        max(box[1] - dy, 0),
        min(box[2] + dx, size[0]),
        min(box[3] + dy, size[1]),
    )


def shared(first: Box, second: Box) -> float:
    """Return which share of the smaller box lies in the other."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return max(across, 0) * max(down, 0) / smaller


def _starts(length: int, side: int) -> Sequence[int]:
    """Return where windows begin along an edge: evenly spaced, at most half a side apart."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // max(side // 2, 1))
    return [round(step * (length - side) / steps) for step in range(steps + 1)]
