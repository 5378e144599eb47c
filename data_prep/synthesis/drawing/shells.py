"""What a string covers, and where its discs are: found by GrabCut, and made even over the units."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data_prep.synthesis.strings import Floats, InsulatorString
from llava.common.masks import Mask, Pixels, import_opencv

COLUMNS = 24  # of a unit, in the straightened string
REACH = 1.6  # of v, which the straightened string shows on both sides
CHUNK = 8  # units that GrabCut looks at together: what lies behind a string changes along it
ROUNDS = 4
LAND = 1.12  # of v, from which nothing belongs to the string
SEED = 0.15  # of -1 <= v <= 1, which is the string for sure
# Of -1 <= v <= 1: a string that covers less or more was not told from what lies behind.
LEAST, MOST = 0.2, 0.97
TWINS_FROM = 2.7  # periods of a string's width, from which it may be two side by side
TWINS_ALIKE = 0.35  # the correlation of their usual units; one string's halves have 0.2 at most
ROD_LEAST, ROD_MOST = 0.08, 0.4  # of a row's width: half of a rod at the least, a rod at the most


@dataclass(frozen=True)
class Row:
    """A row of discs, from v = `low` to `high`; two strings side by side are two rows.

    The rod between the discs reaches from `rod_low` to `rod_high`. `centre` is the place within each unit,
    0 to 1, of a disc's middle, and `slope` by how much more it is with v: discs may lie askew.
    """

    low: float
    high: float
    rod_low: float
    rod_high: float
    centre: float
    slope: float

    def off(self, unit: int, u: Floats, v: Floats) -> Floats:
        """Return how far points lie from the middle plane of a unit's disc, in units."""
        away: Floats = u - unit - self.centre - self.slope * (v - (self.low + self.high) / 2)
        return away


@dataclass(frozen=True)
class Shells:
    """What a string covers.

    `shape` is (COLUMNS, places of v): the share of the units that show the string at a place of theirs.
    `seen` is (units * COLUMNS, places of v), what GrabCut took for the string. `rows` are its rows of discs;
    none where the string could not be told from what lies behind.
    """

    shape: Floats
    seen: Floats
    rows: tuple[Row, ...]

    def cover(self, u: Floats, v: Floats) -> Floats:
        """Return how much, 0 to 1, the string covers at points of it, by the shape that all units share."""
        around = np.concatenate([self.shape[-1:], self.shape, self.shape[:1]])  # it repeats along u
        covered: Floats = np.clip((_at(around, (u % 1) * COLUMNS + 0.5, v) - 0.5) * 3 + 0.5, 0, 1)
        return covered

    def cover_at_most(self, u: Floats, v: Floats) -> Floats:
        """Return how much the string may cover: units differ from the shape that they share."""
        return np.maximum(self.cover(u, v), _at(self.seen, u * COLUMNS - 0.5, v))


def _at(values: Floats, x: Floats, v: Floats) -> Floats:
    """Read values (columns, places of v) at columns x and places v, between them."""
    cv2 = import_opencv()
    y = (v + REACH) / (2 * REACH) * values.shape[1] - 0.5
    read: Floats = cv2.remap(
        np.ascontiguousarray(values.T), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR
    )
    return read


def find_shells(pixels: Pixels, string: InsulatorString) -> Shells:
    """Find the shape that a string's units share."""
    cv2 = import_opencv()
    height = max(24, round(REACH * COLUMNS * string.thickness / string.period))
    strip = _straight(pixels, string, height)
    v = _places(height)
    parts = []
    for first in range(0, string.units, CHUNK):
        # A rest of few units has its last neighbours with it.
        stop = min(string.units, first + CHUNK)
        start = max(0, stop - CHUNK)
        parts.append(
            _foreground(strip[:, start * COLUMNS : stop * COLUMNS], v)[:, (first - start) * COLUMNS :]
        )
    mask = np.concatenate(parts, axis=1)
    units = mask.reshape(height, string.units, COLUMNS).transpose(1, 2, 0)
    shape = units[list(string.whole)].mean(0).astype(np.float32)
    # Twice around, so that the filter runs on from the last column to the first.
    shape = cv2.GaussianBlur(np.tile(shape, (3, 1)), (0, 0), 0.7)[COLUMNS : 2 * COLUMNS]
    inside = np.abs(v) <= 1
    covers = float((shape[:, inside] > 0.5).mean())
    return Shells(
        shape,
        np.ascontiguousarray(mask.T),
        _rows(shape, v, _are_two(strip, string, v)) if LEAST < covers < MOST else (),
    )


def _places(height: int) -> Floats:
    return ((np.arange(height) + 0.5) / height * 2 * REACH - REACH).astype(np.float32)


def _straight(pixels: Pixels, string: InsulatorString, height: int) -> Pixels:
    """Return the string lying flat, COLUMNS to a unit and `height` rows over v."""
    cv2 = import_opencv()
    u = (np.arange(string.units * COLUMNS, dtype=np.float32) + 0.5) / COLUMNS
    x, y = string.to_photo(*np.meshgrid(u, _places(height)))
    left, top = max(0, int(x.min()) - 2), max(0, int(y.min()) - 2)
    part = pixels[top : int(y.max()) + 3, left : int(x.max()) + 3]  # remap takes no picture of 32768 and more
    shrink = min(1.0, 1.5 * COLUMNS / string.period)
    if shrink < 1:
        part = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    straight: Pixels = cv2.remap(
        part, (x - left) * shrink, (y - top) * shrink, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return straight


def _foreground(strip: Pixels, v: Floats) -> Floats:
    """Return where GrabCut sees the string in some of its units, 0 or 1.

    What the units have in common and the land beside them has not is the string for sure; without that,
    GrabCut may lose a string that is little unlike the land.
    """
    cv2 = import_opencv()
    lab = cv2.cvtColor(strip, cv2.COLOR_RGB2Lab).astype(np.float32)
    units = lab.reshape(len(v), -1, COLUMNS, 3)
    usual = np.median(units, axis=1)
    spread = np.abs(units - usual[:, None]).sum(-1).mean(1)
    land = lab[np.abs(v) > LAND].reshape(-1, 3)
    behind = np.median(land, axis=0)
    unlike = np.abs(usual - behind).sum(-1) / (spread + np.abs(land - behind).sum(-1).mean() + 4)
    inside = np.abs(v) <= 1
    sure = unlike > np.quantile(unlike[inside], 1 - SEED)
    sure[np.abs(v) > 0.9] = False
    by_row = np.select([np.abs(v) > LAND, np.abs(v) > 0.9], [cv2.GC_BGD, cv2.GC_PR_BGD], cv2.GC_PR_FGD)
    labels = np.repeat(by_row[:, None], strip.shape[1], axis=1).astype(np.uint8)
    labels[np.tile(sure, (1, units.shape[1]))] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # it clusters colours from a random start
    try:
        cv2.grabCut(strip, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # a picture of one colour has no clusters
        return np.zeros(labels.shape, np.float32)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def _are_two(strip: Pixels, string: InsulatorString, v: Floats) -> bool:
    """Whether two strings lie side by side: both halves of a usual unit then look alike, shifted along u."""
    if string.thickness < TWINS_FROM * string.period:
        return False
    units = strip.astype(np.float32).reshape(len(v), -1, COLUMNS, 3)
    usual = np.median(units[:, list(string.whole)], axis=1)

    def half(low: float) -> Floats:
        rows = np.interp(np.linspace(low, low + 0.8, 24), v, np.arange(len(v))).round().astype(int)
        centred = usual[rows] - usual[rows].mean((0, 1))
        return np.asarray(centred / np.sqrt((centred**2).sum() + 1e-6), np.float32)

    alike = [
        float((half(-0.9 - inward) * np.roll(half(0.1 + inward), shift, axis=1)).sum())
        for inward in (-0.15, -0.05, 0.05)
        for shift in range(COLUMNS)
    ]
    return max(alike) > TWINS_ALIKE


def _rows(shape: Floats, v: Floats, two: bool) -> tuple[Row, ...]:
    """Return the rows of discs, one or two, each with the run of v that all places of a unit cover: a rod."""
    shown = v[(shape > 0.5).any(0)]
    low, high = float(shown[0]), float(shown[-1])
    edges = [low, (low + high) / 2, high] if two else [low, high]
    return tuple(_row(shape, v, *ends) for ends in pairwise(edges))


def _row(shape: Floats, v: Floats, low: float, high: float) -> Row:
    within = (v >= low) & (v <= high)
    middle, most = (low + high) / 2, ROD_MOST * (high - low) / 2
    covered = (shape > 0.5).mean(0)
    rods = _runs((covered > 0.9) & within, v) or _runs((covered > 0.8 * covered[within].max()) & within, v)
    rod = min(rods, key=lambda run: abs(run[0] + run[1] - 2 * middle))
    # Where discs hide what lies between them, all of the row looks like a rod.
    rod = max(rod[0], middle - most), min(rod[1], middle + most)
    if rod[1] - rod[0] < 2 * ROD_LEAST * (high - low):
        centre = min(max((rod[0] + rod[1]) / 2, low), high)
        rod = centre - ROD_LEAST * (high - low), centre + ROD_LEAST * (high - low)
    outer = within & ((v < rod[0]) | (v > rod[1]))
    # The middle of what covers most: the first wave around the unit, as an angle.
    waves = shape[:, outer].T @ np.exp(-2j * np.pi * (np.arange(COLUMNS) + 0.5) / COLUMNS)
    whole = waves.sum()
    ahead = -np.angle(waves * whole.conj()) / (2 * np.pi)
    aside = v[outer] - middle
    slope = float((np.abs(waves) * ahead * aside).sum() / ((np.abs(waves) * aside**2).sum() + 1e-6))
    return Row(low, high, *rod, float((-np.angle(whole) / (2 * np.pi)) % 1), slope)


def _runs(here: Mask, v: Floats) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], here.astype(int), [0]])))
    return [(float(v[first]), float(v[stop - 1])) for first, stop in edges.reshape(-1, 2)]
