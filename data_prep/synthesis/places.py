"""Chooses where a defect is painted that has no outline of its own: as large as others of its kind, and where
on a component they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np

from data_prep.annotations import Shape
from data_prep.synthesis.frames import Frame, find_frame
from data_prep.synthesis.painted import Job, Photo
from llava.common.boxes import Box, area
from llava.common.masks import Mask, box_mask

TRIES = 16
_FRAMES = 4096  # that are kept in memory
_MOST_COVERED = 0.15
"""Of the box of a defect that was there, or of the new one, that they have in common."""
_LEAST_RADIUS = 1.5  # pixels
_UNKNOWN = 0.3
"""Radius by the thickness of a component (a tenth of it by a photo's shorter side), where no photo shows the
kind."""
_WAVES, _WOBBLE = 4, 0.15
"""How often outlines bend, and how far, as a share of their radius."""


@dataclass(frozen=True)
class _Spot:
    """A place on a component. `along` is 0..1 of its length, all others by its thickness: how far `aside` of
    its middle line, and `radii` along the line and across."""

    along: float
    aside: float
    radii: tuple[float, float]


@dataclass(frozen=True)
class _Ellipse:
    """In pixels of a photo; the first of `radii` is in the direction of `angle`, in radians."""

    x: float
    y: float
    radii: tuple[float, float]
    angle: float


class Places:
    """Finds places for defects by those that photos show."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        """Take the defects of photos as examples, which must all be training photos."""
        self._examples: dict[str, list[tuple[Photo, Shape]]] = {}
        for photo in photos:
            for defect in photo.defects:
                self._examples.setdefault(defect.name, []).append((photo, defect))
        self._frame = lru_cache(_FRAMES)(lambda photo, component: find_frame(photo.pixels(), component.box))

    def find(self, job: Job) -> Mask | None:
        """Return where a job's defect goes, a rounded shape of the photo; its seed chooses. None if all that
        was tried covers other defects, or lies outside the photo."""
        assert job.kind is not None
        chance = Random(job.seed)
        width, height = job.photo.size
        examples = [
            (photo, defect)
            for photo, defect in self._examples.get(job.kind, ())
            if (photo.component_of(defect) is None) == (job.target is None)
        ]
        for _ in range(TRIES):
            if job.target is None:
                ellipse = _on_surface(job.photo, examples, chance)
            else:
                spot = self._spot(*chance.choice(examples)) if examples else _unknown_spot(chance)
                ellipse = _on_component(self._frame(job.photo, job.target), spot, chance)
            mask = _blob(ellipse, (height, width), chance)
            if mask.any() and not any(_covers(mask, defect.box) for defect in job.photo.defects):
                return mask
        return None

    def _spot(self, photo: Photo, defect: Shape) -> _Spot:
        """Return where on its component a defect is."""
        component = photo.component_of(defect)
        assert component is not None
        frame = self._frame(photo, component)
        x1, y1, x2, y2 = defect.box
        along, aside = frame.locate(((x1 + x2) / 2, (y1 + y2) / 2))
        radii = _radii((x2 - x1) / 2, (y2 - y1) / 2, frame.place(along).angle)
        thick = frame.thickness
        return _Spot(along / frame.length, aside / thick, (radii[0] / thick, radii[1] / thick))


def _unknown_spot(chance: Random) -> _Spot:
    return _Spot(chance.random(), chance.uniform(-0.25, 0.25), (_UNKNOWN, _UNKNOWN))


def _radii(half_width: float, half_height: float, angle: float) -> tuple[float, float]:
    """Return the radii of an ellipse of a direction, of which the box is known; a circle's where that does
    not tell."""
    along, across = math.cos(angle) ** 2, math.sin(angle) ** 2
    if abs(along - across) > 0.5:
        first = (half_width**2 * along - half_height**2 * across) / (along**2 - across**2)
        second = (half_height**2 * along - half_width**2 * across) / (along**2 - across**2)
        if first > 0 and second > 0:
            return math.sqrt(first), math.sqrt(second)
    round_one = math.sqrt((half_width**2 + half_height**2) / 2)
    return round_one, round_one


def _on_component(frame: Frame, spot: _Spot, chance: Random) -> _Ellipse:
    """Lay a spot on another component, of which either end may be the first, and either side."""
    share = 1 - spot.along if chance.random() < 0.5 else spot.along
    place = frame.place(share * frame.length)
    aside = chance.choice((-1, 1)) * spot.aside * frame.thickness
    first, second = (radius * frame.thickness * chance.uniform(0.8, 1.2) for radius in spot.radii)
    x, y = place.x - aside * math.sin(place.angle), place.y + aside * math.cos(place.angle)
    return _Ellipse(x, y, (max(first, _LEAST_RADIUS), max(second, _LEAST_RADIUS)), place.angle)


def _on_surface(photo: Photo, examples: Sequence[tuple[Photo, Shape]], chance: Random) -> _Ellipse:
    """Draw a place anywhere in a photo, as large to its sides as an example is to its own photo's."""
    width, height = photo.size
    if examples:
        shown, defect = chance.choice(examples)
        x1, y1, x2, y2 = defect.box
        half = (x2 - x1) / shown.size[0] * width / 2, (y2 - y1) / shown.size[1] * height / 2
    else:
        half = (_UNKNOWN / 10 * min(width, height),) * 2
    first, second = (max(_LEAST_RADIUS, radius * chance.uniform(0.8, 1.2)) for radius in half)
    return _Ellipse(_free(first, width, chance), _free(second, height, chance), (first, second), 0.0)


def _free(radius: float, length: float, chance: Random) -> float:
    """Draw the middle of a stretch that lies within 0..length."""
    half = min(radius, length / 2)
    return chance.uniform(half, length - half)


def _blob(ellipse: _Ellipse, size: tuple[int, int], chance: Random) -> Mask:
    """Return an ellipse with a wavy outline, which lies within it, of a photo of (height, width)."""
    waves = [(number + 2, chance.uniform(0, 2 * math.pi), chance.random()) for number in range(_WAVES)]
    reach = max(ellipse.radii)
    around: Box = (ellipse.x - reach, ellipse.y - reach, ellipse.x + reach, ellipse.y + reach)
    rows, columns = np.nonzero(box_mask(around, size))
    dx, dy = columns + 0.5 - ellipse.x, rows + 0.5 - ellipse.y
    cosine, sine = math.cos(ellipse.angle), math.sin(ellipse.angle)
    along = (dx * cosine + dy * sine) / ellipse.radii[0]
    across = (dy * cosine - dx * sine) / ellipse.radii[1]
    turn = np.linspace(-math.pi, math.pi, 361)
    bends = np.sum([weight * np.cos(often * turn + phase) for often, phase, weight in waves], axis=0)
    bends /= sum(weight for _, _, weight in waves)
    edge = np.interp(np.arctan2(across, along), turn, 1 + _WOBBLE * bends) / (1 + _WOBBLE * bends.max())
    inside = np.hypot(along, across) <= edge
    mask: Mask = np.zeros(size, bool)
    mask[rows[inside], columns[inside]] = True
    return mask


def _covers(mask: Mask, box: Box) -> bool:
    """Return whether a mask and a box have too much in common."""
    inside = box_mask(box, (mask.shape[0], mask.shape[1]))
    smaller = min(area(box), float(np.count_nonzero(mask)))
    return bool(np.count_nonzero(mask & inside) > _MOST_COVERED * smaller)
