"""The colours of a painted string: sun and shadow, shells, steel and rust, soot and dirt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import cosine as exact_cosine
from data_prep.scenes.exact import hypotenuse
from data_prep.scenes.exact import sine as exact_sine
from data_prep.scenes.noise import Array, field, mix, smoothstep
from data_prep.scenes.string_types import METAL, SHELL, STUB, StringDefects, StringType
from data_prep.scenes.surface import Surface


def shade(
    kind: StringType,
    surface: Surface,
    size: tuple[int, int],
    sun: tuple[float, float, float],
    sunlight: float,
    pitch: float,
    disc_radius: float,
    chance: Chance,
    defects: StringDefects,
) -> tuple[Array, dict[str, NDArray[np.bool_]]]:
    """Colour a surface by sun, sky, the shadow of the next disc, gloss and stains.

    Args:
        kind: The type of string.
        surface: What each pixel shows.
        size: The (height, width) of the flat picture.
        sun: The unit vector towards the sun in the flat frame.
        sunlight: How strong the sun is, 0 to 1.
        pitch: The distance of two units along the axis, in pixels.
        disc_radius: Of the widest slice, in pixels.
        chance: It is drawn from alike whatever the defects.
        defects: Which discs are stained.

    Returns:
        The colours (3, pixels) in 0..1, and the masks (pixels,) of the stains.
    """
    sine, cosine = exact_sine(kind.tilt), exact_cosine(kind.tilt)
    out = surface.normal_out * surface.front
    normal_u = surface.normal_axis * cosine - out * sine
    normal_v = surface.normal_out * surface.side
    normal_w = surface.normal_axis * sine + out * cosine
    facing = normal_u * sun[0] + normal_v * sun[1] + normal_w * sun[2]
    lit = _sunlit(kind, surface, sun, pitch, disc_radius)
    albedo, gloss = _material(kind, surface, size, disc_radius, chance)
    coats = _stains(kind, surface, size, disc_radius, albedo, gloss, defects)

    ambient = (0.40 - 0.14 * normal_v + 0.10 * normal_w) * surface.open_air
    # Thin glass also passes light from behind.
    wrap = 0.35 if kind.material == "glass" else 0.08
    diffuse = np.clip((facing + wrap) * (1 / (1 + wrap)), 0, 1) * (0.15 + 0.85 * lit)
    light = (1.15 - 0.45 * sunlight) * ambient + 0.95 * sunlight * diffuse
    long = float(np.sqrt(2.0 + 2.0 * sun[2]))  # of the sun's direction and the camera's, added up
    # The floor keeps powers out of the range of denormal numbers, which are slow.
    mirrored = (facing + normal_w) * (1 / long)
    shine = _power_45(np.clip(mirrored, 0.2, 1))
    grazing = 1 - np.abs(normal_w)
    mirror = np.clip(-2 * normal_w * normal_v, 0, 1) * (0.05 + 0.35 * (grazing * grazing * grazing))
    colour = albedo * light + gloss * (0.75 * sunlight * shine * lit + mirror * surface.open_air)
    return np.clip(colour, 0, 1), coats


def _power_45(x: Array) -> Array:
    x4 = np.square(np.square(x))
    x8 = np.square(x4)
    return np.square(np.square(x8)) * x8 * x4 * x


def _sunlit(
    kind: StringType, surface: Surface, sun: tuple[float, float, float], pitch: float, disc_radius: float
) -> Array:
    """Return how much sun reaches each pixel, 0 to 1.

    The ray to the sun is followed to the planes of this disc's rim and of the next one's.
    """
    sine, cosine = exact_sine(kind.tilt), exact_cosine(kind.tilt)
    sun_axis = sun[0] * cosine + sun[2] * sine
    sun_front = -sun[0] * sine + sun[2] * cosine
    lit = np.ones(surface.unit.shape, np.float32)
    if abs(sun_axis) <= 0.05:
        return lit
    step = 1 if sun_axis > 0 else -1
    rim = -0.60 * pitch if kind.caps_near else 0.60 * pitch
    front, side = surface.front * surface.radius, surface.side * surface.radius
    for ahead in (0, 1):
        caster = surface.unit + (-ahead * step if kind.caps_near else ahead * step)
        distance = (rim + ahead * step * pitch - surface.local) * (1 / sun_axis)
        hits = (caster >= 0) & (caster < kind.discs) & (distance > 0.08 * pitch)
        reach = hypotenuse(front + distance * sun_front, side + distance * sun[1])
        cover = 1 - smoothstep(0.92, 1.04, reach * (1 / disc_radius))
        lit = np.minimum(lit, 1 - cover * hits)
    return lit


def _noise(chance: Chance, surface: Surface, size: tuple[int, int], cell: float, octaves: int = 4) -> Array:
    """A field over the flat picture, at the pixels of the surface, 0..1."""
    values = field(chance, *size, cell, octaves).reshape(-1).take(surface.pixel)
    return values * np.float32(1 / 255)


def _column(colour: tuple[float, float, float]) -> Array:
    return np.asarray(colour, np.float32)[:, None]


def _material(
    kind: StringType, surface: Surface, size: tuple[int, int], disc_radius: float, chance: Chance
) -> tuple[Array, Array]:
    """Return the colour (3, pixels) and gloss of shells, steel, rust and raw fractures, unlit."""
    grain = _noise(chance, surface, size, disc_radius * 0.8)
    steel = _column((0.50, 0.51, 0.52)) * chance.uniform(0.75, 1.1)
    unit_tone = chance.uniforms(0.94, 1.06, kind.discs + 2).astype(np.float32)
    is_metal = surface.material == METAL
    metal = np.flatnonzero(is_metal)
    rust = smoothstep(0.75 - 0.6 * kind.rust, 1.0 - 0.4 * kind.rust, grain[metal]) * min(1.0, 2 * kind.rust)
    albedo = np.repeat(_column(kind.colour), len(grain), axis=1)
    albedo[:, metal] = mix(steel, (0.40, 0.24, 0.14), rust)
    albedo[:, surface.material == STUB] = _column((0.80, 0.76, 0.62))
    albedo *= (0.94 + 0.12 * grain) * unit_tone.take(surface.unit + 1)
    gloss = np.where(surface.material == SHELL, np.float32(kind.gloss), np.float32(0.25))
    if surface.fracture.any():
        # Brighter than white paint: a fresh fracture scatters light from inside the body.
        raws = {"glass": (1.0, 1.1, 1.1), "composite": (1.05, 0.95, 0.70)}
        albedo[:, surface.fracture] = _column(raws.get(kind.material, (1.25, 1.18, 1.06)))
        gloss[surface.fracture] = 0.05
    return albedo, gloss


def _stains(
    kind: StringType,
    surface: Surface,
    size: tuple[int, int],
    disc_radius: float,
    albedo: Array,
    gloss: Array,
    defects: StringDefects,
) -> dict[str, NDArray[np.bool_]]:
    """Lay soot and dirt on `albedo` and `gloss` in place; where each of them lies, and `any` of them."""
    masks = {"any": np.zeros(len(gloss), np.bool_)}
    chance = Chance(defects.seed)
    shell = surface.material == SHELL

    def among(units: range) -> NDArray[np.bool_]:
        return (units.start <= surface.unit) & (surface.unit < units.stop)

    def lay(colour: tuple[float, float, float], share: Array) -> None:
        albedo[:] = mix(albedo, colour, share)
        gloss[:] -= gloss * share

    if defects.polluted:
        run = among(defects.polluted) & shell
        blotches = _noise(chance, surface, size, disc_radius * 0.9)
        # Dust is pale on dark shells; grime is darker on pale ones. Neither is a colour of clean shells.
        coats = {"brown porcelain": (0.66, 0.59, 0.42), "glass": (0.52, 0.42, 0.25)}
        coat = run * np.clip(0.70 + 2.2 * (blotches - 0.42), 0.12, 0.96)
        lay(coats.get(kind.material, (0.44, 0.34, 0.17)), coat)
        spots = _noise(chance, surface, size, disc_radius * 0.55, 3)
        lay((0.17, 0.13, 0.08), run * smoothstep(0.6, 0.72, spots) * 0.85)
        masks["pollution"] = run
        masks["any"] |= run
    if defects.scorched:
        run = among(defects.scorched)
        v = (surface.row - size[0] / 2) * (1 / disc_radius)
        u = surface.column * (1 / disc_radius)
        middle = chance.uniform(-0.45, 0.45)
        ragged = _noise(chance, surface, size, disc_radius * 0.5) - 0.5
        heat = 1.15 - np.abs(v - middle) * (1 / 0.95) + ragged
        lay((0.26, 0.15, 0.08), run * smoothstep(-0.1, 0.3, heat) * 0.85)
        lay((0.035, 0.03, 0.03), run * smoothstep(0.15, 0.5, heat) * 0.97)
        # Where the arc stood, on every burnt disc (or as many sheds), the glaze is burnt white.
        for unit in defects.scorched[:: kind.defect_run]:
            seen = np.flatnonzero(np.bincount(surface.column[shell & (surface.unit == unit)].astype(np.intp)))
            if not len(seen):
                continue
            at = int(seen[int((len(seen) - 1) * (0.65 if kind.caps_near else 0.35))]) / disc_radius
            off = middle + chance.uniform(-0.12, 0.12)
            deep = 0.20 if not kind.is_composite else 0.32
            distance = hypotenuse((u - at) * (1 / deep), (v - off) * (1 / 0.30)) + 0.6 * ragged
            near = among(range(unit, unit + kind.defect_run))
            lay((1.5, 1.45, 1.35), near * (1 - smoothstep(0.8, 1.0, distance)))
        masks["flashover"] = run & (heat > 0.1)
        masks["any"] |= masks["flashover"]
    return masks
