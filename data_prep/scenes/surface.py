"""A string as solids of revolution, painted slice by slice.

Every solid is a stack of thin discs ("slices"). Painting them from the far end to the near one is the
hidden-surface rule: the slice that wins a pixel gives its place on the surface, hence its normal,
shadow and colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.noise import Array
from data_prep.scenes.string_types import SHELL, Bite, Outline, StringType

EMPTY = -99  # the unit of a pixel that shows none


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
    def cut(outline: Outline, pitch: float, disc_radius: float, caps_near: bool) -> Slices:
        """`outline` in slices less than a pixel apart. Near caps turn the unit around."""
        points = [(t * pitch, r * disc_radius, m) for t, r, m in outline]
        if caps_near:
            points = [(-t, r, m) for t, r, m in reversed(points)]
        columns: list[list[float]] = []
        for (t0, r0, m0), (t1, r1, m1) in pairwise(points):
            run, rise = t1 - t0, r1 - r0
            length = math.hypot(run, rise) or 1.0
            for step in range(max(1, math.ceil(length / 1.3))):
                s = step / max(1, math.ceil(length / 1.3))
                r = r0 + rise * s
                material = m1 if caps_near else (m0 if m0 == m1 else m1)
                hollow = 1 - 0.55 * (1 - min(r / disc_radius, 1.0)) ** 1.2
                columns.append([t0 + run * s, r, -rise / length, run / length, material, hollow])
        table = np.asarray(columns, np.float32).T
        return Slices(table[0], table[1], table[2], table[3], table[4].astype(np.int8), table[5])


@dataclass(frozen=True)
class Surface:
    """What each pixel shows, all (h, w): the unit, and its slice's geometry there."""

    unit: NDArray[np.int16]
    material: NDArray[np.int8]
    local: Array  # along the axis, from the unit's own origin
    side: Array  # v / radius of the slice, -1..1
    front: Array  # the other coordinate on the slice's rim, towards the camera positive
    radius: Array
    normal_axis: Array
    normal_out: Array
    open_air: Array
    fracture: NDArray[np.bool_]


def paint_surface(
    kind: StringType,
    tables: list[Slices],
    shapes: dict[int, int],
    pitch: float,
    margin: int,
    size: tuple[int, int],
    length: float,
    bite: Bite | None,
) -> Surface:
    """Draw the units of a string from back to front and look up each pixel's geometry.

    Args:
        kind: The type of string.
        tables: The slices of each shape of unit: whole, bare, yoke.
        shapes: The shape of each unit, an index into `tables`.
        pitch: The distance of two units along the axis, in pixels.
        margin: Free pixels around the string.
        size: The (height, width) of the picture.
        length: The string's length as it appears, in pixels.
        bite: Where discs are broken, if any are.
    """
    sine, cosine = math.sin(kind.tilt), math.cos(kind.tilt)
    height, width = size
    fitting = (length / cosine - kind.discs * pitch) / 2

    def origin(unit: int) -> float:
        """Axial place of a unit's first point: its cap's top, or, turned around, minus that."""
        start = fitting + unit * pitch if unit >= 0 else 0.0
        return length / cosine - start if kind.caps_near else start

    places = {unit: margin + round(origin(unit) * cosine) for unit in shapes}
    index, shape_of, unit_of, fracture = _draw_units(kind, tables, shapes, places, size, bite)

    offsets = np.cumsum([0, *(len(t.place) for t in tables[:-1])])
    flat = index + offsets[shape_of]

    def look_up(name: str) -> Array:
        return np.asarray(np.concatenate([getattr(t, name) for t in tables])[flat])

    starts = np.zeros(kind.discs + 2, np.float32)
    for unit in shapes:
        starts[unit] = margin / cosine + round(origin(unit) * cosine) / cosine
    radius = look_up("radius")
    local = look_up("place")
    place = local + starts[np.where(unit_of == EMPTY, 0, unit_of)]
    v = np.arange(height, dtype=np.float32)[:, None] + 0.5 - height // 2
    u = np.arange(width, dtype=np.float32)[None, :] + 0.5
    side = v / radius
    front = -(u - place * cosine) / (radius * max(sine, 1e-3))
    norm = np.maximum(np.hypot(side, front), 1e-3)
    return Surface(
        unit_of,
        np.where(unit_of == EMPTY, np.int8(-1), look_up("material")).astype(np.int8),
        local,
        np.asarray(side / norm, np.float32),
        np.asarray(front / norm, np.float32),
        radius,
        look_up("normal_axis"),
        look_up("normal_out"),
        look_up("open_air"),
        fracture,
    )


def _draw_units(
    kind: StringType,
    tables: list[Slices],
    shapes: dict[int, int],
    places: dict[int, int],
    size: tuple[int, int],
    bite: Bite | None,
) -> tuple[NDArray[np.int16], NDArray[np.int8], NDArray[np.int16], NDArray[np.bool_]]:
    """Stamp the units over each other, those behind first.

    Args:
        kind: The type of string.
        tables: The slices of each shape of unit.
        shapes: The shape of each unit.
        places: The column of each unit's origin.
        size: The (height, width) of the picture.
        bite: Where discs are broken, if any are.

    Returns:
        For each pixel the number of the slice, its shape, its unit, and whether it shows a raw fracture.
    """
    sine, cosine = math.sin(kind.tilt), math.cos(kind.tilt)
    height, width = size
    index = np.zeros(size, np.int16)
    shape_of = np.full(size, -1, np.int8)
    unit_of = np.full(size, EMPTY, np.int16)
    fracture = np.zeros(size, np.bool_)
    stamps: dict[int, tuple[NDArray[np.int16], int, int]] = {}
    for unit in sorted(shapes, reverse=kind.caps_near):
        shape = shapes[unit]
        if bite is not None and unit in bite.units:
            numbers, left, half, broken = _bitten(tables[shape], bite, sine, cosine)
        else:
            if shape not in stamps:  # every unit of a shape looks the same
                stamps[shape] = _stamp(tables[shape], sine, cosine)
            numbers, left, half = stamps[shape]
            broken = None
        x, y = places[unit] + left, height // 2 - half
        rows = slice(max(y, 0), min(y + numbers.shape[0], height))
        columns = slice(max(x, 0), min(x + numbers.shape[1], width))
        cut = (slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x))
        visible = numbers[cut] >= 0
        index[rows, columns][visible] = numbers[cut][visible]
        shape_of[rows, columns][visible] = shape
        unit_of[rows, columns][visible] = unit
        fracture[rows, columns][visible] = broken[cut][visible] if broken is not None else False
    return index, shape_of, unit_of, fracture


def _stamp(slices: Slices, sine: float, cosine: float) -> tuple[NDArray[np.int16], int, int]:
    """Draw a unit around its origin; return its slice numbers (-1 outside), left edge and half its height."""
    left = math.floor(float((slices.place * cosine - slices.radius * sine).min())) - 1
    right = math.ceil(float((slices.place * cosine + slices.radius * sine).max())) + 1
    half = math.ceil(float(slices.radius.max())) + 1
    numbers = np.full((2 * half, right - left), -1, np.int16)
    v = np.arange(-half, half, dtype=np.float32)[:, None] + np.float32(0.5)
    u = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5)
    for number, (a, r) in enumerate(zip(slices.place, slices.radius, strict=True)):
        top, low = max(0, math.floor(half - r)), min(2 * half, math.ceil(half + r))
        first = max(0, math.floor(a * cosine - r * sine - left))
        last = min(right - left, math.ceil(a * cosine + r * sine - left) + 1)
        vv, uu = v[top:low], u[:, first:last]
        reach = (r * r - vv * vv).clip(0)
        inside = (uu - a * cosine) ** 2 <= reach * np.float32(sine * sine)
        numbers[top:low, first:last][inside] = number
    return numbers, left, half


def _bitten(
    slices: Slices, bite: Bite, sine: float, cosine: float
) -> tuple[NDArray[np.int16], int, int, NDArray[np.bool_]]:
    """A stamp of a unit whose skirt is cut along a jagged line, and where the raw fracture shows."""
    left = math.floor(float((slices.place * cosine - slices.radius * sine).min())) - 1
    right = math.ceil(float((slices.place * cosine + slices.radius * sine).max())) + 1
    full = float(slices.radius.max())
    half = math.ceil(full) + 1
    numbers = np.full((2 * half, right - left), -1, np.int16)
    broken = np.zeros(numbers.shape, np.bool_)
    v = np.arange(-half, half, dtype=np.float32)[:, None] + 0.5
    u = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
    for number, (a, r) in enumerate(zip(slices.place, slices.radius, strict=True)):
        front = -(u - a * cosine) / max(sine, 1e-3)
        reach = np.hypot(front, v)
        turn = np.arctan2(v, front) - bite.angle
        turn = np.abs((turn + math.pi) % (2 * math.pi) - math.pi)
        jag = bite.jags[((np.arctan2(v, front) + math.pi) / (2 * math.pi) * len(bite.jags)).astype(int) - 1]
        limit = np.where(turn < bite.half * (1 + 0.15 * jag), full * (bite.depth + 0.12 * jag), 2 * full)
        inside = (reach <= r) & (reach <= limit)
        numbers[inside] = number
        broken[inside] = (limit[inside] < r) if slices.material[number] == SHELL else False
    return numbers, left, half, broken
