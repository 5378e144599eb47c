"""Finds images that show overlapping parts of one larger picture: crops of a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from data_prep.splits.near_codes import Bits, CodeIndex, IntArray
from llava.common.images import decode, open_header

Greys = NDArray[np.float32]

MOST_SIDE = 2048  # pixels: crops of a sheet are not larger, and photos take long to open
_FEWEST_SIDE = 48
_SIDE, _SHORT_SIDE = 256, 96  # pixels: an image is reduced to the first, but for a strip's shorter side
_POINTS = 64  # in an image
_REACH = 3  # pixels around a point, within which nothing is more conspicuous
_PATCH, _CELL = 24, 3  # pixels of a point's surroundings, and of their cells
_CODE_WITHIN = 12  # bits of 112, in which the codes of one point differ at most
_TABLES = 8  # of the search: not each point need be found
_VOTES = 3  # points that agree on a shift
_BIN = 4  # pixels, within which shifts agree
_LEAST_SHIFT = 0.04  # of a side; what is not shifted is a copy, or another thing in the same fixture
_OVERLAP, _ALIKE = 0.25, 0.9  # the least share that both show, and correlation there
_BACKGROUND = 0.04  # of a side: the radius of the blur that is subtracted
_MOST_PAIRS = 200_000  # whose overlap is looked at


@dataclass(frozen=True)
class Points:
    """The most conspicuous points of an image: their (x, y) and the codes of what is around them."""

    places: NDArray[np.int16]
    codes: Bits


def may_be_crop(size: tuple[int, int]) -> bool:
    """Tell whether an image of a (width, height) may be a crop of a sheet, not a large photo or an icon."""
    return min(size) >= _FEWEST_SIDE and max(size) <= MOST_SIDE


def find_points(file: Path) -> Points:
    """Find the points of an image that a crop of the same sheet shows as well."""
    image = _grey(file)
    slightly = image.filter(ImageFilter.BoxBlur(1))
    blurred = np.asarray(slightly)
    contrast = np.asarray(ImageChops.difference(slightly, image.filter(ImageFilter.BoxBlur(3))))
    margin = _PATCH // 2
    columns, rows = _highest(contrast[margin:-margin, margin:-margin])
    rows, columns = rows + margin, columns + margin
    offsets = np.arange(_PATCH) - margin
    patches = blurred[
        rows[:, None, None] + offsets[None, :, None], columns[:, None, None] + offsets[None, None, :]
    ]
    side = _PATCH // _CELL
    cells = patches.reshape(-1, side, _CELL, side, _CELL).sum(axis=(2, 4), dtype=np.uint16)
    across = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(rows), -1)
    down = (cells[:, 1:] > cells[:, :-1]).reshape(len(rows), -1)
    return Points(np.stack([columns, rows], axis=1).astype(np.int16), np.concatenate([across, down], axis=1))


def find_shifted(
    files: Sequence[Path], points: Sequence[Points]
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Find the images that overlap, all of one size.

    Candidates have `_VOTES` points or more whose surroundings look alike and that lie at one shift from each
    other. A pair is one that correlates where both show the same.

    Args:
        files: The images.
        points: Of each.

    Returns:
        The first and the second image of each pair, by index, and their correlation.
    """
    pairs = [
        (first, second, correlation)
        for first, second, x, y in _candidates(points)
        if (correlation := _overlap_correlation(files[first], files[second], x, y)) >= _ALIKE
    ]
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2]


def _candidates(points: Sequence[Points]) -> Iterator[tuple[int, int, int, int]]:
    """Yield two images and how far the second one's points lie right of and below the first one's."""
    owners = np.repeat(np.arange(len(points)), [len(item.places) for item in points])
    if not len(owners):
        return
    codes = np.concatenate([item.codes for item in points])
    places = np.concatenate([item.places for item in points]).astype(np.int64)
    rows, others, _ = CodeIndex(codes, _TABLES).near(codes, _CODE_WITHIN)
    keep = owners[rows] < owners[others]
    rows, others = rows[keep], others[keep]
    shifts = places[others] - places[rows]
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    # Shifts beside a bin's edge agree in bins that begin half a bin later.
    for offset_x, offset_y in ((0, 0), (0, _BIN // 2), (_BIN // 2, 0), (_BIN // 2, _BIN // 2)):
        bins = (shifts + np.array([offset_x, offset_y])) // _BIN
        votes = np.column_stack([owners[rows], owners[others], bins])
        agreed, inverse, counts = np.unique(votes, axis=0, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(inverse.ravel(), shifts[:, axis]) for axis in (0, 1)], axis=1)
        for row in np.flatnonzero(counts >= _VOTES):
            first, second = int(agreed[row, 0]), int(agreed[row, 1])
            x, y = np.round(sums[row] / counts[row]).astype(int).tolist()
            found = (int(counts[row]), x, y)
            best[first, second] = max(found, best.get((first, second), found))
    for (first, second), (_, x, y) in sorted(best.items(), key=lambda item: -item[1][0])[:_MOST_PAIRS]:
        yield first, second, x, y


def _overlap_correlation(first: Path, second: Path, x: int, y: int) -> float:
    """Correlate what two images both show, without their slow changes of light.

    Args:
        first: An image.
        second: Another one of its size.
        x: How far right of their places on the first image things lie on the second one.
        y: How far below.

    Returns:
        The correlation at the best shift within two pixels; 0 where too little overlaps or nothing moved.
    """
    one, two = _detail(first), _detail(second)
    height, width = one.shape
    if one.shape != two.shape or max(abs(x) / width, abs(y) / height) < _LEAST_SHIFT:
        return 0.0
    if _correlation(one, two, x, y) < _ALIKE / 2:
        return 0.0
    return max(_correlation(one, two, x + dx, y + dy) for dx in range(-2, 3) for dy in range(-2, 3))


def _correlation(one: Greys, two: Greys, x: int, y: int) -> float:
    height, width = one.shape
    if max(0, width - abs(x)) * max(0, height - abs(y)) < _OVERLAP * width * height:
        return 0.0
    a = one[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    b = two[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    a, b = a - a.mean(), b - b.mean()
    energy = float(np.vdot(a, a)) * float(np.vdot(b, b))
    return float(np.vdot(a, b)) / energy**0.5 if energy > 0 else 0.0


def _detail(file: Path) -> Greys:
    image = _grey(file)
    return np.asarray(image, dtype=np.float32) - _blurred(image, _BACKGROUND * max(image.size))


def _grey(file: Path) -> Image.Image:
    """Read an image as grey, reduced by a whole number to about `_SIDE` pixels."""
    with open_header(file) as stored:
        factor = _reduction(stored.size)
        # A JPEG is read at a scale that leaves as much, which is fast.
        stored.draft("L", (stored.width // factor, stored.height // factor))
        factor = _reduction(stored.size)
        return decode(stored, file, []).image.convert("L").reduce(factor)


def _reduction(size: tuple[int, int]) -> int:
    return max(1, min(-(-max(size) // _SIDE), min(size) // _SHORT_SIDE))


def _blurred(image: Image.Image, radius: float) -> Greys:
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32)


def _highest(values: NDArray[np.uint8]) -> tuple[IntArray, IntArray]:
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


def _code_bits() -> int:
    side = _PATCH // _CELL
    return 2 * side * (side - 1)
