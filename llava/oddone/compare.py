"""Compare the units of a string with their neighbours, band by band, and say which one is odd."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from llava.oddone.result import Array

BANDS = 12  # across the string
BAND_ROWS, BAND_COLUMNS = 8, 24
WINDOW = 3  # bands that are scored together
NEAREST = 8  # units that a unit is compared with
RANK = 0.3
"""Of the distances to them, from the least: an odd unit is unlike nearly all, two odd neighbours too."""
TREND = 6  # units on each side whose median is taken for usual: perspective changes along the string
LONG = 16  # units from which the string is long enough to have a trend
OUTERMOST = 0.7  # of a score, for units with neighbours on one side only: half as many, so the root of a half
LEAST_COMPARED = 3


@dataclass(frozen=True)
class Comparison:
    """Scores of the units, which were left out, and the bands (first, last + 1) where each differs most."""

    scores: Array
    left_out: Array
    bands: list[tuple[int, int]]


def tiles_of(strip: Array, cuts: Array) -> Array:
    """Return the units in one size, (units, BANDS, BAND_ROWS, BAND_COLUMNS, channels)."""
    rows = BANDS * BAND_ROWS
    y = ((np.arange(rows) + 0.5) * len(strip) / rows - 0.5).astype(np.float32)
    parts = (np.arange(BAND_COLUMNS) + 0.5) / BAND_COLUMNS
    x = (cuts[:-1, None] + np.diff(cuts)[:, None] * parts).astype(np.float32).reshape(-1)
    level = cv2.remap(strip, np.tile(x, (rows, 1)), np.tile(y[:, None], (1, len(x))), cv2.INTER_LINEAR)
    units = level.reshape(BANDS, BAND_ROWS, len(cuts) - 1, BAND_COLUMNS, strip.shape[2])
    return units.transpose(2, 0, 1, 3, 4)


def distances(tiles: Array) -> Array:
    """Return how unlike two units are in each band: (descriptors, bands, units, units)."""
    grey = tiles[..., 0]
    flat = grey.reshape(*grey.shape[:2], -1)
    centred = flat - flat.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1, keepdims=True) + flat.shape[-1] * 16.0)
    unit = centred / length
    ncc = 1 - np.einsum("ibk,jbk->bij", unit, unit)

    dx = np.gradient(grey, axis=-1)
    dy = np.gradient(grey, axis=-2)
    strength, angle = np.hypot(dx, dy), np.arctan2(dy, dx) % np.pi
    bins = (angle / np.pi * 8).astype(int) % 8
    histogram = np.stack(
        [(strength * (bins == k)).reshape(*grey.shape[:2], 2, 4, 3, 8).sum((3, 5)) for k in range(8)], -1
    )
    histogram = np.sqrt(histogram.reshape(*grey.shape[:2], -1))
    histogram /= np.sqrt((histogram**2).sum(-1, keepdims=True) + 16.0)
    hog = ((histogram[:, None] - histogram[None]) ** 2).sum(-1).transpose(2, 0, 1)

    colour = tiles.mean(2).reshape(*tiles.shape[:2], 3, 8, 3).mean(3).reshape(*tiles.shape[:2], -1)
    lab = np.abs(colour[:, None] - colour[None]).mean(-1).transpose(2, 0, 1)
    return np.stack([ncc, hog, lab])


def compare(tiles: Array, weight: Array) -> Comparison:
    """Score each unit by its distance to its nearest neighbours along the string.

    Args:
        tiles: What `tiles_of` returned.
        weight: (BANDS,) how much of each band belongs to the string.
    """
    pairs = distances(tiles)
    scores, bands = _scores(pairs, weight)
    left_out = _ends(scores)
    kept = np.flatnonzero(~left_out)
    if len(kept) >= LEAST_COMPARED:
        scores[kept], inner = _scores(pairs[:, :, kept][..., kept], weight)
        scores[kept[[0, -1]]] *= OUTERMOST
        for place, index in enumerate(kept):
            bands[index] = inner[place]
    return Comparison(scores, left_out, bands)


def _scores(pairs: Array, weight: Array) -> tuple[Array, list[tuple[int, int]]]:
    """Return each unit's score, in robust standard deviations, and the bands where it was found."""
    count = pairs.shape[-1]
    unlike = np.zeros((*pairs.shape[:2], count))
    for index in range(count):
        near = np.argsort(np.abs(np.arange(count) - index), kind="stable")[1 : NEAREST + 1]
        unlike[..., index] = np.quantile(pairs[..., index, near], RANK, axis=-1)
    rest = unlike - _usual(unlike)
    spread = 1.4826 * np.median(np.abs(rest), axis=-1, keepdims=True)
    # a band that happens to be very even must not outweigh the others
    spread += 0.3 * np.median(spread, axis=1, keepdims=True) + 1e-6
    deviation = (rest / spread).mean(0) * weight[:, None]
    windows = np.stack([deviation[first : first + WINDOW].mean(0) for first in range(BANDS - WINDOW + 1)])
    return windows.max(0), [(int(band), int(band) + WINDOW) for band in windows.argmax(0)]


def _usual(unlike: Array) -> Array:
    """Return what is usual near each unit; in a short string, in all of it."""
    count = unlike.shape[-1]
    if count <= LONG:
        return np.median(unlike, axis=-1, keepdims=True)
    spans = [unlike[..., max(0, index - TREND) : index + TREND + 1] for index in range(count)]
    return np.stack([np.median(span, axis=-1) for span in spans], -1)


def _ends(scores: Array) -> Array:
    """Return which units belong to the odd run of one to four at either end: fittings, or cut by the box."""
    count = len(scores)
    left_out = np.zeros(count, bool)
    most = min(4, count // 5)
    odd = scores > np.median(scores) + 2.0
    for way in (1, -1):
        run = int(odd[::way][:most].cumprod().sum())
        if count >= 8:
            run = max(run, 1)
        left_out[::way][:run] = True
    return left_out
