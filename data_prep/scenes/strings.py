"""Insulator strings with their defects, drawn flat.

A string is drawn lying flat: its axis runs along +u (to the right), towards the camera by the angle
`tilt`. The picture's perspective is applied afterwards to the flat result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import cosine
from data_prep.scenes.raster import Box, Packed, pack
from data_prep.scenes.shading import shade
from data_prep.scenes.string_types import (
    BARE,
    CAP_AND_PIN,
    COMPOSITE,
    COMPOSITE_BARE,
    METAL,
    SHELL,
    Outline,
    StringDefects,
    StringType,
)
from data_prep.scenes.surface import Slices, Stack


@dataclass
class DrawnString:
    """A string lying flat: packed pixels (h, w), their colours premultiplied, and its defects' masks."""

    pixels: Packed
    box: Box  # of what is drawn, and a pixel around it
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def paint_string(
    kind: StringType,
    length: float,
    sun: tuple[float, float, float],
    sunlight: float,
    chance: Chance,
    defects: StringDefects,
) -> DrawnString:
    """Draw a string `length` pixels long as it appears (foreshortened), fittings at both ends included.

    `sun` is the unit vector towards the sun in the flat frame (u right, v down, w to the camera). The
    arm's end is on the left, or on the right if `caps_near`. `chance` draws only what all variants share,
    so two calls that differ in `defects` differ where the defects are.
    """
    fitting = 0.55 if not kind.is_composite else 1.2  # of a pitch, at each end
    shown_pitch = length / (kind.discs + 2 * fitting)
    pitch = shown_pitch / cosine(kind.tilt)
    radius = kind.ratio * shown_pitch / 2
    margin = math.ceil(radius * 1.15) + 2
    size = 2 * margin, math.ceil(length) + 2 * margin

    whole = COMPOSITE if kind.is_composite else CAP_AND_PIN
    bare = COMPOSITE_BARE if kind.is_composite else BARE
    yoke: Outline = [(0, 0.2, METAL), (0.1, 0.24, METAL), (fitting * 0.6, 0.22, METAL), (fitting, 0.1, METAL)]
    parts = Slices.cut([whole, bare, yoke], pitch, radius, kind.caps_near)
    stack = Stack(kind, parts, pitch, margin, size, length)

    shapes = {**dict.fromkeys(range(kind.discs), 0), -1: 2, kind.discs: 2}
    clean = stack.draw(shapes, None)
    codes = clean
    if defects.missing or defects.bite:
        codes = stack.draw(shapes | dict.fromkeys(defects.missing, 1), defects.bite)
    surface = stack.surface(codes)
    colour, coats = shade(kind, surface, size, sun, sunlight, pitch, radius, chance, defects)

    alpha = np.ones(len(surface.pixel), np.float32)
    if kind.material == "glass":
        alpha[(surface.material == SHELL) & ~coats["any"]] = 0.86
    red, green, blue = colour * alpha * 255
    pixels = np.zeros(size, np.uint32)
    pixels.reshape(-1)[surface.pixel] = pack(red, green, blue, alpha * 255)
    rows, columns = surface.row, surface.column
    box = int(columns.min()) - 1, int(rows[0]) - 1, int(columns.max()) + 2, int(rows[-1]) + 2
    result = DrawnString(pixels, box)

    # Where broken and missing discs show, or would show were they whole.
    if defects.missing:
        result.masks["missing disc"] = stack.shells(clean, defects.missing)
    if defects.bite:
        result.masks["broken disc"] = stack.shells(clean, defects.bite.units)
    for name, run in (("flashover", defects.scorched), ("pollution", defects.polluted)):
        if run:
            mask = np.zeros(size, np.bool_)
            mask.reshape(-1)[surface.pixel] = coats[name]
            result.masks[name] = mask
    return result
