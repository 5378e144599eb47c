"""The most conspicuous points of an image, which another crop of the same sheet shows as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

MOST_SIDE = 2048  # pixels: crops of a sheet are not larger, and photos have no use for points
_FEWEST_SIDE = 48
_SIDE, _SHORT_SIDE = 256, 96  # pixels: an image is reduced to the first, but for a strip's shorter side
_POINTS = 64  # in an image
_REACH = 3  # pixels around a point, within which nothing is more conspicuous
_PATCH, _CELL = 24, 3  # pixels of a point's surroundings, and of their cells
_CELLS = _PATCH // _CELL
CODE_BITS = 2 * _CELLS * (_CELLS - 1)
POINT = np.dtype([("place", np.uint16, 2), ("code", np.uint8, -(-CODE_BITS // 8))])
"""A point: its (x, y) on the reduced image, and a code of what is around it: which cells are brighter than
the one left of them and above them."""


def may_be_crop(size: tuple[int, int]) -> bool:
    """Tell whether an image of a (width, height) may be a crop of a sheet, not a large photo or an icon."""
    return min(size) >= _FEWEST_SIDE and max(size) <= MOST_SIDE


def reduction(size: tuple[int, int]) -> int:
    """Return the whole number by which an image of a (width, height) is reduced before points are found."""
    return max(1, min(-(-max(size) // _SIDE), min(size) // _SHORT_SIDE))


def find_points(image: Image.Image) -> bytes:
    """Return the points of an image, each a `POINT`; none of one that cannot be a crop of a sheet,
    or shows nothing."""
    if not may_be_crop(image.size):
        return b""
    slightly = image.convert("L").reduce(reduction(image.size)).filter(ImageFilter.BoxBlur(1))
    blurred = np.asarray(slightly)
    contrast = np.asarray(ImageChops.difference(slightly, slightly.filter(ImageFilter.BoxBlur(3))))
    margin = _PATCH // 2
    columns, rows = _highest(contrast[margin:-margin, margin:-margin])
    if not len(rows):  # such as a black frame
        return b""
    rows, columns = rows + margin, columns + margin
    offsets = np.arange(_PATCH) - margin
    patches = blurred[
        rows[:, None, None] + offsets[None, :, None], columns[:, None, None] + offsets[None, None, :]
    ]
    cells = patches.reshape(-1, _CELLS, _CELL, _CELLS, _CELL).sum(axis=(2, 4), dtype=np.uint16)
    across = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(rows), -1)
    down = (cells[:, 1:] > cells[:, :-1]).reshape(len(rows), -1)
    points = np.empty(len(rows), dtype=POINT)
    points["place"] = np.stack([columns, rows], axis=1)
    points["code"] = np.packbits(np.concatenate([across, down], axis=1), axis=1)
    return points.tobytes()


def _highest(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the columns and rows of up to `_POINTS` values that none within `_REACH` of them exceeds."""
    side = _REACH + 1  # of a block, which holds one such value at most, or equal ones
    height, width = (size // side * side for size in values.shape)
    highest = np.zeros((height // side, width // side), dtype=np.uint8)
    for y in range(side):
        for x in range(side):
            np.maximum(highest, values[y:height:side, x:width:side], out=highest)
    likely = np.argsort(-highest.ravel().astype(np.int16), kind="stable")[: 4 * _POINTS]
    likely = likely[highest.ravel()[likely] > 1]
    tops, lefts = likely // max(1, width // side) * side, likely % max(1, width // side) * side
    inside = np.arange(side)
    blocks = values[tops[:, None, None] + inside[:, None], lefts[:, None, None] + inside]
    places = blocks.reshape(-1, side * side).argmax(axis=1)
    rows, columns = tops + places // side, lefts + places % side
    around = np.arange(-_REACH, _REACH + 1)
    neighbours = values[
        np.clip(rows[:, None, None] + around[:, None], 0, values.shape[0] - 1),
        np.clip(columns[:, None, None] + around, 0, values.shape[1] - 1),
    ]
    best = np.flatnonzero(neighbours.max(axis=(1, 2)) == values[rows, columns])[:_POINTS]
    return columns[best], rows[best]
