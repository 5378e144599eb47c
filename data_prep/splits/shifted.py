"""Finds images that show overlapping parts of one larger picture: crops of a sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from data_prep.images.points import CODE_BITS, MOST_SIDE, POINT, reduction
from data_prep.splits.joined import Joined
from data_prep.splits.near_codes import Bits, CodeIndex, IntArray
from data_prep.splits.twins import ALL_PAIRS
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
    files: Sequence[Path], points: Sequence[bytes], size: tuple[int, int], sets: IntArray
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Find the images that overlap, all of one size.

    Candidates have `_VOTES` points or more whose surroundings look alike and that lie at one shift from each
    other. A pair is one that correlates where both show the same. Periodic textures (fabric, grids) do not
    count: they fit upon one another wherever they come from.

    Images that hang together, as copies or because they overlap, in sets of more than `ALL_PAIRS` are not
    looked at again. So a film takes time and memory as its length does.

    Args:
        files: The images.
        points: Of each, as `find_points` gives them.
        size: Their (width, height).
        sets: Of each, the number of a set of images that hang together anyway.

    Returns:
        The first and the second image of each pair, by index, and their correlation.
    """
    periodic = cache(lambda index: _is_periodic(_detail(files[index])))
    joined = Joined(len(files))
    order = np.argsort(sets, kind="stable")
    same = sets[order[1:]] == sets[order[:-1]]
    joined.union(order[:-1][same], order[1:][same])
    first, second, x, y = _candidates(points, size, joined)
    pairs = []
    for one, two, right, below in zip(first.tolist(), second.tolist(), x.tolist(), y.tolist(), strict=True):
        ends = np.array([[one], [two]])
        if periodic(one) or not _is_open(joined, *ends)[0]:
            continue
        if (correlation := _overlap_correlation(files[one], files[two], right, below)) >= _ALIKE:
            pairs.append((one, two, correlation))
            joined.union(*ends)
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2]


def _is_open(joined: Joined, first: IntArray, second: IntArray) -> Bits:
    """Tell which pairs are not known to hang together, or with few others only."""
    sets = joined.find(first)
    return (sets != joined.find(second)) | (joined.sizes(sets) <= ALL_PAIRS)


def _candidates(
    points: Sequence[bytes], size: tuple[int, int], joined: Joined
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return pairs of images, by index, and how far the second one's points lie right of and below the first
    one's; those that most points agree on come first."""
    counts = [len(item) // POINT.itemsize for item in points]
    owners = np.repeat(np.arange(len(points), dtype=np.int32), counts)
    all_points = np.frombuffer(b"".join(points), dtype=POINT)
    codes = np.zeros((len(owners), -(-CODE_BITS // 64) * 8), dtype=np.uint8)
    codes[:, : all_points["code"].shape[1]] = all_points["code"]
    words = codes.view(np.uint64)

    def wanted(rows: IntArray, others: IntArray) -> Bits:
        first, second = owners[rows], owners[others]
        apart = first != second
        apart[apart] = _is_open(joined, first[apart], second[apart])
        return apart

    def of_images(rows: IntArray, others: IntArray) -> IntArray:
        shifts = all_points["place"][others].astype(np.int64) - all_points["place"][rows]
        voted = _vote(owners[rows].astype(np.int64), owners[others].astype(np.int64), shifts, len(points))
        factor = reduction(size)
        sides = np.array([-(-size[0] // factor), -(-size[1] // factor)])
        return voted[(abs(voted[:, 2:4]) / sides).max(axis=1) >= _LEAST_SHIFT]

    found = np.empty((0, 6), dtype=np.int64)
    # The points come in the order of their images, and an image's are voted on together.
    waiting = [np.empty(0, dtype=np.int64)] * 2
    for rows, others, _ in CodeIndex(words, CODE_BITS, _TABLES).near(words, _CODE_WITHIN, wanted=wanted):
        rows, others = np.concatenate([waiting[0], rows]), np.concatenate([waiting[1], others])
        whole = int(np.searchsorted(owners[rows], owners[rows[-1]])) if len(rows) else 0
        waiting = [rows[whole:], others[whole:]]
        found = np.concatenate([found, of_images(rows[:whole], others[:whole])])
        if len(found) > 2 * _MOST_PAIRS:
            found = _most_agreed(found)
    found = _most_agreed(np.concatenate([found, of_images(*waiting)]))
    return found[:, 0], found[:, 1], found[:, 2], found[:, 3]


def _most_agreed(pairs: IntArray) -> IntArray:
    first, second, _, _, votes, start = pairs.T
    return pairs[np.lexsort((second, first, start, -votes))[:_MOST_PAIRS]]


def _vote(first: IntArray, second: IntArray, shifts: IntArray, images: int) -> IntArray:
    """Find the shift that most points of each two images agree on.

    Args:
        first: The image that each first point lies on, by index; in order.
        second: The image of each second point.
        shifts: How far each second point lies right of and below the first one: (points, 2).
        images: How many there are.

    Returns:
        For each two images that `_VOTES` points or more agree on: both, the shift right and below, the number
        of points, and which of the ways to begin a bin found it.
    """
    if not len(first):
        return np.empty((0, 6), dtype=np.int64)
    pairs = (first - first[0]) * images + second
    parts = []
    # Shifts beside a bin's edge agree in bins that begin half a bin later.
    for start, offsets in enumerate(((0, 0), (0, _BIN // 2), (_BIN // 2, 0), (_BIN // 2, _BIN // 2))):
        bins = (shifts + np.array(offsets)) // _BIN + MOST_SIDE
        keys = (pairs * 2 * MOST_SIDE + bins[:, 0]) * 2 * MOST_SIDE + bins[:, 1]
        order = np.argsort(keys, kind="stable")
        begin = np.flatnonzero(np.diff(keys[order], prepend=-1))
        votes = np.diff(begin, append=len(keys))
        enough = votes >= _VOTES
        means = [np.add.reduceat(shifts[order, axis], begin) / votes for axis in (0, 1)]
        x, y = (np.round(mean[enough]).astype(np.int64) for mean in means)
        there = order[begin[enough]]
        starts = np.full(len(there), start)
        parts.append(np.stack([first[there], second[there], x, y, votes[enough], starts], axis=1))
    voted = np.concatenate(parts)
    voted = voted[np.lexsort((voted[:, 3], voted[:, 2], voted[:, 4], voted[:, 1], voted[:, 0]))]
    new = (np.diff(voted[:, :2], axis=0, prepend=-1) != 0).any(axis=1)
    best = voted[np.append(new[1:], True)] if len(voted) else voted  # the last of each two images
    if len(voted):
        best[:, 5] = np.minimum.reduceat(voted[:, 5], np.flatnonzero(new))
    return best


def _overlap_correlation(first: Path, second: Path, x: int, y: int) -> float:
    """Correlate what two images both show, without their slow changes of light.

    Args:
        first: An image.
        second: Another one of its size.
        x: How far right of their places on the first image things lie on the second one.
        y: How far below.

    Returns:
        The correlation at the best shift within two pixels; 0 where too little overlaps.
    """
    one, two = _detail(first), _detail(second)
    if one.shape != two.shape or _correlation(one, two, x, y) < _ALIKE / 2:
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
        # A JPEG is read at a scale of a half, quarter or eighth, which is fast, where the rest is whole too.
        scale = math.gcd(factor, 8)
        width = stored.width
        stored.draft("L", (-(-stored.width // scale), -(-stored.height // scale)))
        factor //= -(-width // stored.width)
        return decode(stored, file, []).image.convert("L").reduce(factor)


def _blurred(image: Image.Image, radius: float) -> Greys:
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32)
