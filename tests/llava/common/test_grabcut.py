import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cv2")

from llava.common.grabcut import ellipse_mask, grabcut
from llava.common.masks import box_mask


def disc_on_land(
    size: tuple[int, int], centre: tuple[int, int], radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a red disc on noisy green land, and where it lies."""
    land = np.random.default_rng(0).normal((70, 130, 60), 8, (*size, 3))
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    land[disc] = np.random.default_rng(1).normal((170, 60, 50), 8, (int(disc.sum()), 3))
    return land.clip(0, 255).astype(np.uint8), disc


@pytest.mark.parametrize("size", [(120, 160), (900, 1200)])
def test_an_object_is_cut_at_its_edge(size: tuple[int, int]) -> None:
    unit = size[0] // 120
    picture, disc = disc_on_land(size, (80 * unit, 60 * unit), 25 * unit)
    mask = grabcut(picture, (50.0 * unit, 30.0 * unit, 110.0 * unit, 90.0 * unit))
    assert (mask & disc).sum() / (mask | disc).sum() > 0.93


def test_it_is_the_same_each_time() -> None:
    picture, _ = disc_on_land((100, 100), (50, 50), 20)
    box = (25.0, 25.0, 75.0, 75.0)
    first = grabcut(picture, box)
    grabcut(picture[::-1].copy(), box)
    assert (grabcut(picture, box) == first).all()


def test_where_nothing_stands_out_it_is_an_ellipse() -> None:
    flat = np.full((60, 80, 3), 90, np.uint8)
    box = (20.0, 10.0, 60.0, 40.0)
    assert (grabcut(flat, box) == ellipse_mask(box, (60, 80))).all()
    whole = (0.0, 0.0, 80.0, 60.0)  # no surroundings
    picture, _ = disc_on_land((60, 80), (40, 30), 20)
    assert (grabcut(picture, whole) == ellipse_mask(whole, (60, 80))).all()


def test_a_box_outside_the_picture_has_no_mask() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    for box in ((30.0, 5.0, 40.0, 15.0), (-12.0, 5.0, -4.0, 15.0), (5.0, -12.0, 15.0, -4.0)):
        assert not box_mask(box, (20, 20)).any()
        assert not grabcut(picture, box).any()


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(-10, 45), st.floats(-10, 35), st.floats(1, 60), st.floats(1, 60)),
)
def test_a_mask_lies_in_its_box_and_is_never_empty(
    seed: int, place: tuple[float, float, float, float]
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    x, y, width, height = place
    box = x, y, x + width, y + height
    mask, inside = grabcut(picture, box), box_mask(box, (40, 50))
    assert not (mask & ~inside).any()
    assert mask.any() == inside.any()
