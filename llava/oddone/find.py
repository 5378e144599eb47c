"""Find the unit of an insulator string that is unlike its neighbours, without any training."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from llava.common.errors import InputError
from llava.oddone.axis import SIDE, find_axes
from llava.oddone.compare import BANDS, Comparison, compare, tiles_of
from llava.oddone.result import Axis, Odd, OddResult, Unit
from llava.oddone.straighten import Course, straighten, to_lab
from llava.oddone.units import cut_columns, local_phase

Box = tuple[float, float, float, float]
SURE_GAP = 1.0
LEAST_UNITS = 3
LEAST_SIDE = 32  # pixels of a box's longer side


def find_odd(image: Image.Image, box: Box | None = None, axis: int | None = None) -> OddResult:
    """Find a string in a photo, cut it into its units and say which one is unlike its neighbours.

    Args:
        image: The photo, RGB.
        box: x1, y1, x2, y2 around the string, in pixels; the whole photo is searched without it.
        axis: Which of the result's candidate axes to take, 0 being the best; the best unless given.

    Raises:
        InputError: the box or the number of the axis cannot be used.
    """
    photo = np.asarray(image.convert("RGB"))
    area = _checked(box, image.size) if box else (0.0, 0.0, float(image.width), float(image.height))
    candidates = _candidates(photo, area)
    if axis is not None and not 0 <= axis < max(1, len(candidates)):
        raise InputError(f"axis {axis}: {len(candidates)} were found, name one of 0 to {len(candidates) - 1}")
    if not candidates:
        return OddResult(image.size, None, [], warnings=["No string was found: nothing repeats itself along a line."])
    chosen = candidates[axis or 0]
    course = straighten(photo, chosen, area)
    strip = course.sample(photo)
    cuts = cut_columns(strip, local_phase(strip))
    warnings: list[str] = []
    if len(cuts) - 1 < LEAST_UNITS:
        warnings.append("Too few units were found to compare them.")
        return OddResult(image.size, chosen, candidates, warnings=warnings)
    comparison = compare(tiles_of(strip, cuts))
    units = [
        Unit(course.outline(left, right, 0, len(strip)), float(score), bool(out))
        for left, right, score, out in zip(cuts[:-1], cuts[1:], comparison.scores, comparison.left_out, strict=True)
    ]
    odd = _odd(units, comparison, course, cuts, len(strip))
    rgb = cv2.cvtColor(strip / np.float32([2.55, 1.5, 1.5]), cv2.COLOR_Lab2RGB)
    return OddResult(
        image.size, chosen, candidates, units, odd, warnings, (rgb.clip(0, 1) * 255).astype(np.uint8), cuts.tolist()
    )


def _checked(box: Box, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(float(size[0]), box[2]), min(float(size[1]), box[3])
    stated = ",".join(f"{value:g}" for value in box)
    if x2 <= x1 or y2 <= y1:
        raise InputError(f"box {stated} is empty or outside the photo of {size[0]}x{size[1]} pixels; give x1,y1,x2,y2")
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


def _odd(units: list[Unit], comparison: Comparison, course: Course, cuts: np.ndarray, rows: int) -> Odd | None:
    compared = [index for index, unit in enumerate(units) if not unit.left_out]
    if len(compared) < LEAST_UNITS:
        return None
    first = max(compared, key=lambda index: units[index].score)
    others = [units[index].score for index in compared if abs(index - first) > 1]
    gap = units[first].score - max(others, default=0.0)
    low, high = (rows * band / BANDS for band in comparison.bands[first])
    part = course.outline(cuts[first], cuts[first + 1], low, high)
    return Odd(first, units[first].polygon, part, units[first].score, gap, gap >= SURE_GAP)
