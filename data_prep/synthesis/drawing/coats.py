"""Draw what lies on a string's discs: soot of a flashover, dirt."""

from __future__ import annotations

import math

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.synthesis.drawing.drawn import Drawn, FoundString, ramp, random_field
from data_prep.synthesis.drawing.shells import Row
from data_prep.synthesis.strings import Floats

SINGED, SOOT, BURNT_WHITE = (66, 46, 32), (22, 20, 18), (222, 214, 198)
DUST, GRIME, SPOTS = (112, 99, 77), (109, 93, 64), (46, 40, 30)
DARK = 105  # the grey level of discs below which dirt is pale dust; above, it is dark grime


def draw_burn(found: FoundString, chance: Chance) -> Drawn:
    """Blacken one to three discs where an arc ran over them; where it stood, the glaze is burnt white."""
    row = chance.pick(found.shells.rows)
    units = _some(found, chance, chance.integer(1, 4))
    coat = _Coat(found, units, row)
    middle, half = (row.low + row.high) / 2, (row.high - row.low) / 2
    pixels = half * found.string.thickness / 2
    across = (coat.v - middle) / half
    ragged = random_field(chance, across.shape, 0.7 * pixels) - 0.5
    arc = chance.uniform(-0.5, 0.5)
    heat = coat.along_edge * (1.1 - np.abs(across - arc) / chance.uniform(0.75, 1.1)) + 0.9 * ragged
    coat.lay(SINGED, ramp(-0.1, 0.35, heat) * 0.75)
    coat.lay(SOOT, ramp(0.1, 0.65, heat) * chance.uniform(0.7, 0.9))
    for unit in units:
        if chance.happens(0.5):
            away = row.off(unit, coat.u, coat.v) + chance.uniform(-0.2, 0.2)
            off = across - arc + chance.uniform(-0.25, 0.25)
            spot = np.hypot(away / chance.uniform(0.1, 0.2), off / chance.uniform(0.12, 0.3)) + 2 * ragged
            coat.lay(BURNT_WHITE, chance.uniform(0.45, 0.75) * ramp(1.1, 0.5, spot))
    return coat.drawn({"units": [units.start, units.stop]})


def draw_pollution(found: FoundString, chance: Chance) -> Drawn:
    """Cover half of a string's discs or more with dirt, thicker here and there."""
    whole = found.string.whole
    share = 1.0 if chance.happens(0.15) else chance.uniform(0.45, 0.85)
    units = _some(found, chance, math.ceil(len(whole) * share))
    coat = _Coat(found, units, None)
    pixels = found.string.thickness / 2
    pale = coat.light < DARK
    # Dust lightens dark discs by about a half, grime takes a third of the light of pale ones.
    light = coat.light * (1.5 if pale else 0.65) * chance.uniform(0.85, 1.15)
    dirt = DUST if pale else GRIME
    colour = tuple(round(value * light / (sum(dirt) / 3)) for value in dirt)
    blotches = random_field(chance, coat.u.shape, 0.9 * pixels)
    coat.lay(colour, np.clip(0.55 + 1.3 * (blotches - 0.45), 0.2, 0.8), shaded=True)
    spots = random_field(chance, coat.u.shape, 0.5 * pixels, 3)
    coat.lay(SPOTS, 0.6 * ramp(0.6, 0.8, spots), shaded=True)
    return coat.drawn({"units": [units.start, units.stop]})


def _some(found: FoundString, chance: Chance, count: int) -> range:
    """Return so many units in a row, of those that are no fitting."""
    whole = found.string.whole
    count = min(count, len(whole))
    first = whole[chance.integer(0, len(whole) - count + 1)]
    return range(first, first + count)


class _Coat:
    """Some units of a string, over which coats are laid; `u`, `v` and `light` are theirs."""

    def __init__(self, found: FoundString, units: range, row: Row | None) -> None:
        string, shells = found.string, found.shells
        around = range(max(0, units.start - 1), min(string.units, units.stop + 1))
        self.area = string.area(around, 0.2, found.pixels.shape[:2])
        self.part = found.pixels[self.area].astype(np.float32)
        self.u, self.v = string.coordinates(self.area)
        low, high = (row.low, row.high) if row else (-1.2, 1.2)
        centre = row.off(0, self.u, self.v) + 0.5 if row else self.u
        # Beside it may lie another string, which is not sooty up to a line.
        inside = ramp(low - 0.05, low + 0.12, self.v) * ramp(high + 0.05, high - 0.12, self.v)
        # It thins out over half a unit at both ends.
        self.along_edge = ramp(units.start - 0.3, units.start + 0.15, centre) * ramp(
            units.stop + 0.3, units.stop - 0.15, centre
        )
        self.on = shells.cover(self.u, self.v) * inside * (self.along_edge > 0)
        self.colours = self.part.copy()
        self.covered = np.zeros(self.u.shape, np.float32)
        shown = self.on > 0.5
        self.grey = self.part.mean(-1)
        self.light = float(self.grey[shown].mean()) if shown.any() else 128.0

    def lay(self, colour: tuple[int, ...], share: Floats, shaded: bool = False) -> None:
        """Lay a colour on; `shaded` as light falls on the discs, else as it is but for their finest grain."""
        laid = np.broadcast_to(np.asarray(colour, np.float32), self.colours.shape)
        relief = self.grey / max(self.light, 1.0)
        laid = laid * (relief if shaded else 0.4 + 0.6 * relief)[..., None]
        part = (share * self.along_edge)[..., None]
        self.colours = self.colours * (1 - part) + laid * part
        self.covered = np.maximum(self.covered, share * self.along_edge)

    def drawn(self, details: dict[str, object]) -> Drawn:
        share = np.where(self.covered > 0.02, self.on, 0).astype(np.float32)
        return Drawn(self.area, self.colours.clip(0, 255).astype(np.float32), share, details)
