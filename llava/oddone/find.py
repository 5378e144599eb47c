"""Find the unit of an insulator string that is unlike its neighbours, without any training."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image

from llava.common.errors import InputError
from llava.oddone.axis import SIDE, find_axes
from llava.oddone.compare import BANDS, LEAST_COMPARED, Comparison, compare, tiles_of
from llava.oddone.result import Array, Axis, Box, BoxError, Odd, OddResult, Unit
from llava.oddone.straighten import UNIT, Course, lay_course, narrow, to_lab, to_rgb
from llava.oddone.units import (
    active_units,
    cut_phases,
    even_units,
    local_phase,
    row_strength,
    true_period,
)

SURE_GAP = 2.5
"""From 1 on, the odd unit was right on all of CPLID's photos; one sound string in ten had a gap of 2, where
steel behind the string crosses a unit."""
LEAST_SIDE = 32  # pixels of a box's longer side
FEW = 6  # units compared, below which even a clear result may be wrong
LOOSE = 0.4  # of the box that the string's own box fills, below which the box is called loose
RIVAL = 0.6  # of the best axis's score, from which another one is mentioned


def find(image: Image.Image, box: Box | None, axis: int | None) -> OddResult:
    """Do what `llava.oddone.find_odd` says."""
    photo = np.asarray(image.convert("RGB"))
    area = _checked(box, image.size) if box else (0.0, 0.0, float(image.width), float(image.height))
    candidates = _candidates(photo, area)
    if axis is not None and not 0 <= axis < max(1, len(candidates)):
        raise InputError(f"axis {axis}: {len(candidates)} were found, numbered from 0")
    if not candidates:
        nothing = "No string was found: nothing repeats itself along a line."
        return OddResult(image.size, None, [], warnings=[nothing])
    taken = candidates[axis or 0]
    course, strip, cuts, strength = _cut(photo, taken, area)
    if len(cuts) <= LEAST_COMPARED:
        few = "No string was found: too few units repeat themselves along the line."
        return OddResult(image.size, taken, candidates, warnings=[few])
    chosen = replace(taken, period=float(np.median(np.diff(cuts))) / course.scale)
    comparison = compare(tiles_of(strip, cuts), _per_band(strength))
    polygons = [course.outline(left, right, 0, len(strip)) for left, right in pairwise(cuts.tolist())]
    units = [
        Unit(polygon, float(score), bool(out))
        for polygon, score, out in zip(polygons, comparison.scores, comparison.left_out, strict=True)
    ]
    odd = _odd(units, comparison, course, cuts, len(strip))
    warnings = _warnings(units, candidates, chosen, area if box else None)
    return OddResult(image.size, chosen, candidates, units, odd, warnings, to_rgb(strip), cuts.tolist())


def _checked(box: Box, size: tuple[int, int]) -> Box:
    """Return the part of a box that lies in the photo; BoxError if it cannot be used."""
    stated = ",".join(f"{value:g}" for value in box)
    width, height = size
    if not all(math.isfinite(value) for value in box):
        raise BoxError(f"box {stated} is no box; give x1,y1,x2,y2 in pixels")
    x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise BoxError(
            f"box {stated} is empty or outside the photo of {width}x{height} pixels; give x1,y1,x2,y2"
        )
    if max(x2 - x1, y2 - y1) < LEAST_SIDE:
        raise BoxError(f"box {stated} is too small; its longer side needs {LEAST_SIDE} pixels or more")
    return x1, y1, x2, y2


def _candidates(photo: Array, area: Box) -> list[Axis]:
    """Return the axes in a part of the photo, best first."""
    x1, y1, x2, y2 = math.floor(area[0]), math.floor(area[1]), math.ceil(area[2]), math.ceil(area[3])
    part = photo[y1:y2, x1:x2]
    scale = min(SIDE / max(part.shape[:2]), 2.0)
    height, width = (max(1, round(side * scale)) for side in part.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return find_axes(to_lab(cv2.resize(part, (width, height), interpolation=smooth)), (x1, y1), scale)


def _cut(photo: Array, axis: Axis, area: Box) -> tuple[Course, Array, Array, Array]:
    """Return the string's course, its strip, the columns where units are cut, and each row's strength."""
    course = _course(photo, axis, area)
    strip = course.sample(photo)
    weight = np.ones(len(strip))
    for _ in range(2):
        phase = local_phase(strip, weight)
        _, level = even_units(strip, phase)
        weight = row_strength(level)
        weight = weight / (weight.max() + 1e-6)
    phases = cut_phases(level, weight)
    first, last = active_units(level, weight, phases)
    cuts = np.interp(phases[first : last + 1], phase, np.arange(len(phase)))
    return course, strip, cuts, weight


def _course(photo: Array, axis: Axis, area: Box) -> Course:
    """Return the string's course, as wide as the string; the axis may have twice or half the period."""
    for _ in range(2):
        course = lay_course(photo, axis, area)
        strip = course.sample(photo)
        weight = np.exp(-0.5 * ((np.arange(len(strip)) - course.above) / (1.5 * UNIT)) ** 2)
        _, level = even_units(strip, local_phase(strip, weight))
        strength = row_strength(level)
        factor = true_period(level, weight * strength / (strength.max() + 1e-6))
        if factor == 1:
            break
        axis = replace(axis, period=axis.period * factor)
    return narrow(course, strength)


def _per_band(strength: Array) -> Array:
    """Return how much each band belongs to the string, from how much each row does."""
    return np.array([part.max() for part in np.array_split(strength, BANDS)])


def _odd(units: list[Unit], comparison: Comparison, course: Course, cuts: Array, rows: int) -> Odd | None:
    """Return the unit with the highest score, and whether it is sure; None where too few were compared."""
    compared = [index for index, unit in enumerate(units) if not unit.left_out]
    if len(compared) < LEAST_COMPARED:
        return None
    first = max(compared, key=lambda index: units[index].score)
    others = [units[index].score for index in compared if abs(index - first) > 1]
    gap = units[first].score - max(others, default=0.0)
    low, high = (rows * band / BANDS for band in comparison.bands[first])
    part = course.outline(cuts[first], cuts[first + 1], low, high)
    # Beside the outermost unit lies a fitting, which may reach into it.
    outermost = first in (compared[0], compared[-1])
    return Odd(first, units[first].polygon, part, units[first].score, gap, gap >= SURE_GAP and not outermost)


def _warnings(units: list[Unit], candidates: list[Axis], chosen: Axis, box: Box | None) -> list[str]:
    """Return what makes the result doubtful, a sentence each."""
    warnings = []
    compared = sum(not unit.left_out for unit in units)
    if compared < FEW:
        warnings.append(
            f"Only {compared} units can be compared; with so few, even a clear result may be wrong."
        )
    if box:
        corners = np.array([unit.polygon for unit in units])
        across, down = corners.max((0, 1)) - corners.min((0, 1))
        if across * down < LOOSE * (box[2] - box[0]) * (box[3] - box[1]):
            warnings.append("The box is much larger than the string; a tight one is safer.")
    rivals = [
        str(number)
        for number, other in enumerate(candidates)
        if other.points != chosen.points and other.score > RIVAL * chosen.score
    ]
    if rivals:
        warnings.append(f"Another string may be there: candidate {', '.join(rivals)} (--axis).")
    return warnings
