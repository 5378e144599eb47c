"""A string as solids of revolution, painted slice by slice.

Every solid is a stack of thin discs ("slices"). Painting them from the far end to the near one is the
hidden-surface rule: the slice that wins a pixel gives its place on the surface, hence its normal,
shadow and colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.exact import arctan2, cosine, hypotenuse, power, sine
from data_prep.scenes.noise import Array
from data_prep.scenes.raster import Indices, runs
from data_prep.scenes.string_types import SHELL, Bite, Outline, StringType

Codes = NDArray[np.int32]  # what a pixel shows: a slice, FRACTURE or not, (unit + 1) << UNIT; or EMPTY
EMPTY = -1
FRACTURE = 1 << 15
UNIT = 16
_PHASES = 4  # places between two columns that a bitten slice is moved to


@dataclass(frozen=True)
class Slices:
    """A unit's slices from the far end to the near one, all arrays (slices,)."""

    place: Array  # along the axis, pixels before foreshortening
    radius: Array
    normal_axis: Array
    normal_out: Array
    material: NDArray[np.int8]
    open_air: Array  # 1 outside, less in the hollows between discs

    @staticmethod
    def cut(outlines: list[Outline], pitch: float, disc_radius: float, caps_near: bool) -> list[Slices]:
        """Each outline in slices less than a pixel apart. Near caps turn the units around."""
        return [_cut(outline, pitch, disc_radius, caps_near) for outline in outlines]

    @staticmethod
    def joined(parts: list[Slices]) -> Slices:
        names = ("place", "radius", "normal_axis", "normal_out", "material", "open_air")
        return Slices(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _cut(outline: Outline, pitch: float, disc_radius: float, caps_near: bool) -> Slices:
    t, r, material = (np.asarray(column) for column in zip(*outline, strict=True))
    t, r = t * pitch, r * disc_radius
    if caps_near:
        t, r, material = -t[::-1], r[::-1], material[::-1]
    run, rise = np.diff(t), np.diff(r)
    length = np.maximum(hypotenuse(run, rise), 1e-9)
    counts = np.maximum(np.ceil(length / 1.3), 1).astype(np.intp)
    piece, step = runs(np.zeros_like(counts), counts)
    share = step / counts[piece]
    radius = r[:-1][piece] + rise[piece] * share
    hollow = 1 - 0.55 * power(1 - np.minimum(radius / disc_radius, 1.0), 1.2)
    floats = (
        t[:-1][piece] + run[piece] * share, radius, (-rise / length)[piece], (run / length)[piece], hollow
    )  # fmt: skip
    place, radius, axis, out, hollow = (np.asarray(column, np.float32) for column in floats)
    return Slices(place, radius, axis, out, material[1:][piece].astype(np.int8), hollow)


@dataclass(frozen=True)
class Surface:
    """What each pixel that shows a unit shows, all (pixels,): the unit, and its slice's geometry there."""

    pixel: Indices  # its number in the flat picture
    row: Array
    column: Array
    unit: NDArray[np.int32]
    material: NDArray[np.int8]
    local: Array  # along the axis, from the unit's own origin
    side: Array  # v / radius of the slice, -1..1
    front: Array  # the other coordinate on the slice's rim, towards the camera positive
    radius: Array
    normal_axis: Array
    normal_out: Array
    open_air: Array
    fracture: NDArray[np.bool_]


@dataclass(frozen=True)
class Stack:
    """Units in a row on the axis of a flat picture."""

    kind: StringType
    parts: list[Slices]  # of each shape of unit: whole, bare, yoke
    pitch: float  # the distance of two units along the axis, in pixels
    margin: int  # free pixels around the string
    size: tuple[int, int]  # (height, width) of the picture
    length: float  # of the string as it appears, in pixels

    def _column(self, unit: int) -> int:
        """Where a unit's first point is: its cap's top, or, turned around, minus that."""
        foreshortened = cosine(self.kind.tilt)
        whole = self.length / foreshortened
        fitting = (whole - self.kind.discs * self.pitch) / 2
        start = fitting + unit * self.pitch if unit >= 0 else 0.0
        return self.margin + round((whole - start if self.kind.caps_near else start) * foreshortened)

    def draw(self, shapes: dict[int, int], bite: Bite | None) -> Codes:
        """Stamp the units over each other, those behind first; what each pixel shows, `size`.

        Args:
            shapes: The shape of each unit, an index into `parts`.
            bite: Where discs are broken, if any are.
        """
        tilt = sine(self.kind.tilt), cosine(self.kind.tilt)
        height, width = self.size
        codes = np.full(self.size, EMPTY, np.int32)
        offsets = [0, len(self.parts[0].place), len(self.parts[0].place) + len(self.parts[1].place)]
        stamps: dict[int, tuple[Codes, int]] = {}
        for unit in sorted(shapes, reverse=self.kind.caps_near):
            shape = shapes[unit]
            if bite is not None and unit in bite.units:
                stamp, left = _bitten(self.parts[shape], bite, *tilt)
            else:
                if shape not in stamps:  # every unit of a shape looks the same
                    stamps[shape] = _stamp(self.parts[shape], *tilt)
                stamp, left = stamps[shape]
            x, y = self._column(unit) + left, (height - len(stamp)) // 2
            rows = slice(max(y, 0), min(y + stamp.shape[0], height))
            columns = slice(max(x, 0), min(x + stamp.shape[1], width))
            cut = stamp[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            np.copyto(codes[rows, columns], cut + (offsets[shape] + (unit + 1 << UNIT)), where=cut != EMPTY)
        return codes

    def surface(self, codes: Codes) -> Surface:
        """The geometry of every pixel that shows a unit."""
        foreshortened, deep = cosine(self.kind.tilt), sine(self.kind.tilt)
        height, width = self.size
        pixel = np.flatnonzero(codes != EMPTY)
        row, column = (part.astype(np.float32) for part in divmod(pixel.astype(np.int32), width))
        shown = codes.reshape(-1).take(pixel)
        unit = (shown >> UNIT) - 1
        number = (shown & (FRACTURE - 1)).astype(np.intp)
        slices = Slices.joined(self.parts)
        starts = np.asarray(
            [self._column(u) / foreshortened for u in range(-1, self.kind.discs + 1)], np.float32
        )
        radius, local = slices.radius.take(number), slices.place.take(number)
        across = 1 / radius
        side = (row + (0.5 - height // 2)) * across
        place = (local + starts.take(unit + 1)) * foreshortened
        front = (place - (column + 0.5)) * across * (1 / max(deep, 1e-3))
        norm = 1 / np.maximum(hypotenuse(side, front), 1e-3)
        return Surface(
            pixel,
            row,
            column,
            unit,
            slices.material.take(number),
            local,
            side * norm,
            front * norm,
            radius,
            slices.normal_axis.take(number),
            slices.normal_out.take(number),
            slices.open_air.take(number),
            (shown & FRACTURE) != 0,
        )

    def shells(self, codes: Codes, units: range) -> NDArray[np.bool_]:
        """Where the shells of those units show."""
        material = np.concatenate([part.material for part in self.parts])
        unit = (codes >> UNIT) - 1
        shown = (units.start <= unit) & (unit < units.stop)
        shown[shown] = material[codes[shown] & (FRACTURE - 1)] == SHELL
        return shown


def _extent(slices: Slices, sine: float, cosine: float) -> tuple[int, int, int]:
    """The first and last column of a unit's stamp, from its origin, and half the stamp's height."""
    left = math.floor(float((slices.place * cosine - slices.radius * sine).min())) - 3
    right = math.ceil(float((slices.place * cosine + slices.radius * sine).max())) + 3
    return left, right, math.ceil(float(slices.radius.max())) + 1


def _stamp(slices: Slices, sine: float, cosine: float) -> tuple[Codes, int]:
    """Draw a unit around its origin; return its slices' numbers (EMPTY outside) and its left edge.

    A slice is an ellipse. Only what the next slice leaves free of it is painted.
    """
    left, right, half = _extent(slices, sine, cosine)
    rows = np.arange(half) + 0.5  # below the axis; the picture above it is the same
    place, radius = slices.place[:, None].astype(np.float64), slices.radius[:, None].astype(np.float64)
    reach = np.sqrt(np.maximum(radius * radius - rows * rows, 0)) * sine
    middle = place * cosine - (left + 0.5)
    first = np.ceil(middle - reach).astype(np.int32)
    stop = np.floor(middle + reach).astype(np.int32) + 1
    inside = rows < radius
    stop[~inside] = first[~inside]
    beyond = right - left
    ahead = np.full((2, 1, half), beyond)  # where the next slice begins and ends in each row
    next_first = np.concatenate([np.where(inside, first, beyond)[1:], ahead[0]])
    next_stop = np.concatenate([np.where(inside, stop, beyond)[1:], ahead[1]])
    free_first = np.stack([first, np.maximum(first, next_stop)], axis=1)
    free_stop = np.stack([np.minimum(stop, next_first), stop], axis=1)
    run, column = runs(free_first.reshape(-1), free_stop.reshape(-1))
    lower = np.full((half, right - left), EMPTY, np.int32)
    lower.reshape(-1)[run % half * (right - left) + column] = run // (2 * half)
    return np.concatenate([lower[::-1], lower]), left


def _bitten(slices: Slices, bite: Bite, sine: float, cosine: float) -> tuple[Codes, int]:
    """A stamp of a unit whose skirt is cut along a jagged line, with FRACTURE where the raw body shows."""
    left, right, half = _extent(slices, sine, cosine)
    full = float(slices.radius.max())
    stamp = np.full((2 * half, right - left), EMPTY, np.int32)
    around = math.ceil(full * sine) + 2
    views = []
    for phase in range(_PHASES):
        v = (np.arange(-half, half) + 0.5)[:, None]
        front = -(np.arange(-around, around) + (0.5 - phase / _PHASES))[None, :] / max(sine, 1e-3)
        reach, turn = hypotenuse(front, v), arctan2(v, front + 0 * v)
        part = ((turn + math.pi) * (len(bite.jags) / (2 * math.pi))).astype(np.int32) - 1
        jag = bite.jags[part]
        off = np.abs(turn - bite.angle)
        off = np.minimum(off, 2 * math.pi - off)
        limit = np.where(off < bite.half * (1 + 0.15 * jag), full * (bite.depth + 0.12 * jag), 2 * full)
        views.append((np.where(reach <= limit, reach, np.inf), limit))
    for number, (a, r) in enumerate(zip(slices.place.tolist(), slices.radius.tolist(), strict=True)):
        whole, phase = divmod(round((a * cosine - left) * _PHASES), _PHASES)
        reach, limit = views[phase]
        wide, high = math.ceil(r * sine) + 1, math.ceil(r)
        rows = slice(half - high, half + high)
        target = stamp[rows, whole - wide : whole + wide]
        window = (rows, slice(around - wide, around + wide))
        inside = reach[window] <= r
        np.copyto(target, number, where=inside)
        if slices.material.take(number) == SHELL:
            np.copyto(target, number | FRACTURE, where=inside & (limit[window] < r))
    return stamp, left
