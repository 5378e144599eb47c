"""Insulator strings as solids of revolution, drawn slice by slice, with their defects.

A string is drawn lying flat: its axis runs along +u (to the right), towards the camera by the angle
`tilt`. Every solid is a stack of thin discs ("slices"). Painting them from the far end to the near one
is the hidden-surface rule: the slice that wins a pixel gives its place on the surface, hence its
normal, shadow and colour. The picture's perspective is applied afterwards to the flat result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.noise import Array, smoothstep
from data_prep.scenes.noise import field as noise_field

METAL, SHELL, STUB = 0, 1, 2

# Outlines from the cap's top (t = 0) to the next cap (t = 1): (t in pitches, radius / disc radius, material).
Outline = list[tuple[float, float, int]]
CAP_AND_PIN: Outline = [
    (0.00, 0.10, METAL),
    (0.00, 0.22, METAL),
    (0.06, 0.27, METAL),
    (0.26, 0.29, METAL),
    (0.34, 0.36, METAL),
    (0.36, 0.37, SHELL),
    (0.40, 0.58, SHELL),
    (0.46, 0.82, SHELL),
    (0.53, 0.96, SHELL),
    (0.58, 1.00, SHELL),
    (0.63, 1.00, SHELL),
    (0.65, 0.94, SHELL),
    (0.61, 0.84, SHELL),
    (0.66, 0.76, SHELL),
    (0.62, 0.66, SHELL),
    (0.66, 0.57, SHELL),
    (0.62, 0.47, SHELL),
    (0.66, 0.38, SHELL),
    (0.64, 0.22, SHELL),
    (0.66, 0.14, METAL),
    (1.00, 0.14, METAL),
]
BARE: Outline = [*CAP_AND_PIN[:5], (0.36, 0.20, METAL), (0.42, 0.14, METAL), (1.00, 0.14, METAL)]
COMPOSITE: Outline = [
    (0.00, 0.30, SHELL),
    (0.38, 0.30, SHELL),
    (0.44, 0.40, SHELL),
    (0.54, 0.97, SHELL),
    (0.58, 1.00, SHELL),
    (0.66, 1.00, SHELL),
    (0.68, 0.95, SHELL),
    (0.74, 0.34, SHELL),
    (0.76, 0.30, SHELL),
    (1.00, 0.30, SHELL),
]
COMPOSITE_BARE: Outline = [(0.00, 0.21, STUB), (1.00, 0.21, STUB)]

SHELLS: dict[str, list[tuple[float, float, float]]] = {
    "brown porcelain": [(0.33, 0.17, 0.12), (0.40, 0.22, 0.15), (0.28, 0.15, 0.12), (0.45, 0.24, 0.19)],
    "pale porcelain": [(0.86, 0.86, 0.83), (0.74, 0.76, 0.77), (0.66, 0.69, 0.71), (0.82, 0.80, 0.74)],
    "glass": [(0.34, 0.62, 0.55), (0.45, 0.66, 0.68), (0.30, 0.56, 0.66), (0.55, 0.72, 0.66)],
    "composite": [(0.56, 0.58, 0.60), (0.66, 0.67, 0.68), (0.48, 0.50, 0.54)],
}


@dataclass(frozen=True)
class StringType:
    """What a string is made of and how it faces the camera."""

    material: str  # a key of SHELLS
    colour: tuple[float, float, float]
    discs: int
    ratio: float  # disc diameter / pitch
    tilt: float  # radians between the axis and the picture plane
    caps_near: bool  # the caps' end is the near one: tops of discs show, otherwise undersides
    rust: float
    gloss: float

    @property
    def is_composite(self) -> bool:
        return self.material == "composite"

    @property
    def defect_run(self) -> int:
        """How many neighbouring sheds make a defect as large as one disc of a cap-and-pin string."""
        return max(1, round(self.discs / 5.5)) if self.is_composite else 1

    @staticmethod
    def draw(rng: np.random.Generator) -> StringType:
        material = str(rng.choice(list(SHELLS), p=[0.32, 0.24, 0.26, 0.18]))
        colours = SHELLS[material]
        base = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.9, 1.1)
        composite = material == "composite"
        return StringType(
            material=material,
            colour=(float(base[0]), float(base[1]), float(base[2])),
            discs=int(rng.integers(11, 16)) if composite else int(rng.integers(5, 9)),
            ratio=float(rng.uniform(2.3, 2.9)) if composite else float(rng.uniform(1.5, 1.95)),
            tilt=float(rng.uniform(0.12, 0.36) if composite else rng.uniform(0.18, 0.48)),
            caps_near=bool(rng.random() < 0.5),
            rust=float(rng.uniform(0.3, 1.0) if rng.random() < 0.35 else rng.uniform(0, 0.1)),
            gloss=float(0.12 if composite else rng.uniform(0.5, 1.0)),
        )


@dataclass(frozen=True)
class Bite:
    """A chunk off the discs `units`: within `half` radians of `angle` the skirt ends at `depth` radii."""

    units: range
    angle: float
    half: float
    depth: float
    jags: Array


@dataclass(frozen=True)
class StringDefects:
    """Drawn defects of one string. Units are counted from the arm's end."""

    missing: range = range(0)
    bite: Bite | None = None
    scorched: range = range(0)
    polluted: range = range(0)
    seed: int = 0  # of the stains' noise


@dataclass
class DrawnString:
    """A string lying flat: colour (h, w, 3) and alpha (h, w) in 0..1, and the masks of its defects."""

    colour: Array
    alpha: Array
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slices:
    """A unit's slices from the far end to the near one, all arrays (slices,)."""

    place: Array  # along the axis, pixels before foreshortening
    radius: Array
    normal_axis: Array
    normal_out: Array
    material: NDArray[np.int8]
    open_air: Array  # 1 outside, less in the hollows between discs

    @staticmethod
    def cut(outline: Outline, pitch: float, disc_radius: float, caps_near: bool) -> _Slices:
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
        return _Slices(table[0], table[1], table[2], table[3], table[4].astype(np.int8), table[5])


def paint_string(
    kind: StringType,
    length: float,
    sun: tuple[float, float, float],
    sunlight: float,
    rng: np.random.Generator,
    defects: StringDefects,
) -> DrawnString:
    """Draw a string `length` pixels long as it appears (foreshortened), fittings at both ends included.

    `sun` is the unit vector towards the sun in the flat frame (u right, v down, w to the camera). The
    arm's end is on the left, or on the right if `caps_near`. `rng` draws only what all variants share, so
    two calls that differ in `defects` differ where the defects are.
    """
    cosine = math.cos(kind.tilt)
    fitting = 0.55 if not kind.is_composite else 1.2  # of a pitch, at each end
    shown_pitch = length / (kind.discs + 2 * fitting)
    pitch = shown_pitch / cosine
    radius = kind.ratio * shown_pitch / 2
    margin = math.ceil(radius * 1.15) + 2
    height, width = 2 * margin, math.ceil(length) + 2 * margin

    whole = COMPOSITE if kind.is_composite else CAP_AND_PIN
    bare = COMPOSITE_BARE if kind.is_composite else BARE
    yoke: Outline = [(0, 0.2, METAL), (0.1, 0.24, METAL), (fitting * 0.6, 0.22, METAL), (fitting, 0.1, METAL)]
    tables = [_Slices.cut(o, pitch, radius, kind.caps_near) for o in (whole, bare, yoke)]

    shapes = {**dict.fromkeys(range(kind.discs), 0), -1: 2, kind.discs: 2}
    clean = _paint(kind, tables, shapes, pitch, margin, (height, width), length, None)
    drawn = clean
    if defects.missing or defects.bite:
        shapes |= dict.fromkeys(defects.missing, 1)
        drawn = _paint(kind, tables, shapes, pitch, margin, (height, width), length, defects.bite)
    colour, coats = _shade(kind, drawn, sun, sunlight, pitch, radius, rng, defects)

    alpha = (drawn.unit > _EMPTY).astype(np.float32)
    if kind.material == "glass":
        thin = (drawn.material == SHELL) & ~coats["any"]
        alpha[thin] = 0.86
    result = DrawnString(colour, alpha)

    def footprint(run: range) -> NDArray[np.bool_]:
        """Where those discs show, or would show were they whole."""
        return np.asarray((clean.material == SHELL) & np.isin(clean.unit, list(run)))

    if defects.missing:
        result.masks["missing disc"] = footprint(defects.missing)
    if defects.bite:
        result.masks["broken disc"] = footprint(defects.bite.units)
    for name, run in (("flashover", defects.scorched), ("pollution", defects.polluted)):
        if run:
            result.masks[name] = coats[name]
    return result


_EMPTY = -99


@dataclass(frozen=True)
class _Surface:
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


def _paint(
    kind: StringType,
    tables: list[_Slices],
    shapes: dict[int, int],
    pitch: float,
    margin: int,
    size: tuple[int, int],
    length: float,
    bite: Bite | None,
) -> _Surface:
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
    place = local + starts[np.where(unit_of == _EMPTY, 0, unit_of)]
    v = np.arange(height, dtype=np.float32)[:, None] + 0.5 - height // 2
    u = np.arange(width, dtype=np.float32)[None, :] + 0.5
    side = v / radius
    front = -(u - place * cosine) / (radius * max(sine, 1e-3))
    norm = np.maximum(np.hypot(side, front), 1e-3)
    return _Surface(
        unit_of,
        np.where(unit_of == _EMPTY, np.int8(-1), look_up("material")).astype(np.int8),
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
    tables: list[_Slices],
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
    unit_of = np.full(size, _EMPTY, np.int16)
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


def _stamp(slices: _Slices, sine: float, cosine: float) -> tuple[NDArray[np.int16], int, int]:
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
    slices: _Slices, bite: Bite, sine: float, cosine: float
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


def _shade(
    kind: StringType,
    surface: _Surface,
    sun: tuple[float, float, float],
    sunlight: float,
    pitch: float,
    disc_radius: float,
    rng: np.random.Generator,
    defects: StringDefects,
) -> tuple[Array, dict[str, NDArray[np.bool_]]]:
    """Colour a surface by sun, sky, the shadow of the next disc, gloss and stains.

    Args:
        kind: The type of string.
        surface: What each pixel shows.
        sun: The unit vector towards the sun in the flat frame.
        sunlight: How strong the sun is, 0 to 1.
        pitch: The distance of two units along the axis, in pixels.
        disc_radius: Of the widest slice, in pixels.
        rng: The source of chance; it is drawn from alike whatever the defects.
        defects: Which discs are stained.

    Returns:
        The colours (h, w, 3) in 0..1, and the masks of the stains.
    """
    sine, cosine = math.sin(kind.tilt), math.cos(kind.tilt)
    out = surface.normal_out
    normal_u = surface.normal_axis * cosine - out * surface.front * sine
    normal_v = out * surface.side
    normal_w = surface.normal_axis * sine + out * surface.front * cosine
    facing = normal_u * sun[0] + normal_v * sun[1] + normal_w * sun[2]
    lit = _sunlit(kind, surface, sun, pitch, disc_radius)
    albedo, gloss = _material(kind, surface, disc_radius, rng)
    coats = _stains(kind, surface, disc_radius, albedo, gloss, defects)

    ambient = (0.40 + 0.14 * (-normal_v) + 0.10 * normal_w) * surface.open_air
    # Thin glass also passes light from behind.
    wrap = 0.35 if kind.material == "glass" else 0.08
    diffuse = np.clip((facing + wrap) / (1 + wrap), 0, 1) * (0.15 + 0.85 * lit)
    light = (1.15 - 0.45 * sunlight) * ambient + 0.95 * sunlight * diffuse
    colour = albedo * light[..., None]
    half = np.asarray((sun[0], sun[1], sun[2] + 1.0))
    half /= np.linalg.norm(half)
    shine = np.clip(normal_u * half[0] + normal_v * half[1] + normal_w * half[2], 0, 1) ** 45
    mirror = np.clip(-(2 * normal_w * normal_v), 0, 1) * (0.05 + 0.35 * (1 - np.abs(normal_w)) ** 3)
    colour += (gloss * (0.75 * sunlight * shine * lit + mirror * surface.open_air))[..., None]
    return np.asarray(np.clip(colour, 0, 1), np.float32), coats


def _sunlit(
    kind: StringType, surface: _Surface, sun: tuple[float, float, float], pitch: float, disc_radius: float
) -> Array:
    """Return how much sun reaches each pixel, 0 to 1.

    The ray to the sun is followed to the planes of this disc's rim and of the next one's.
    """
    sine, cosine = math.sin(kind.tilt), math.cos(kind.tilt)
    sun_axis = sun[0] * cosine + sun[2] * sine
    sun_front = -sun[0] * sine + sun[2] * cosine
    lit = np.ones(surface.unit.shape, np.float32)
    if abs(sun_axis) <= 0.05:
        return lit
    step = 1 if sun_axis > 0 else -1
    rim = -0.60 * pitch if kind.caps_near else 0.60 * pitch
    for ahead in (0, 1):
        caster = surface.unit + (-ahead * step if kind.caps_near else ahead * step)
        distance = (rim + ahead * step * pitch - surface.local) / np.float32(sun_axis)
        hits = (caster >= 0) & (caster < kind.discs) & (distance > 0.08 * pitch)
        reach = np.hypot(
            surface.front * surface.radius + distance * sun_front,
            surface.side * surface.radius + distance * sun[1],
        )
        cover = 1 - smoothstep(0.92, 1.04, np.asarray(reach / disc_radius, np.float32))
        lit = np.minimum(lit, 1 - cover * hits)
    return lit


def _material(
    kind: StringType, surface: _Surface, disc_radius: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the colour (h, w, 3) and gloss (h, w) of shells, steel, rust and raw fractures, unlit."""
    height, width = surface.unit.shape
    albedo = np.empty((height, width, 3), np.float32)
    albedo[:] = np.asarray(kind.colour, np.float32)
    metal = (surface.material == METAL) | (surface.material == STUB)
    grain = noise_field(rng, height, width, disc_radius * 0.8, 4)
    steel = np.asarray((0.50, 0.51, 0.52), np.float32) * np.float32(rng.uniform(0.75, 1.1))
    rust = smoothstep(0.75 - 0.6 * kind.rust, 1.0 - 0.4 * kind.rust, grain) * np.float32(
        min(1.0, 2 * kind.rust)
    )
    metal_colour = steel + (np.asarray((0.40, 0.24, 0.14), np.float32) - steel) * rust[..., None]
    albedo = np.where(metal[..., None], metal_colour, albedo)
    albedo = np.where(
        (surface.material == STUB)[..., None], np.asarray((0.80, 0.76, 0.62), np.float32), albedo
    )
    unit_tone = rng.uniform(0.94, 1.06, kind.discs + 2).astype(np.float32)
    albedo = (
        albedo
        * (0.94 + 0.12 * grain)[..., None]
        * unit_tone[np.clip(surface.unit, -1, kind.discs)][..., None]
    )
    # Brighter than white paint: a fresh fracture scatters light from inside the body.
    raws = {"glass": (1.0, 1.1, 1.1), "composite": (1.05, 0.95, 0.70)}
    raw = raws.get(kind.material, (1.25, 1.18, 1.06))
    albedo = np.where(surface.fracture[..., None], np.asarray(raw, np.float32), albedo)
    gloss = np.where(surface.fracture, 0.05, np.where(metal, 0.25, kind.gloss)).astype(np.float32)
    return albedo, gloss


def _stains(
    kind: StringType,
    surface: _Surface,
    disc_radius: float,
    albedo: Array,
    gloss: Array,
    defects: StringDefects,
) -> dict[str, NDArray[np.bool_]]:
    """Lay soot and dirt on `albedo` and `gloss` in place; where each of them lies, and `any` of them."""
    height, width = surface.unit.shape
    masks = {"any": np.zeros((height, width), np.bool_)}
    rng = np.random.default_rng(defects.seed)
    v = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / np.float32(disc_radius)
    shell = surface.material == SHELL

    def lay(colour: tuple[float, float, float], share: Array, dull: float) -> None:
        albedo[:] += (np.asarray(colour, np.float32) - albedo) * share[..., None]
        gloss[:] += (dull - gloss) * share

    if defects.polluted:
        run = np.isin(surface.unit, list(defects.polluted)) & shell
        blotches = noise_field(rng, height, width, disc_radius * 0.9, 4)
        coat = np.asarray(run * np.clip(0.70 + 2.2 * (blotches - 0.42), 0.12, 0.96), np.float32)
        # Dust is pale on dark shells; grime is darker on pale ones. Neither is a colour of clean shells.
        coats = {"brown porcelain": (0.66, 0.59, 0.42), "glass": (0.52, 0.42, 0.25)}
        lay(coats.get(kind.material, (0.44, 0.34, 0.17)), coat, 0.0)
        spots = noise_field(rng, height, width, disc_radius * 0.55, 3)
        lay((0.17, 0.13, 0.08), np.asarray(run * smoothstep(0.6, 0.72, spots) * 0.85, np.float32), 0.0)
        masks["pollution"] = run
        masks["any"] |= run
    if defects.scorched:
        run = np.isin(surface.unit, list(defects.scorched))
        middle = float(rng.uniform(-0.45, 0.45))
        ragged = noise_field(rng, height, width, disc_radius * 0.5, 4)
        heat = np.asarray(1.15 - np.abs(v - middle) / 0.95 + 1.0 * (ragged - 0.5), np.float32)
        lay((0.26, 0.15, 0.08), np.asarray(run * smoothstep(-0.1, 0.3, heat) * 0.85, np.float32), 0.0)
        lay((0.035, 0.03, 0.03), np.asarray(run * smoothstep(0.15, 0.5, heat) * 0.97, np.float32), 0.0)
        u = np.arange(width, dtype=np.float32)[None, :] / np.float32(disc_radius)
        # Where the arc stood, on every burnt disc (or as many sheds), the glaze is burnt white.
        for unit in defects.scorched[:: kind.defect_run]:
            seen = np.flatnonzero((shell & (surface.unit == unit)).any(axis=0))
            if not len(seen):
                continue
            at = float(np.quantile(seen, 0.65 if kind.caps_near else 0.35)) / disc_radius
            off = middle + float(rng.uniform(-0.12, 0.12))
            deep = 0.20 if not kind.is_composite else 0.32
            distance = np.hypot((u - at) / deep, (v - off) / 0.30) + 0.6 * (ragged - 0.5)
            near = np.isin(surface.unit, range(unit, unit + kind.defect_run))
            lay((1.5, 1.45, 1.35), np.asarray(near * (1 - smoothstep(0.8, 1.0, distance)), np.float32), 0.0)
        masks["flashover"] = run & (heat > 0.1)
        masks["any"] |= masks["flashover"]
    return masks
