"""Places for defects: of the size that their kind has, on the component, clear of other defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.annotations import Shape
from data_prep.synthesis.painted import Job, Photo
from data_prep.synthesis.places import find_examples, find_place
from llava.common.boxes import Box
from llava.common.masks import box_mask, box_of

LYING, STANDING = Shape("string", (100.0, 200.0, 500.0, 260.0)), Shape("string", (600.0, 50.0, 660.0, 450.0))


def photo(*defects: Shape, components: tuple[Shape, ...] = (LYING, STANDING)) -> Photo:
    return Photo(Path("a.jpg"), "a.jpg", "0" * 64, (800, 600), components, defects)


def place(examples: Photo, target: Shape | None, seed: int, on: Photo | None = None) -> Box:
    job = Job(0, on or photo(), "burn", target, seed)
    mask = find_place(job, find_examples([examples]))
    assert mask is not None and mask.shape == (600, 800)
    box = box_of(mask)
    assert box is not None
    return box


def test_a_defect_is_as_large_on_a_standing_string_as_on_a_lying_one() -> None:
    """At the same distance from one of its ends."""
    shown = photo(Shape("burn", (120.0, 210.0, 160.0, 250.0)))
    for seed in range(20):
        x1, y1, x2, y2 = place(shown, STANDING, seed)
        assert abs((x1 + x2) / 2 - 630) < 5 and min(abs((y1 + y2) / 2 - y) for y in (90, 410)) < 10
        assert 25 < y2 - y1 < 50 and 25 < x2 - x1 < 50


def test_on_a_surface_it_is_anywhere() -> None:
    shown = photo(Shape("burn", (0.0, 0.0, 80.0, 30.0)), components=())
    boxes = [place(shown, None, seed, shown) for seed in range(20, 40)]
    assert max(box[0] for box in boxes) - min(box[0] for box in boxes) > 300
    assert all(45 < box[2] - box[0] < 98 for box in boxes)


def test_a_kind_without_examples_has_a_place() -> None:
    x1, y1, x2, y2 = place(photo(), LYING, 0)
    assert 20 < x2 - x1 < 45 and 20 < y2 - y1 < 45
    assert place(photo(components=()), None, 0)[2] > 10


@given(
    seed=st.integers(0, 2**32 - 1),
    box=st.tuples(st.floats(0, 790), st.floats(0, 590), st.floats(1, 900), st.floats(1, 700)),
    component=st.booleans(),
)
def test_other_defects_stay_to_be_seen(seed: int, box: Box, component: bool) -> None:
    x1, y1, width, height = box
    there = Shape("burn", (x1, y1, min(x1 + width, 800), min(y1 + height, 600)))
    on = photo(there, components=(LYING,) if component else ())
    job = Job(0, on, "burn", LYING if component else None, seed)
    mask = find_place(job, find_examples([on]))
    again = find_place(job, find_examples([on]))
    assert (mask is None and again is None) or (mask is not None and np.array_equal(mask, again))
    if mask is not None:
        hidden = box_mask(there.box, (600, 800))
        assert mask.any() and (mask & hidden).sum() <= 0.15 * hidden.sum()


def test_where_all_is_defective_there_is_no_place() -> None:
    on = photo(Shape("burn", LYING.box))
    assert find_place(Job(0, on, "burn", LYING, 0), find_examples([on])) is None
