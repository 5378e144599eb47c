"""Chooses where a defect is painted that has no outline of its own: as large as others of its kind, and where
on the component they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from data_prep.synthesis.painted import Job, Photo
from llava.common.boxes import Box
from llava.common.masks import Mask, box_mask

TRIES = 16
_MOST_COVERED = 0.15
"""Of the box of a defect that was there, or of the new one, that they have in common."""
_LEAST_SIDE = 3.0  # pixels
_UNKNOWN_SIDE = 0.6
"""Of a component's shorter side (a tenth of it of a photo's), where no photo shows the kind."""
_WAVES, _WOBBLE = 4, 0.25
"""How often outlines bend, and how far, as a share of their radius."""


@dataclass(frozen=True)
class Example:
    """Where a defect was: its centre in 0..1 of the component's box, along its longer side and across, and
    its size by the box's sides. Of a photo without components the photo is the box."""

    centre: tuple[float, float]
    size: tuple[float, float]


def find_examples(photos: Sequence[Photo]) -> dict[str, list[Example]]:
    """Return where the defects of each kind were."""
    found: dict[str, list[Example]] = {}
    for photo in photos:
        for defect in photo.defects:
            component = photo.component_of(defect)
            around = _whole(photo) if component is None else component.box
            x1, y1, x2, y2 = defect.box
            width, height = around[2] - around[0], around[3] - around[1]
            centre = ((x1 + x2) / 2 - around[0]) / width, ((y1 + y2) / 2 - around[1]) / height
            size = (x2 - x1) / width, (y2 - y1) / height
            example = Example(_along(centre, around), _along(size, around))
            found.setdefault(defect.name, []).append(example)
    return found


def find_place(job: Job, examples: Mapping[str, Sequence[Example]]) -> Mask | None:
    """Return where a job's defect goes, a rounded shape; None if all that was tried covers other defects.

    Args:
        job: What it is, on which photo; its seed chooses.
        examples: Those of `find_examples`.
    """
    chance = Random(job.seed)
    width, height = job.photo.size
    around = _whole(job.photo) if job.target is None else job.target.box
    for _ in range(TRIES):
        box = _box(job, examples.get(job.kind, ()), around, chance)
        mask = _blob(box, (height, width), chance)
        if mask.any() and not any(_covers(mask, defect.box) for defect in job.photo.defects):
            return mask
    return None


def _box(job: Job, examples: Sequence[Example], around: Box, chance: Random) -> Box:
    """Draw a box by an example: of a component it is turned over, so that either end may have it."""
    x1, y1, x2, y2 = around
    width, height = x2 - x1, y2 - y1
    if examples:
        example = chance.choice(examples)
        along, across = example.centre
        if job.target is None or chance.random() < 0.5:
            along = 1 - along
        centre, size = _along((along, across), around), _along(example.size, around)
    else:
        side = (_UNKNOWN_SIDE if job.target else _UNKNOWN_SIDE / 10) * min(width, height)
        centre, size = (chance.random(), chance.random()), (side / width, side / height)
    if job.target is None:  # on a surface a place is as good as any other
        centre = _free(size[0], chance), _free(size[1], chance)
    half_width = max(_LEAST_SIDE, size[0] * width * chance.uniform(0.8, 1.2)) / 2
    half_height = max(_LEAST_SIDE, size[1] * height * chance.uniform(0.8, 1.2)) / 2
    x, y = x1 + centre[0] * width, y1 + centre[1] * height
    return x - half_width, y - half_height, x + half_width, y + half_height


def _free(length: float, chance: Random) -> float:
    """Draw the middle of a stretch of some length that lies in 0..1."""
    half = min(length, 1) / 2
    return chance.uniform(half, 1 - half)


def _blob(box: Box, size: tuple[int, int], chance: Random) -> Mask:
    """Return an ellipse with a wavy outline within a box, of a photo of (height, width)."""
    waves = [(number + 2, chance.uniform(0, 2 * math.pi), chance.uniform(0, 1)) for number in range(_WAVES)]
    rows, columns = np.nonzero(box_mask(box, size))
    x = (columns + 0.5 - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    y = (rows + 0.5 - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    angle = np.arctan2(y, x)
    total = sum(weight for _, _, weight in waves)
    bends = sum(weight / total * np.cos(often * angle + phase) for often, phase, weight in waves)
    mask: Mask = np.zeros(size, bool)
    # the furthest bend touches the box
    inside = np.hypot(x, y) <= (1 + _WOBBLE * bends) / (1 + _WOBBLE * max(bends.max(initial=0), 0))
    mask[rows[inside], columns[inside]] = True
    return mask


def _along(pair: tuple[float, float], around: Box) -> tuple[float, float]:
    """Return (x, y) of a box as (along its longer side, across), and back."""
    lies = around[2] - around[0] >= around[3] - around[1]
    return pair if lies else (pair[1], pair[0])


def _whole(photo: Photo) -> Box:
    return 0.0, 0.0, float(photo.size[0]), float(photo.size[1])


def _covers(mask: Mask, box: Box) -> bool:
    """Return whether a mask and a box have too much in common."""
    inside = box_mask(box, (mask.shape[0], mask.shape[1]))
    smaller = min(np.count_nonzero(inside), np.count_nonzero(mask))
    return bool(np.count_nonzero(mask & inside) > _MOST_COVERED * smaller)
