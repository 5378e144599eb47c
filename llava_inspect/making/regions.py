"""Says which part of a job's photo is painted by diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.synthesis.painted import Job, Outline, Photo, Rejected
from data_prep.synthesis.pasting.donors import place_mask
from data_prep.synthesis.places import Places
from llava.common.masks import Mask, clean_mask, grown

NO_PLACE = "no place that is clear of the photo's other defects"
_ON = 0.5  # of a place, must lie on a component whose outline bounds it
_EDGE = 2  # pixels around a component that is kept: its own edge must be no edge of what is painted


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
        on_it = clean_mask(place & self._outline(job.photo.pixels(), job.target.box))
        return on_it if np.count_nonzero(on_it) >= _ON * np.count_nonzero(place) else place


def kept_region(job: Job, outline: Outline) -> Mask:
    """Return what stays of a job's photo where its surroundings are painted: the component with its edge, and
    the places of its defects, since what is wrong with one may be that something is missing there."""
    assert job.target is not None
    pixels = job.photo.pixels()
    kept = grown(outline(pixels, job.target.box), _EDGE)
    for defect in job.photo.defects_on(job.target):
        kept |= place_mask(defect.box, (pixels.shape[0], pixels.shape[1]))
    return kept
