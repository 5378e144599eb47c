"""Says which part of a job's photo is painted by diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from data_prep.synthesis.painted import Job, Outline, Photo, Rejected
from data_prep.synthesis.pasting.donors import MOST_OF, place_mask
from data_prep.synthesis.places import Places
from llava.common.boxes import area
from llava.common.masks import Mask, clean_mask, grown

NO_PLACE = "no place that is clear of the photo's other defects"
NO_OUTLINE = "no outline of the component was found"
_ON = 0.5  # of a place, must lie on a component whose outline bounds it
_EDGE = 1  # pixels around what is kept


class DefectRegions:
    """Finds places of the size that defects of the kind have."""

    def __init__(self, photos: Sequence[Photo], outline: Outline | None = None) -> None:
        """Look where the photos show defects.

        Args:
            photos: Training photos, whose defects tell sizes and places.
            outline: Outlines components, to keep to them; None lets places reach beyond.
        """
        self._places = Places(photos)
        self._outline = outline

    def __call__(self, job: Job) -> Mask | Rejected:
        """Return where a job's defect goes.

        A place that lies mostly on its component ends where that does: a burn is on the insulator. Others, as
        those of nests, stay as they are.
        """
        place = self._places.find(job)
        if place is None:
            return Rejected(NO_PLACE)
        if self._outline is None or job.target is None:
            return place
        component = self._outline(job.photo.pixels(), job.target.box)
        if component is None:
            return place
        on_it = clean_mask(place & component)
        return on_it if np.count_nonzero(on_it) >= _ON * np.count_nonzero(place) else place


def kept_region(job: Job, outline: Outline) -> Mask | Rejected:
    """Return what stays of a job's photo where its surroundings are painted: the component and the defects on
    it. Of a small one the whole place stays, since what is wrong may be that something is missing there."""
    assert job.target is not None
    pixels = job.photo.pixels()
    component = outline(pixels, job.target.box)
    if component is None:
        return Rejected(NO_OUTLINE)
    kept = grown(component, _EDGE)
    x1, y1, x2, y2 = job.target.box
    for defect in job.photo.defects_on(job.target):
        is_one_place = math.sqrt(area(defect.box)) < MOST_OF * max(x2 - x1, y2 - y1)
        found = None if is_one_place else outline(pixels, defect.box)
        if found is None:
            kept |= place_mask(defect.box, (pixels.shape[0], pixels.shape[1]))
        else:
            kept |= grown(found, _EDGE)
    return kept
