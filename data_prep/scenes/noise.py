"""Seeded random fields: the clouds, soil, soot and dirt of the scenes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


def field(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 4, wrap: bool = False
) -> Array:
    """Fractal noise, (height, width) in 0..1, its largest features about `cell` pixels across.

    With `wrap` the field tiles: its left edge continues its right one, its top its bottom.
    """
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        rows = max(2, round(height / cell * 2**octave))
        columns = max(2, round(width / cell * 2**octave))
        if rows > height or columns > width:
            break
        grid = rng.random((rows, columns), np.float32)
        box = None
        if wrap:
            grid = np.pad(grid, 2, mode="wrap")
            box = (2.0, 2.0, 2.0 + columns, 2.0 + rows)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box)
        total += weight * np.asarray(layer)
        weight *= 0.55
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / max(high - low, 1e-6), np.float32)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, an S-curve between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def mix(first: Array, second: Array | tuple[float, ...], share: Array) -> Array:
    """`first` (h, w, 3) blended towards `second` by `share` (h, w), 0..1."""
    return np.asarray(first + (np.asarray(second, np.float32) - first) * share[..., None], np.float32)
