"""Measures what was made from the pixels that changed, and rejects what would teach nothing or the wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.annotations import Shape
from data_prep.images.tiles import cut
from data_prep.images.units import Unit, cut_units
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from llava.common.boxes import Box
from llava.common.masks import Mask, Pixels, box_mask, box_of, changed_pixels, clean_mask

UNCHANGED = "nothing changed"
OUTSIDE = "changed outside its mask (an error of the method)"
COVERS = "covers a defect that was there"
UNSEEN = "in no crop or tile of the recipe"
TOO_SMALL = "too small in the model's pixels"
LEAST_PATCHES = 0.5  # the least thickness of a defect to be seen, in the model's patches
_COVERED = 0.5  # a defect's box is lost if so much of it is painted over


@dataclass(frozen=True)
class Seen:
    """A part of a picture as the recipe shows it to the model: `crop` in pixels of the picture, and the
    shorter side of the defect there in the model's pixels."""

    crop: Box
    thickness: float


@dataclass(frozen=True)
class Made:
    """A picture that was made well: `mask` and `shape` are those of the pixels that changed.

    `seen` is the part that shows the defect largest.
    """

    painted: Painted
    original: Pixels
    mask: Mask
    shape: Shape
    seen: Seen


@dataclass(frozen=True)
class Filter:
    """What a made defect must keep to: `least` is its shorter side in pixels of the `model`."""

    recipe: Recipe
    model: ModelInput
    least: float

    def measure(self, job: Job, painted: Painted) -> Made | Rejected:
        """Return what changed in a picture, or why it cannot be used."""
        original, result = job.photo.pixels(), painted.pixels
        if original.shape != result.shape:
            raise ValueError(f"a picture of {result.shape} was made of a photo of {original.shape}")
        if ((original != result).any(axis=2) & ~painted.mask).any():
            return Rejected(OUTSIDE)
        mask = clean_mask(changed_pixels(original, result))
        box = box_of(mask)
        if box is None:
            return Rejected(UNCHANGED)
        if any(_covers(mask, defect.box) for defect in job.photo.defects):
            return Rejected(COVERS)
        shape = Shape(job.kind, box, float(np.count_nonzero(mask)))
        parts = views(job.photo, shape, self.recipe, self.model)
        if not parts:
            return Rejected(UNSEEN)
        seen = max(parts, key=lambda part: part.thickness)
        if seen.thickness < self.least:
            return Rejected(TOO_SMALL)
        return Made(painted, original, mask, shape, seen)


def views(photo: Photo, shape: Shape, recipe: Recipe, model: ModelInput) -> list[Seen]:
    """Return the parts of a photo, as the recipe cuts it, that show one more defect."""
    width, height = photo.size
    whole = Unit(
        key=photo.name,
        source=photo.name,
        image="",
        size=photo.size,
        components=photo.components,
        defects=(*photo.defects, shape),
        crop=(0.0, 0.0, float(width), float(height)),
    )
    found = []
    for unit in cut_units(whole, recipe, {}):
        assert unit.crop is not None
        if any(
            defect.name == shape.name and defect.box == cut(shape.box, unit.crop) for defect in unit.defects
        ):
            found.append(Seen(unit.crop, model.thickness(cut(shape.box, unit.crop), unit.size)))
    return found


def _covers(mask: Mask, box: Box) -> bool:
    """Return whether a mask lies on most of a box."""
    inside = box_mask(box, mask.shape)
    return bool(np.count_nonzero(mask & inside) > _COVERED * np.count_nonzero(inside))
