from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from data_prep.annotations import Shape
from data_prep.recipe.schema import Recipe
from data_prep.scenes.chance import Chance
from data_prep.synthesis.drawing.render import RenderPainter, drawing_of
from data_prep.synthesis.drawing.surfaces import (
    draw_crack,
    draw_on_surface,
    draw_pits,
    draw_scratches,
    draw_stain,
)
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from llava.common.boxes import intersection
from llava.common.masks import blend_over, box_of, changed_pixels
from tests.support.drawn_strings import DrawnString

DRAWN = DrawnString(discs=14, angle=-20.0)
ON_STRINGS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest")
ON_SURFACES = ("scratch", "crack", "stain", "pitted_surface")
RECIPE = Recipe.model_validate(
    {
        "unit": "picture",
        "components": [{"name": "insulator"}],
        "defects": [{"name": name} for name in (*ON_STRINGS, *ON_SURFACES, "loose bolt")],
        "families": {"count": {"questions": ["How many defects are there?"]}},
    }
)


def photo_of(file: Path, picture: Image.Image) -> Photo:
    picture.save(file)
    insulator = Shape("insulator", DRAWN.box)
    return Photo(file, file.name, file.stem.ljust(64, "0"), picture.size, (insulator,), ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def photo(folder: Path) -> Photo:
    return photo_of(folder / "colour.png", DRAWN.draw())


@pytest.fixture(scope="module")
def painter() -> RenderPainter:
    return RenderPainter(RECIPE)


def paint(painter: RenderPainter, photo: Photo, kind: str, seed: int = 0, anywhere: bool = False) -> Painted:
    target = None if anywhere else photo.components[0]
    (made,) = painter.paint([Job(0, photo, kind, target, seed)])
    assert isinstance(made, Painted), made
    return made


@pytest.mark.parametrize("kind", [*ON_STRINGS, *ON_SURFACES])
def test_a_defect_is_drawn_and_nothing_else_changes(painter: RenderPainter, photo: Photo, kind: str) -> None:
    for seed in range(3):
        made, before = paint(painter, photo, kind, seed), photo.pixels()
        assert made.pixels.dtype == np.uint8
        assert (made.pixels == before)[~made.mask].all()
        changed = box_of(changed_pixels(before, made.pixels))
        assert changed
        across, down = changed[2] - changed[0], changed[3] - changed[1]
        # Most of it on the component, though a nest may stick out.
        assert intersection(changed, DRAWN.box) > 0.4 * across * down


@pytest.mark.parametrize("kind", ["missing disc", "broken disc"])
def test_one_disc_changes_and_not_its_neighbours(painter: RenderPainter, photo: Photo, kind: str) -> None:
    made = paint(painter, photo, kind)
    along = changed_pixels(photo.pixels(), made.pixels).sum() / DRAWN.period
    across = DRAWN.box[3] - DRAWN.box[1]
    assert 2 < along < across
    ends = box_of(made.mask)
    assert ends
    assert max(ends[2] - ends[0], ends[3] - ends[1]) < 4 * DRAWN.period


@pytest.mark.parametrize("kind", [*ON_STRINGS, *ON_SURFACES])
def test_a_seed_always_gives_the_same_picture(painter: RenderPainter, photo: Photo, kind: str) -> None:
    first, other = paint(painter, photo, kind, 3), paint(painter, photo, kind, 4)
    again = paint(painter, photo, kind, 3)
    assert (first.pixels == again.pixels).all()
    assert (first.mask == again.mask).all()
    assert (first.pixels != other.pixels).any()


@pytest.mark.parametrize("kind", ["flashover", "bird nest", "stain"])
def test_a_grey_photo_stays_grey(painter: RenderPainter, folder: Path, kind: str) -> None:
    grey = photo_of(folder / "grey.png", DRAWN.draw().convert("L").convert("RGB"))
    made = paint(painter, grey, kind).pixels
    assert (made == made[..., :1]).all()


def test_a_surface_needs_no_component(painter: RenderPainter, photo: Photo) -> None:
    assert paint(painter, photo, "scratch", anywhere=True).mask.any()


def test_what_cannot_be_drawn_is_rejected_with_the_reason(painter: RenderPainter, folder: Path) -> None:
    plain = photo_of(folder / "plain.png", Image.new("RGB", DRAWN.size, (90, 120, 80)))
    tiny = Shape("insulator", (10.0, 10.0, 22.0, 18.0))
    jobs = [
        Job(0, plain, "missing disc", plain.components[0], 0),
        Job(1, plain, "pollution", None, 0),
        Job(2, plain, "scratch", tiny, 0),
        Job(3, plain, "bird nest", tiny, 0),
        Job(4, plain, "loose bolt", None, 0),
    ]
    reasons = [made.reason for made in painter.paint(jobs) if isinstance(made, Rejected)]
    assert len(reasons) == len(jobs)
    for reason, part in zip(
        reasons, ("no discs", "needs a component", "too small", "too small", "nothing is drawn"), strict=True
    ):
        assert part in reason


def test_kinds_without_a_drawing_are_told_apart(painter: RenderPainter) -> None:
    assert painter.can_make("bird nest") is None
    assert painter.can_make("pitted_surface") is None
    assert "missing disc, broken disc" in str(painter.can_make("loose bolt"))


@pytest.mark.parametrize(
    ("names", "drawing"),
    [
        (["Missing_Disc"], "missing disc"),
        (["gap", "self-explosion"], "missing disc"),
        (["broken"], "broken disc"),
        (["broken strand"], None),
        (["flashover burn"], "burn"),
        (["bird nest"], "nest"),
        (["scratches"], "scratch"),
        (["pitted_surface"], "pit"),
        (["spot"], "stain"),
        (["hot spot"], None),
        (["rolled-in_scale"], None),
    ],
)
def test_names_say_what_is_drawn(names: list[str], drawing: str | None) -> None:
    assert drawing_of(names) == drawing


@given(
    st.sampled_from([draw_scratches, draw_crack, draw_stain, draw_pits]),
    st.integers(24, 90),
    st.integers(24, 90),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
)
def test_marks_show_on_any_surface_and_stay_in_their_box(draw, height, width, seed, level) -> None:
    noise = np.random.default_rng(seed).integers(-12, 13, (height + 20, width + 20, 1))
    pixels = np.repeat((level + noise).clip(0, 255), 3, axis=2).astype(np.uint8)
    drawn = draw_on_surface(draw, pixels, (10.0, 10.0, 10.0 + width, 10.0 + height), Chance(seed))
    assert drawn
    result = pixels.copy()
    result[drawn.area] = blend_over(pixels[drawn.area], drawn.colours.round().astype(np.uint8), drawn.share)
    box = box_of(changed_pixels(pixels, result))
    assert box
    assert box[0] >= 10
    assert box[1] >= 10
    assert box[2] <= 10 + width
    assert box[3] <= 10 + height
