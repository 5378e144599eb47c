"""Overlapping square windows over a photo of any size. Pure arithmetic.

With half a side of overlap, whatever is at most half a side large lies whole in at least one window. There
are about 4 W H / side^2 of them.
"""

from __future__ import annotations

from collections.abc import Sequence

LARGEST = 1 / 2
"""Windows larger than half the photo's longer edge say too little about where the thing is."""

Box = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels of the photo; x2 and y2 are beyond the last pixel."""

SEEN_PIXELS = 10
"""How large a thing must be in the model's input, about, to be seen."""
DEFAULT_SMALLEST = 2 * SEEN_PIXELS
"""Pixels of the photo: then the windows have twice the side of the model's input."""


def window_side(model_side: int, smallest: int = DEFAULT_SMALLEST) -> int:
    """Return the windows' side for things of `smallest` photo pixels and up.

    It is never less than half the model's input: there is nothing to see in pixels blown up further.
    """
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
    """Return the sides of windows for things of many sizes: `side`, and its doubles up to half the photo's
    longer edge."""
    sides = [side]
    while 2 * sides[-1] <= LARGEST * max(size):
        sides.append(2 * sides[-1])
    return sides


def shifted(box: Box, size: tuple[int, int], share: float = 0.2) -> list[Box]:
    """Return the window moved left, right, up and down by a share of its side.

    An edge on the photo's border stays there, so that what lies in a corner of the photo is not lost: such a
    window becomes narrower or wider instead.
    """
    dx, dy = round((box[2] - box[0]) * share), round((box[3] - box[1]) * share)
    moved = [
        (*_moved(box[0], box[2], x, size[0]), *_moved(box[1], box[3], y, size[1]))
        for x, y in ((-dx, 0), (dx, 0), (0, -dy), (0, dy))
    ]
    boxes = [(x1, y1, x2, y2) for x1, x2, y1, y2 in moved]
    return list(dict.fromkeys(other for other in boxes if other != box))


def _moved(start: int, end: int, by: int, length: int) -> tuple[int, int]:
    """Return an interval moved, without those of its ends that lie at the ends of 0..length."""
    return (
        start if start == 0 else max(start + by, 0),
        end if end == length else min(end + by, length),
    )


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


def longer(box: Box) -> int:
    """Return the longer side of a box."""
    return max(box[2] - box[0], box[3] - box[1])


def centre_in(box: Box, other: Box) -> bool:
    """Return whether the centre of a box lies in another."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other[0] <= x <= other[2] and other[1] <= y <= other[3]


def _starts(length: int, side: int) -> Sequence[int]:
    """Return where windows begin along an edge: evenly spaced, at most half a side apart."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // max(side // 2, 1))
    return [round(step * (length - side) / steps) for step in range(steps + 1)]
