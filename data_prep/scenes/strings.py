"""Insulator strings with their defects, drawn flat.

A string is drawn lying flat: its axis runs along +u (to the right), towards the camera by the angle
`tilt`. The picture's perspective is applied afterwards to the flat result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.noise import Array
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
from data_prep.scenes.surface import EMPTY, Slices, paint_surface


@dataclass
class DrawnString:
    """A string lying flat: colour (h, w, 3) and alpha (h, w) in 0..1, and the masks of its defects."""

    colour: Array
    alpha: Array
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


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
    tables = [Slices.cut(o, pitch, radius, kind.caps_near) for o in (whole, bare, yoke)]

    shapes = {**dict.fromkeys(range(kind.discs), 0), -1: 2, kind.discs: 2}
    clean = paint_surface(kind, tables, shapes, pitch, margin, (height, width), length, None)
    drawn = clean
    if defects.missing or defects.bite:
        shapes |= dict.fromkeys(defects.missing, 1)
        drawn = paint_surface(kind, tables, shapes, pitch, margin, (height, width), length, defects.bite)
    colour, coats = shade(kind, drawn, sun, sunlight, pitch, radius, rng, defects)

    alpha = (drawn.unit > EMPTY).astype(np.float32)
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
