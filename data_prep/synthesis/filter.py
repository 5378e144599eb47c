"""Measures what was made from the pixels that changed, and rejects what would teach nothing or the wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.annotations import Shape
from data_prep.images.tiles import cut
from data_prep.images.units import Unit, cut_units
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from llava.common.boxes import Box, iou
from llava.common.masks import Mask, Pixels, box_mask, box_of, changed_pixels, clean_mask, share_of_box

UNCHANGED = "nothing changed"
OUTSIDE = "changed outside its mask (an error of the method)"
COVERS = "covers a defect that was there"
UNSEEN = "in no crop or tile of the recipe"
TOO_SMALL = "too small in the model's pixels"
LEAST_PATCHES = 0.5  # the least thickness of a defect to be seen, in the model's patches
CUT = "cuts through something that is annotated"
_COVERED = 0.5  # a defect's box is lost if so much of it is painted over
_REACHES = 0.75  # IoU of a component's box and that of what was kept of it; an outline may have lost a part
_KEPT, _GONE = 0.5, 0.1
"""Of any other box, that is kept: with more it is there, with less it is gone, between nobody can say."""


@dataclass(frozen=True)
class Seen:
    """A part of a picture as the recipe shows it to the model: `crop` in pixels of the picture, and the
    shorter side of the defect there in the model's pixels."""

    crop: Box
    thickness: float


@dataclass(frozen=True)
class Made:
    """A picture that was made well: `mask` and `shape` are those of the pixels that changed.

    `there` is what the picture still shows of the photo's annotations. `seen` is the part that shows the
    defect largest. Where the surroundings are new there is no shape, and the component that was kept is seen.
    """

    painted: Painted
    original: Pixels
    mask: Mask
    there: Photo
    shape: Shape | None
    seen: Seen


@dataclass(frozen=True)
class Filter:
    """What a made defect, or a component that was kept, must keep to: `least` is its shorter side in pixels
    of the `model`."""

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
        changed = changed_pixels(original, result)
        if not changed.any():
            return Rejected(UNCHANGED)
        if job.kind is None:
            assert job.target is not None
            mask, made, shown = changed, None, job.target
            there = what_is_left(job.photo, job.target, ~painted.mask)
            if there is None:
                return Rejected(CUT)
        else:
            mask, there = clean_mask(changed), job.photo
            box = box_of(mask)
            assert box is not None
            if any(share_of_box(mask, defect.box) > _COVERED for defect in job.photo.defects):
                return Rejected(COVERS)
            made = shown = Shape(job.kind, box, float(np.count_nonzero(mask)))
        labelled = there if made is None else replace(there, defects=(*there.defects, made))
        parts = views(labelled, shown, self.recipe, self.model)
        if not parts:
            return Rejected(UNSEEN)
        seen = max(parts, key=lambda part: part.thickness)
        if seen.thickness < self.least:
            return Rejected(TOO_SMALL)
        return Made(painted, original, mask, there, made, seen)


def what_is_left(photo: Photo, target: Shape, kept: Mask) -> Photo | None:
    """Return a photo with those annotations that its kept pixels still show: the target and the defects on
    it, and each other box of which the most is kept.

    None where a part of the target or of a defect on it is lost, or another box is neither kept nor gone.
    """
    left = []
    own = (target, *photo.defects_on(target))
    for shape in (*photo.components, *photo.defects):
        share = share_of_box(kept, shape.box)
        if shape in own:  # a thin one fills little of its box, but reaches all its sides
            reached = box_of(kept & box_mask(shape.box, kept.shape))
            if reached is None or iou(reached, shape.box) < _REACHES:
                return None
            left.append(shape)
        elif share >= _KEPT:
            left.append(shape)
        elif share > _GONE:
            return None
    return replace(
        photo,
        components=tuple(shape for shape in photo.components if shape in left),
        defects=tuple(shape for shape in photo.defects if shape in left),
    )


def views(photo: Photo, shape: Shape, recipe: Recipe, model: ModelInput) -> list[Seen]:
    """Return the parts of a photo, as the recipe cuts it, that show one of its shapes."""
    width, height = photo.size
    whole = Unit(
        key=photo.name,
        source=photo.name,
        image="",
        size=photo.size,
        components=photo.components,
        defects=photo.defects,
        crop=(0.0, 0.0, float(width), float(height)),
    )
    found = []
    for unit in cut_units(whole, recipe, {}):
        assert unit.crop is not None
        if any(
            other.name == shape.name and other.box == cut(shape.box, unit.crop)
            for other in (*unit.components, *unit.defects)
        ):
            found.append(Seen(unit.crop, model.thickness(cut(shape.box, unit.crop), unit.size)))
    return found
