"""Finds images that show overlapping parts of one larger picture: crops of a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from data_prep.images.points import CODE_BITS, POINT, reduction
from data_prep.splits.near_codes import CodeIndex, IntArray
from llava.common.images import decode, open_header

Greys = NDArray[np.float32]

_CODE_WITHIN = 12  # bits, in which the codes of one point differ at most
_TABLES = 8  # of the search: not each point need be found
_VOTES = 3  # points that agree on a shift
_BIN = 4  # pixels, within which shifts agree
_LEAST_SHIFT = 0.04  # of a side; what is not shifted is a copy, or another thing in the same fixture
_OVERLAP, _ALIKE = 0.25, 0.9  # the least share that both show, and correlation there
_PERIODIC, _PERIOD_EDGE = 0.7, 0.4  # autocorrelation at a period, and between there and no shift
_BACKGROUND = 0.04  # of a side: the radius of the blur that is subtracted
_MOST_PAIRS = 200_000  # whose overlap is looked at


def find_shifted(
    files: Sequence[Path], points: Sequence[bytes]
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Find the images that overlap, all of one size.

    Candidates have `_VOTES` points or more whose surroundings look alike and that lie at one shift from each
    other. A pair is one that correlates where both show the same. Periodic textures (fabric, grids) do not
    count: they fit upon one another wherever they come from.

    Args:
        files: The images.
        points: Of each, as `find_points` gives them.

    Returns:
        The first and the second image of each pair, by index, and their correlation.
    """
    periodic = cache(lambda index: _is_periodic(_detail(files[index])))
    pairs = [
        (first, second, correlation)
        for first, second, x, y in _candidates(points)
        if not periodic(first)
        and (correlation := _overlap_correlation(files[first], files[second], x, y)) >= _ALIKE
    ]
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2]


def _candidates(points: Sequence[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """Yield two images and how far the second one's points lie right of and below the first one's."""
    owners = np.repeat(np.arange(len(points)), [len(item) // POINT.itemsize for item in points])
    if not len(owners):
        return
    all_points = np.frombuffer(b"".join(points), dtype=POINT)
    places = all_points["place"].astype(np.int64)
    codes = np.unpackbits(all_points["code"], axis=1, count=CODE_BITS).astype(np.bool_)
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


def _is_periodic(detail: Greys) -> bool:
    """Tell whether an image correlates with itself at a shift, and not with that all the way there, as
    streaks do."""
    height, width = detail.shape
    centred = detail - detail.mean()
    spectrum = np.abs(np.fft.rfft2(centred, (2 * height, 2 * width))) ** 2
    sums = np.fft.fftshift(np.fft.irfft2(spectrum, (2 * height, 2 * width)))
    high, wide = height // 2, width // 2  # shifts at which half a side or more still overlaps
    sums = sums[height - high : height + high + 1, width - wide : width + wide + 1]
    rows, columns = np.arange(-high, high + 1), np.arange(-wide, wide + 1)
    overlap = np.outer(height - np.abs(rows), width - np.abs(columns)) / (height * width)
    correlation = sums / overlap / max(float(sums[high, wide]), 1e-9)
    marks = Image.fromarray(np.where(correlation >= _PERIOD_EDGE, 255, 0).astype(np.uint8)).copy()  # writable
    ImageDraw.floodfill(marks, (wide, high), 0)  # what hangs together with no shift
    return bool((correlation[np.asarray(marks) > 0] >= _PERIODIC).any())


def _detail(file: Path) -> Greys:
    image = _grey(file)
    return np.asarray(image, dtype=np.float32) - _blurred(image, _BACKGROUND * max(image.size))


def _grey(file: Path) -> Image.Image:
    """Read an image as grey, reduced by a whole number to about `_SIDE` pixels."""
    with open_header(file) as stored:
        factor = reduction(stored.size)
        # A JPEG is read at a scale that leaves as much, which is fast.
        stored.draft("L", (stored.width // factor, stored.height // factor))
        factor = reduction(stored.size)
        return decode(stored, file, []).image.convert("L").reduce(factor)


def _blurred(image: Image.Image, radius: float) -> Greys:
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32)
