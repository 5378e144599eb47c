"""Labels are those of the pixels that changed, and what would teach nothing is rejected."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import Shape
from data_prep.model_inputs import ModelInput
from data_prep.synthesis.filter import COVERS, CUT, OUTSIDE, TOO_SMALL, UNCHANGED, UNSEEN, Filter, Made
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from llava.common.boxes import Box
from llava.common.masks import box_mask
from tests.support.made import recipe_of

WHOLE = Filter(recipe_of(), ModelInput(), least=7)
SIZE = (120, 80)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    file = tmp_path_factory.mktemp("photo") / "a.png"
    Image.fromarray(np.full((80, 120, 3), 90, np.uint8)).save(file)
    components = (Shape("insulator", (10, 10, 60, 60)),)
    return Photo(file, "a.png", "0" * 64, SIZE, components, (Shape("flashover", (80, 20, 100, 40)),))


def judge(
    photo: Photo, box: Box, mask: Box | None = None, by: int = 50, filter: Filter = WHOLE
) -> Made | Rejected:
    """Change the pixels of a box by so much, and measure it as a broken disc."""
    job = Job(0, photo, "broken disc", photo.components[0], 1)
    pixels = photo.pixels().copy()
    pixels[box_mask(box, pixels.shape[:2])] += np.uint8(by)
    return filter.measure(job, Painted(pixels, box_mask(mask or box, pixels.shape[:2])))


@given(st.integers(10, 50), st.integers(10, 50), st.integers(5, 20), st.integers(5, 20))
def test_box_and_mask_are_those_of_the_changed_pixels(
    photo: Photo, x: int, y: int, width: int, height: int
) -> None:
    box = (float(x), float(y), float(x + width), float(y + height))
    made = judge(photo, box, (0, 0, 79, 80))
    assert isinstance(made, Made)
    assert made.shape == Shape("broken disc", box, width * height)
    assert np.array_equal(made.mask, box_mask(box, (80, 120)))


def test_what_cannot_be_used_is_rejected(photo: Photo) -> None:
    assert judge(photo, (20, 20, 40, 40), by=8) == Rejected(UNCHANGED)
    assert judge(photo, (20, 20, 40, 40), (20, 20, 40, 39)) == Rejected(OUTSIDE)
    assert judge(photo, (20, 20, 40, 40), (20, 20, 40, 39), by=1) == Rejected(OUTSIDE)
    assert judge(photo, (82, 20, 100, 40)) == Rejected(COVERS)
    assert judge(photo, (20, 20, 40, 22)) == Rejected(TOO_SMALL)  # 5.6 of 336 pixels


def test_size_is_that_of_what_the_recipe_shows(photo: Photo) -> None:
    crops = Filter(recipe_of("insulator", "unit=object"), ModelInput(), least=7)
    made = judge(photo, (20, 20, 40, 22), filter=crops)
    assert isinstance(made, Made)
    assert made.seen.crop == (0, 0, 75, 75)  # the component with 30% around it
    assert made.seen.thickness == pytest.approx(2 * 336 / 75)
    assert judge(photo, (70, 50, 90, 75), filter=crops) == Rejected(UNSEEN)


def test_a_picture_has_the_size_of_its_photo(photo: Photo) -> None:
    with pytest.raises(ValueError, match="was made of a photo"):
        WHOLE.measure(
            Job(0, photo, "flashover", None, 1), Painted(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool))
        )


# --- new surroundings ------------------------------------------------------------------------------------


def judge_surroundings(photo: Photo, *kept: Box) -> Made | Rejected:
    """Change all but some boxes, and measure it as a picture of no kind."""
    pixels = photo.pixels().copy()
    mask = ~np.any([box_mask(box, (80, 120)) for box in kept], axis=0)
    pixels[mask] += 50
    return WHOLE.measure(Job(0, photo, None, photo.components[0], 1), Painted(pixels, mask))


def test_with_new_surroundings_what_was_kept_is_labelled(photo: Photo) -> None:
    gone = judge_surroundings(photo, (10, 10, 60, 60))
    assert isinstance(gone, Made) and gone.shape is None
    assert (gone.there.components, gone.there.defects) == (photo.components, ())
    assert gone.seen.crop == (0, 0, 120, 80)
    thin = judge_surroundings(photo, (10, 10, 60, 13), (10, 10, 13, 60))
    assert isinstance(thin, Made) and thin.there.components == photo.components
    both = judge_surroundings(photo, (10, 10, 95, 60))
    assert isinstance(both, Made) and both.there == photo
    assert judge_surroundings(photo, (10, 10, 60, 40)) == Rejected(CUT)  # half of the component is lost


@pytest.mark.parametrize(("lost", "why"), [(20, CUT), (3, None)])
def test_a_defect_of_what_was_kept_must_be_whole(photo: Photo, lost: int, why: str | None) -> None:
    burnt = replace(photo, defects=(Shape("flashover", (30, 20, 50, 79)),))
    measured = judge_surroundings(burnt, (10, 10, 60, 60), (30, 20, 50, 79 - lost))
    assert measured == Rejected(why) if why else isinstance(measured, Made) and measured.there == burnt


@given(st.floats(80.0, 100.0))
def test_no_label_stays_of_what_else_is_cut_through(photo: Photo, edge: float) -> None:
    measured = judge_surroundings(photo, (10.0, 10.0, edge, 60.0))
    share = (np.ceil(edge) - 80) / 20
    if 0.1 < share < 0.5:
        assert measured == Rejected(CUT)
    else:
        assert isinstance(measured, Made) and bool(measured.there.defects) == (share >= 0.5)
