"""The colours of a painted string: sun and shadow, shells, steel and rust, soot and dirt."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.noise import Array, smoothstep
from data_prep.scenes.noise import field as noise_field
from data_prep.scenes.string_types import METAL, SHELL, STUB, StringDefects, StringType
from data_prep.scenes.surface import Surface


def shade(
    kind: StringType,
    surface: Surface,
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
    kind: StringType, surface: Surface, sun: tuple[float, float, float], pitch: float, disc_radius: float
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
    kind: StringType, surface: Surface, disc_radius: float, rng: np.random.Generator
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
    surface: Surface,
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
