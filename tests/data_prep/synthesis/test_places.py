"""Places for defects: of the size that their kind has, on the component, clear of other defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import Shape
from data_prep.synthesis.frames import box_frame
from data_prep.synthesis.painted import Job, Photo
from data_prep.synthesis.places import Places
from llava.common.boxes import Box
from llava.common.masks import Mask, box_mask, box_of
from tests.support.drawn_strings import DrawnString

LYING, STANDING = Shape("string", (100.0, 200.0, 500.0, 260.0)), Shape("string", (600.0, 50.0, 660.0, 450.0))


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photo:
    """A photo in which nothing repeats itself: of its strings no more is known than their boxes."""
    monkeypatch.setattr("data_prep.synthesis.places.find_frame", lambda pixels, box: box_frame(box))
    file = tmp_path / "a.png"
    Image.new("RGB", (800, 600), "grey").save(file)
    return Photo(file, "a.png", "0" * 64, (800, 600), (LYING, STANDING), ())


def with_defects(photo: Photo, *defects: Shape, components: tuple[Shape, ...] = (LYING, STANDING)) -> Photo:
    return Photo(photo.file, photo.name, photo.sha256, photo.size, components, defects)


def place(shown: Photo, target: Shape | None, seed: int, on: Photo) -> Box:
    mask = Places([shown]).find(Job(0, on, "burn", target, seed))
    assert mask is not None and mask.shape == (600, 800)
    box = box_of(mask)
    assert box is not None
    return box


def test_a_defect_is_as_large_on_a_standing_string_as_on_a_lying_one(plain: Photo) -> None:
    """At the same distance from one of its ends, on one of its sides, and as long and as thick."""
    shown = with_defects(plain, Shape("burn", (120.0, 205.0, 160.0, 225.0)))
    for seed in range(20):
        x1, y1, x2, y2 = place(shown, STANDING, seed, plain)
        assert min(abs((x1 + x2) / 2 - x) for x in (615, 645)) < 5
        assert min(abs((y1 + y2) / 2 - y) for y in (90, 410)) < 10
        assert 25 < y2 - y1 < 50 and 11 < x2 - x1 < 26


def test_on_a_surface_it_is_anywhere(plain: Photo) -> None:
    shown = with_defects(plain, Shape("burn", (0.0, 0.0, 80.0, 30.0)), components=())
    boxes = [place(shown, None, seed, with_defects(plain, components=())) for seed in range(20)]
    assert max(box[0] for box in boxes) - min(box[0] for box in boxes) > 300
    assert all(45 < box[2] - box[0] < 98 for box in boxes)


def test_a_kind_without_examples_has_a_place(plain: Photo) -> None:
    x1, y1, x2, y2 = place(plain, LYING, 0, plain)
    assert 20 < x2 - x1 < 45 and 20 < y2 - y1 < 45
    x1, _, x2, _ = place(plain, None, 0, with_defects(plain, components=()))
    assert 20 < x2 - x1 < 45


def test_places_lie_on_a_string_that_runs_askew_in_its_box(tmp_path: Path) -> None:
    """The corners of its box show the land behind it."""
    drawn = DrawnString(angle=-30)
    drawn.draw().save(tmp_path / "a.png")
    string = Shape("string", drawn.box)
    (x, y), _ = drawn.place(4.5)
    burn = Shape("burn", (x - 10, y - 10, x + 10, y + 10))
    photo = Photo(tmp_path / "a.png", "a.png", "0" * 64, drawn.size, (string,), ())
    places = Places([with_defects(photo, burn, components=(string,))])
    for seed in range(10):
        mask = places.find(Job(0, photo, "burn", string, seed))
        assert mask is not None
        rows, columns = np.nonzero(mask)
        middles = [drawn.place(unit)[0] for unit in (4.5, 13.5)]
        assert min(np.hypot(columns.mean() - x, rows.mean() - y) for x, y in middles) < drawn.period
        assert 13 < np.sqrt(4 / np.pi * mask.sum()) < 26


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    box=st.tuples(st.floats(0, 790), st.floats(0, 590), st.floats(1, 900), st.floats(1, 700)),
    component=st.booleans(),
)
def test_other_defects_stay_to_be_seen(plain: Photo, seed: int, box: Box, component: bool) -> None:
    x1, y1, width, height = box
    there = Shape("burn", (x1, y1, min(x1 + width, 800), min(y1 + height, 600)))
    on = with_defects(plain, there, components=(LYING,) if component else ())
    job = Job(0, on, "burn", LYING if component else None, seed)
    masks: list[Mask | None] = [Places([on]).find(job) for _ in range(2)]
    first, again = masks
    assert (first is None) == (again is None)
    if first is not None and again is not None:
        hidden = box_mask(there.box, (600, 800))
        assert first.any() and np.array_equal(first, again)
        assert (first & hidden).sum() <= 0.15 * hidden.sum()


def test_where_all_is_defective_there_is_no_place(plain: Photo) -> None:
    on = with_defects(plain, Shape("burn", LYING.box))
    assert Places([on]).find(Job(0, on, "burn", LYING, 0)) is None
