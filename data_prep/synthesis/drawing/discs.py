"""Draw a disc that is gone, or broken: what lies behind the string shows where it was."""

from __future__ import annotations

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.synthesis.drawing.drawn import Drawn, FoundString, ramp, random_field, soft, without
from data_prep.synthesis.drawing.shells import Row
from data_prep.synthesis.strings import Floats
from llava.common.masks import Mask, feather, grown, import_opencv

AROUND = 3  # units on each side of the disc that are looked at
BEYOND = 1.6  # of v on both sides, from which the land is taken
SLACK = 0.07  # of the string's width, by which edges that were not seen are covered
RAW = np.array([214, 206, 194], np.float32)  # a fresh fracture's colour in full light


def draw_missing(found: FoundString, chance: Chance) -> Drawn:
    """Take a disc away, and leave the rod between its neighbours."""
    unit, row = _choose(found, chance)
    place = _Place(found, unit, row)
    return Drawn(place.area, place.with_bare_rod(), soft(place.of_disc) * place.trust, {"unit": unit})


def draw_broken(found: FoundString, chance: Chance) -> Drawn:
    """Break a piece off a disc's rim; the raw edge is pale."""
    unit, row = _choose(found, chance)
    place = _Place(found, unit, row)
    # With two strings side by side, the outer flank: the inner one is hidden, or lies before the other.
    side = chance.sign() if len(found.shells.rows) == 1 else (-1 if row is found.shells.rows[0] else 1)
    half = (row.high - row.low) / 2
    pixels = half * found.string.thickness / 2  # of v - middle = half
    out = side * (place.v - (row.low + row.high) / 2) / half  # 0 on the axis, 1 at the rim
    jagged = random_field(chance, out.shape, 0.4 * pixels, 4) - 0.5
    turn, hollow = chance.uniform(-0.8, 0.8), chance.uniform(-0.6, 0.9)
    edge = chance.uniform(0.3, 0.52) + turn * place.off + hollow * (place.off**2 - 0.08) + 0.3 * jagged
    gone = place.of_disc & (out > edge)
    # As wide as a shell is thick here and there, but never lost in the grain.
    thick = max(0.13, 2.5 / pixels) * random_field(chance, out.shape, 0.3 * pixels, 2)
    raw = place.of_disc & place.solid & (out <= edge) & (out > edge - thick)
    body = place.of_disc & place.solid
    light = float(place.part[body].mean()) if body.any() else 128.0
    grain = 0.8 + 0.4 * random_field(chance, out.shape, 3, 2)[..., None]
    pale = RAW * min(max((light + 60) / 255, 0.4), 1.0) * grain
    colours = np.where(raw[..., None], pale, place.land).clip(0, 255).astype(np.float32)
    return Drawn(place.area, colours, np.maximum(soft(gone) * place.trust, 0.8 * soft(raw)), {"unit": unit})


def _choose(found: FoundString, chance: Chance) -> tuple[int, Row]:
    """Return a unit with neighbours on both sides, and a row. A gap at the end is a shorter string."""
    return chance.pick(found.string.whole[1:-1]), chance.pick(found.shells.rows)


class _Place:
    """A disc and what is around it: arrays (h, w) over the part `area` of the photo."""

    def __init__(self, found: FoundString, unit: int, row: Row) -> None:
        string = found.string
        self.found, self.row, self.unit = found, row, unit
        units = range(max(0, unit - AROUND), min(string.units, unit + 1 + AROUND))
        self.area = string.area(units, BEYOND, found.pixels.shape[:2])
        self.part = found.pixels[self.area]
        self.u, self.v = string.coordinates(self.area)
        self.off = row.off(unit, self.u, self.v)
        self.solid: Mask = found.shells.cover(self.u, self.v) > 0.5
        covered = grown(found.shells.cover_at_most(self.u, self.v) > 0.3, SLACK * string.thickness)
        # Of what is only covered to be safe, the land stays for the most part.
        self.trust = feather(covered, SLACK * string.thickness - 1)
        low, high = (row.low, row.high) if len(found.shells.rows) == 2 else (-1.2, 1.2)
        self.of_disc: Mask = covered & (np.abs(self.off) < 0.5) & (self.v > low) & (self.v < high)
        across = float(string.half[unit, 0]), float(string.half[unit, 1])
        self.land = without(self.part, covered, across, string.period / 2)

    def with_bare_rod(self) -> Floats:
        """Return the land with the rod as it would be without the disc: as it is seen beside it."""
        cv2 = import_opencv()
        string, row = self.found.string, self.row
        # Back and forth over a little of the rod on the nearer side, or it would be all streaks.
        inward = 0.5 - np.abs(self.off)
        aside = 0.5 + 0.03 * (np.abs((inward * 12) % 2 - 1) - 0.5)
        x, y = string.to_photo(self.u - self.off + np.sign(self.off) * aside, self.v)
        rows, columns = self.area
        beside = cv2.remap(
            self.part, x - columns.start, y - rows.start, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        beside = cv2.GaussianBlur(beside, (0, 0), max(0.5, string.period / 40))
        round_off = (2 * self.v - row.rod_low - row.rod_high) / (row.rod_high - row.rod_low)
        shade = 0.72 + 0.33 * np.sqrt(np.clip(1 - round_off**2, 0, 1))
        soften = 2 / ((row.rod_high - row.rod_low) * string.thickness / 2)  # a pixel
        share = ramp(1 + soften, 1 - soften, np.abs(round_off).astype(np.float32))[..., None]
        mixed: Floats = (beside * shade[..., None]).clip(0, 255) * share + self.land * (1 - share)
        return mixed.astype(np.float32)
