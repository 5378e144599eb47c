"""Read masks, images whose pixels say what is where, and find their connected regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep.union_find import UnionFind
from llava.common.boxes import Box
from llava.common.images import open_header

# Regions of fewer pixels are specks left by painting, scaling or JPEG.
SPECK = 5

Region = tuple[Box, float]  # the box around it and its area, both in pixels


def read_mask(file: Path) -> np.ndarray:
    """Return the values of a mask file as they are stored, (height, width).

    Palette masks give their indices, colour masks their brightness. InputError naming the file if it is no
    whole image or far too large.
    """
    with open_header(file) as opened:
        is_plain = opened.mode in ("1", "L", "P", "I", "F") or opened.mode.startswith("I;16")
        values = np.asarray(opened if is_plain else opened.convert("L"))
    return values.astype(np.uint8) if values.dtype == bool else values


def connected_regions(mask: np.ndarray) -> tuple[list[Region], int]:
    """Find the connected regions of a mask of truth values (height, width).

    Pixels that touch at a side or a corner are connected.

    Returns:
        The regions from top to bottom, and how many specks, regions of fewer than `SPECK` pixels, were left
        out.
    """
    rows, starts, ends = _runs(mask)
    root = _first_run_of_region(rows, starts, ends, mask.shape[1])
    _, number = np.unique(root, return_inverse=True)
    count = int(number.max(initial=-1)) + 1
    left, right = np.full(count, mask.shape[1]), np.zeros(count, int)
    top, bottom = np.full(count, mask.shape[0]), np.zeros(count, int)
    np.minimum.at(left, number, starts)
    np.maximum.at(right, number, ends)
    np.minimum.at(top, number, rows)
    np.maximum.at(bottom, number, rows + 1)
    areas = np.bincount(number, weights=ends - starts, minlength=count)
    regions = [
        ((float(x1), float(y1), float(x2), float(y2)), float(area))
        for x1, y1, x2, y2, area in zip(left, top, right, bottom, areas, strict=True)
    ]
    kept = [(box, area) for box, area in regions if area >= SPECK]
    return kept, len(regions) - len(kept)


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, first column and column after the last of each unbroken run of a row, in reading order."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def _first_run_of_region(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
    """Return for each run the index of the first run, in reading order, of its region.

    Args:
        rows: The row of each run, (runs,).
        starts: Its first column.
        ends: The column after its last.
        width: The mask's width.
    """
    together = UnionFind(len(rows))
    # A run touches those of the row above that end at its first column or later and begin at its end or
    # earlier (corners count). Both are ranges, because runs are in reading order.
    row_length = width + 2
    above = (rows - 1) * row_length
    first = np.searchsorted(rows * row_length + ends, above + starts, side="left")
    last = np.searchsorted(rows * row_length + starts, above + ends, side="right")
    for run in np.flatnonzero(last > first):
        for other in range(first[run], last[run]):
            together.union(int(run), int(other))
    return np.array([together.find(run) for run in range(len(rows))], dtype=int)
