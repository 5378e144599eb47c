"""What is painted of a photo, and what things in boxes are outlined with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.annotations import Shape
from data_prep.synthesis.painted import Job, Photo, Rejected
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.grabcut import find_object
from llava.common.masks import Mask, Pixels, box_mask
from llava.painting.views import Segment, View
from llava_inspect.making.outlines import SegmenterOutline, find_outline
from llava_inspect.making.regions import NO_OUTLINE, DefectRegions, kept_region
from tests.support.tiny_sam import save_tiny_sam

STRING = Shape("string", (20.0, 30.0, 180.0, 60.0))
BURN = Shape("burn", (30.0, 30.0, 50.0, 60.0))


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    Image.linear_gradient("L").convert("RGB").resize((200, 100)).save(tmp_path / "a.png")
    return Photo(tmp_path / "a.png", "a.png", "0" * 64, (200, 100), (STRING,), (BURN,))


def upper_part(pixels: Pixels, box: Box) -> Mask:
    """Outline the upper 20 pixels of a box."""
    return box_mask((*box[:3], box[1] + 20), (pixels.shape[0], pixels.shape[1]))


def lower_edge(pixels: Pixels, box: Box) -> Mask:
    """Outline the last row of a box."""
    return box_mask((box[0], box[3] - 1, *box[2:]), (pixels.shape[0], pixels.shape[1]))


def nothing(pixels: Pixels, box: Box) -> None:
    """Find no outline."""


def test_a_place_ends_where_its_component_does(photo: Photo) -> None:
    job = Job(0, photo, "burn", STRING, 5)
    whole, bounded = DefectRegions([photo])(job), DefectRegions([photo], upper_part)(job)
    assert isinstance(whole, np.ndarray) and isinstance(bounded, np.ndarray)
    assert bounded.any() and whole[50:].any()
    assert (bounded == whole & upper_part(photo.pixels(), STRING.box)).all()


def test_a_place_beside_its_component_stays_whole(photo: Photo) -> None:
    job = Job(0, photo, "burn", STRING, 5)
    whole = DefectRegions([photo])(job)
    for outline in (lower_edge, nothing):
        assert np.array_equal(DefectRegions([photo], outline)(job), whole)
    anywhere = Job(0, photo, "burn", None, 5)
    assert np.array_equal(DefectRegions([photo], upper_part)(anywhere), DefectRegions([photo])(anywhere))


def test_a_component_is_kept_with_the_defects_on_it(photo: Photo) -> None:
    kept = kept_region(Job(0, photo, None, STRING, 5), upper_part)
    assert isinstance(kept, np.ndarray)
    assert kept[30:50, 20:180].all() and not kept[:29].any() and not kept[52:, 60:].any()
    assert kept[50:60, 35:45].all()  # the place of the burn
    coated = replace(photo, defects=(Shape("pollution", (25.0, 35.0, 175.0, 65.0)),))
    kept = kept_region(Job(0, coated, None, STRING, 5), upper_part)
    assert isinstance(kept, np.ndarray)
    assert kept[35:55, 25:175].all() and not kept[57:].any()  # its outline
    assert kept_region(Job(0, photo, None, STRING, 5), nothing) == Rejected(NO_OUTLINE)


class FixedView(View):
    """A view that finds everything left of x = 40, or nothing."""

    def __init__(self, pixels: Pixels, finds: bool) -> None:
        super().__init__((pixels.shape[0], pixels.shape[1]))
        self._finds = finds

    def look(self, pixels: Pixels) -> View:
        return self

    def _at_clicks(self, prompts: object) -> list[Segment]:
        raise NotImplementedError

    def _in_boxes(self, boxes: object) -> list[Segment]:
        mask: Mask = np.zeros(self.size, bool)
        mask[:, :40] = self._finds
        return [Segment(mask, 0.9)]


def test_what_a_segmenter_finds_is_kept_to_the_box(photo: Photo) -> None:
    pixels = photo.pixels()
    found = SegmenterOutline(FixedView(pixels, True))(pixels, BURN.box)
    assert (found == box_mask((30, 30, 40, 60), (100, 200))).all()
    with_spot = pixels.copy()
    with_spot[35:55, 35:45] = (200, 0, 0)
    by_colours = find_object(with_spot, BURN.box)
    assert by_colours is not None
    assert np.array_equal(SegmenterOutline(FixedView(pixels, False))(with_spot, BURN.box), by_colours)


def test_sam_is_named_by_its_folder(photo: Photo, tmp_path: Path) -> None:
    assert find_outline(None, None) is find_object
    outline = find_outline(str(save_tiny_sam(tmp_path / "sam")), "cpu")
    mask = outline(photo.pixels(), STRING.box)
    assert mask is not None and mask.any() and not (mask & ~box_mask(STRING.box, (100, 200))).any()
    with pytest.raises(InputError, match=r"--segmenter: .*no such model folder"):
        find_outline(str(tmp_path / "absent"), "cpu")
