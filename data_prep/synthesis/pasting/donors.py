"""Cuts defects out of photos, with their surroundings and where they lay on their component. Needs OpenCV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.annotations import Shape
from data_prep.synthesis.frames import Frame
from data_prep.synthesis.painted import Outline, Photo
from llava.common.boxes import Box, area
from llava.common.grabcut import ellipse_mask
from llava.common.masks import Mask, Pixels, grown

SMALLEST = 4.0  # pixels of a box's shorter side: of less there is nothing to cut out
_SURROUNDINGS = 0.6  # of a box's longer side, that are kept around it to compare with the other photo's
_FEWEST_SURROUNDINGS = 12  # pixels
_WIDER = 0.06  # of a box's shorter side: an object's own edge is no edge of the cut
_LEAST_WIDER = 3  # pixels
_ON = 0.75  # half thicknesses from a component's middle line: what lies further out is beside it
MOST_OF = 0.4  # of a component's length: what is longer is not one place of it


@dataclass(frozen=True)
class Donor:
    """A defect of a photo. `component` is what it lies on, None for a photo without components."""

    photo: Photo
    defect: Shape
    component: Shape | None


@dataclass(frozen=True)
class Cutting:
    """A defect with its surroundings, cut out of a photo.

    `pixels` (height, width, 3) begin at `corner` of the photo; `mask` is what is pasted. `whole`
    says that this is all of the defect's place, with component and background in it, rather than an object.
    """

    pixels: Pixels
    corner: tuple[int, int]
    mask: Mask
    whole: bool


def find_donors(photos: Sequence[Photo]) -> dict[str, list[Donor]]:
    """Return the defects that can be cut out, by kind. One on no component of a photo with components may
    belong to none of them, and is left out."""
    found: dict[str, list[Donor]] = {}
    for photo in photos:
        for defect in photo.defects:
            x1, y1, x2, y2 = defect.box
            component = photo.component_of(defect)
            if min(x2 - x1, y2 - y1) >= SMALLEST and (component or not photo.components):
                found.setdefault(defect.name, []).append(Donor(photo, defect, component))
    return found


def cut_out(donor: Donor, frame: Frame | None, outline: Outline) -> Cutting:
    """Cut a defect out of its photo. InputError where the photo is damaged.

    `frame` is that of its component. `outline` finds objects in their boxes.

    What is wrong with one place of a component is often that something is missing there, so all of the place
    is cut out. What lies beside a component or along most of it, or on a surface, is an object: its outline.
    """
    photo = donor.photo.pixels()
    box = donor.defect.box
    whole = frame is not None and _is_one_place(box, frame)
    if whole:
        mask = place_mask(box, photo.shape[:2])
    else:
        found = outline(photo, box)
        mask = _wider(ellipse_mask(box, photo.shape[:2]) if found is None else found, box)
    part = _around(box, photo.shape[:2])
    return Cutting(
        pixels=np.ascontiguousarray(photo[part]),
        corner=(part[1].start, part[0].start),
        mask=mask[part],
        whole=whole,
    )


def place_mask(box: Box, size: tuple[int, int]) -> Mask:
    """Return a box with round corners, a little larger, of a picture's (height, width)."""
    x1, y1, x2, y2 = box
    rows, columns = np.ogrid[: size[0], : size[1]]
    more = 1 + _WIDER
    across = (columns + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2 * more, 1)
    down = (rows + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2 * more, 1)
    mask: Mask = across**4 + down**4 <= 1
    return mask


def _is_one_place(box: Box, frame: Frame) -> bool:
    _, aside = frame.locate(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    return abs(aside) < _ON * frame.thickness / 2 and math.sqrt(area(box)) < MOST_OF * frame.length


def _wider(mask: Mask, box: Box) -> Mask:
    return grown(mask, max(_LEAST_WIDER, _WIDER * min(box[2] - box[0], box[3] - box[1])))


def _around(box: Box, size: tuple[int, int]) -> tuple[slice, slice]:
    x1, y1, x2, y2 = box
    margin = max(_FEWEST_SURROUNDINGS, _SURROUNDINGS * max(x2 - x1, y2 - y1))
    rows = slice(max(0, math.floor(y1 - margin)), min(size[0], math.ceil(y2 + margin)))
    columns = slice(max(0, math.floor(x1 - margin)), min(size[1], math.ceil(x2 + margin)))
    return rows, columns
