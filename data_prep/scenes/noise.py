"""Seeded random fields: the clouds, soil, soot and dirt of the scenes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.chance import Chance

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# The bicubic weights of the pixels around a point a quarter past one of them.
_CUBIC = (-0.0234375, 0.2265625, 0.8671875, -0.0703125)


def field(
    chance: Chance, height: int, width: int, cell: float, octaves: int = 4, flatten: float = 1.0
) -> Bytes:
    """Fractal noise, (height, width) in 0..255, its largest features about `cell` pixels wide.

    They are `flatten` times as wide as tall. Each octave is twice as fine as the one before.
    """
    rows, columns = max(2, round(height * flatten / cell)), max(2, round(width / cell))
    return _enlarged(_fractal(chance, rows, columns, octaves, wrap=False), height, width)


def tile(chance: Chance, cells: int, octaves: int) -> Bytes:
    """Fractal noise that repeats: its left edge continues its right one, its top its bottom.

    It is square, with `cells` of the largest features a side, two pixels for each of the finest.
    """
    return _fractal(chance, cells, cells, octaves, wrap=True)


def _fractal(chance: Chance, rows: int, columns: int, octaves: int, wrap: bool) -> Bytes:
    """The octaves, added up on a grid twice as fine as the finest."""
    total = np.zeros((rows, columns), np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += chance.shares((rows << octave, columns << octave)) * weight
        total = _doubled(_doubled(total, wrap).T, wrap).T
        weight *= 0.55
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) * (255.0 / max(high - low, 1e-6)) + 0.5, np.uint8)


def _doubled(grid: Array, wrap: bool) -> Array:
    """Twice the rows, bicubic."""
    count = len(grid)
    places = np.arange(-2, count + 2)
    padded = grid[places % count if wrap else np.clip(places, 0, count - 1)]
    result = np.empty((2 * count, grid.shape[1]), np.float32)
    for half, step in ((0, 1), (1, -1)):  # before and after each row's centre
        result[half::2] = 0.0
        for place, weight in enumerate(_CUBIC):
            start = 2 + (place - 2) * step
            result[half::2] += padded[start : start + count] * weight
    return result


def _enlarged(grid: Bytes, height: int, width: int) -> Bytes:
    """`grid` stretched to (height, width) between its values, in whole numbers."""

    def stretched(lines: NDArray[np.uint16], length: int) -> NDArray[np.uint16]:
        count = len(lines)
        place = np.clip((np.arange(length) + 0.5) * (count / length) - 0.5, 0, count - 1)
        before = np.minimum(place.astype(np.intp), count - 2)
        share = ((place - before) * 256).astype(np.uint16)[:, None]
        mixed = lines[before] * (256 - share) + lines[before + 1] * share
        return np.asarray(mixed >> 8, np.uint16)

    wide = stretched(np.ascontiguousarray(grid.T, np.uint16), width)
    return stretched(np.ascontiguousarray(wide.T), height).astype(np.uint8)


def smoothstep(low: float, high: float, value: NDArray[Any]) -> Array:
    """0 below `low`, 1 above `high`, an S-curve between."""
    t = np.clip((value - low) * (1.0 / (high - low)), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def mix(first: Array, second: Array | tuple[float, ...], share: Array) -> Array:
    """`first` (3, ...) blended towards `second`, a colour or as many, by `share` (...), 0..1."""
    if isinstance(second, tuple):
        second = np.asarray(second, np.float32).reshape(3, *[1] * (first.ndim - 1))
    return np.asarray(first + (second - first) * share, np.float32)


def blur(picture: Bytes, deviation: float) -> Bytes:
    """`picture` (..., h, w) blurred by about a Gaussian, in whole numbers: passes over three pixels each."""
    variance = deviation * deviation
    passes = math.ceil(variance * 2)
    weight = round(128 * variance / max(passes, 1))  # of each neighbour, in 256ths
    pixels = picture.astype(np.uint16)
    for _ in range(passes if weight else 0):
        for before, after, first, last in (
            (np.s_[..., :-1], np.s_[..., 1:], np.s_[..., 0], np.s_[..., -1]),
            (np.s_[..., :-1, :], np.s_[..., 1:, :], np.s_[..., 0, :], np.s_[..., -1, :]),
        ):
            shares = pixels * weight
            pixels = pixels * (256 - 2 * weight) + 128
            pixels[before] += shares[after]
            pixels[after] += shares[before]
            pixels[first] += shares[first]
            pixels[last] += shares[last]
            pixels >>= 8
    return pixels.astype(np.uint8)
