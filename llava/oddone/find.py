"""Find the unit of an insulator string that is unlike its neighbours, without any training."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from llava.common.errors import InputError
from llava.oddone.axis import SIDE, find_axes
from llava.oddone.compare import BANDS, Comparison, compare, tiles_of
from llava.oddone.result import Axis, Box, Odd, OddResult, Unit
from llava.oddone.straighten import UNIT, Course, lay_course, narrow, to_lab
from llava.oddone.units import active_units, cut_phases, even_units, local_phase, row_strength, true_period

SURE_GAP = 1.0
LEAST_UNITS = 3
LEAST_SIDE = 32  # pixels of a box's longer side


def find(image: Image.Image, box: Box | None, axis: int | None) -> OddResult:
    """Do what `llava.oddone.find_odd` says."""
    photo = np.asarray(image.convert("RGB"))
    area = _checked(box, image.size) if box else (0.0, 0.0, float(image.width), float(image.height))
    candidates = _candidates(photo, area)
    if axis is not None and not 0 <= axis < max(1, len(candidates)):
        raise InputError(f"axis {axis}: {len(candidates)} were found, name one of 0 to {len(candidates) - 1}")
    if not candidates:
        return OddResult(
            image.size, None, [], warnings=["No string was found: nothing repeats itself along a line."]
        )
    chosen = candidates[axis or 0]
    course, strip, cuts, strength = _cut(photo, chosen, area)
    warnings: list[str] = []
    if len(cuts) - 1 < LEAST_UNITS:
        warnings.append("Too few units were found to compare them.")
        return OddResult(image.size, chosen, candidates, warnings=warnings)
    comparison = compare(tiles_of(strip, cuts), _per_band(strength))
    units = [
        Unit(course.outline(left, right, 0, len(strip)), float(score), bool(out))
        for left, right, score, out in zip(
            cuts[:-1], cuts[1:], comparison.scores, comparison.left_out, strict=True
        )
    ]
    odd = _odd(units, comparison, course, cuts, len(strip))
    rgb = cv2.cvtColor(strip / np.float32([2.55, 1.5, 1.5]), cv2.COLOR_Lab2RGB)
    return OddResult(
        image.size,
        chosen,
        candidates,
        units,
        odd,
        warnings,
        (rgb.clip(0, 1) * 255).astype(np.uint8),
        cuts.tolist(),
    )


def _checked(box: Box, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = (
        max(0.0, box[0]),
        max(0.0, box[1]),
        min(float(size[0]), box[2]),
        min(float(size[1]), box[3]),
    )
    stated = ",".join(f"{value:g}" for value in box)
    if x2 <= x1 or y2 <= y1:
        raise InputError(
            f"box {stated} is empty or outside the photo of {size[0]}x{size[1]} pixels; give x1,y1,x2,y2"
        )
    if max(x2 - x1, y2 - y1) < LEAST_SIDE:
        raise InputError(f"box {stated} is too small; its longer side needs at least {LEAST_SIDE} pixels")
    return x1, y1, x2, y2


def _candidates(photo: np.ndarray, area: Box) -> list[Axis]:
    x1, y1, x2, y2 = (round(value) for value in area)
    part = photo[y1:y2, x1:x2]
    scale = min(SIDE / max(part.shape[:2]), 2.0)
    small = cv2.resize(
        part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return find_axes(to_lab(small), (x1, y1), scale)


def _cut(photo: np.ndarray, axis: Axis, area: Box) -> tuple[Course, np.ndarray, np.ndarray, np.ndarray]:
    """Return the string's course, its strip, the columns at which its units are cut, and each row's strength."""
    for _ in range(2):
        course = lay_course(photo, axis, area)
        strip = course.sample(photo)
        weight = np.exp(-0.5 * ((np.arange(len(strip)) - course.above) / (1.5 * UNIT)) ** 2)
        _, level = even_units(strip, local_phase(strip, weight))
        strength = row_strength(level)
        factor = true_period(level, weight * strength / strength.max())
        if factor == 1:
            break
        axis = replace(axis, period=axis.period * factor)
    course = narrow(course, strength)
    strip = course.sample(photo)
    weight = np.ones(len(strip))
    for _ in range(2):
        phase = local_phase(strip, weight)
        _, level = even_units(strip, phase)
        weight = row_strength(level)
        weight = weight / weight.max()
    phases = cut_phases(level, weight)
    first, last = active_units(level, weight, phases)
    cuts = np.interp(phases[first : last + 1], phase, np.arange(len(phase)))
    return course, strip, cuts, weight


def _per_band(strength: np.ndarray) -> np.ndarray:
    return np.array([part.max() for part in np.array_split(strength, BANDS)])


def _odd(
    units: list[Unit], comparison: Comparison, course: Course, cuts: np.ndarray, rows: int
) -> Odd | None:
    compared = [index for index, unit in enumerate(units) if not unit.left_out]
    if len(compared) < LEAST_UNITS:
        return None
    first = max(compared, key=lambda index: units[index].score)
    others = [units[index].score for index in compared if abs(index - first) > 1]
    gap = units[first].score - max(others, default=0.0)
    low, high = (rows * band / BANDS for band in comparison.bands[first])
    part = course.outline(cuts[first], cuts[first + 1], low, high)
    return Odd(first, units[first].polygon, part, units[first].score, gap, gap >= SURE_GAP)
