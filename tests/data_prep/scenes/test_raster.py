"""Drawing in exact arithmetic: the fast ways paint what the plain ones would."""

import numpy as np

from data_prep.scenes.raster import Layer, Projection, Strokes, cover
from data_prep.scenes.string_types import CAP_AND_PIN
from data_prep.scenes.surface import EMPTY, Slices, _stamp


def test_cover_takes_the_pixels_whose_centre_is_inside() -> None:
    rng = np.random.default_rng(3)
    width, height = 40, 30
    angles = np.sort(rng.uniform(0, 2 * np.pi, (50, 4)))
    corners = np.stack([np.cos(angles), np.sin(angles)], 2) * rng.uniform(2, 25, (50, 1, 2))
    corners += rng.uniform(-5, 40, (50, 1, 2))
    found = np.zeros((50, height, width), np.bool_)
    shape, column, row = cover(corners, width, height)
    found[shape, row, column] = True
    assert len(shape) == found.sum() > 1000  # no pixel twice
    y, x = np.mgrid[:height, :width] + 0.5
    for number, polygon in enumerate(corners):
        inside = np.ones((height, width), np.bool_)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0
        assert np.array_equal(found[number], inside)


def test_later_strokes_lie_over_earlier_ones() -> None:
    strokes = Strokes()
    for level in range(1, 60):
        strokes.bar((-5, 7), (50, 9), 8, (level, 0, 0))
    layer = strokes.layer((0, 0, 20, 12))
    assert set((layer.pixels & 255).ravel().tolist()) == {0, 59}


def test_a_layer_is_blended_by_how_much_it_covers() -> None:
    picture = np.full((3, 6, 8), 100, np.uint8)
    strokes = Strokes()
    strokes.quad(((2, 2), (6, 2), (6, 5), (2, 5)), (200, 0, 100))  # two pixels wide, one and a half tall
    box = strokes.layer((0, 0, 8, 6)).over(picture)
    assert box == (1, 1, 3, 3)
    assert picture[:, 1, 1].tolist() == [200, 0, 100]
    assert picture[:, 2, 1].tolist() == [150, 50, 100]
    assert (picture[:, 0] == 100).all() and (picture[:, 3:] == 100).all()
    assert Layer.empty((0, 0, 8, 6)).over(picture) is None


def test_a_strip_lies_between_its_ends() -> None:
    ends = (10.0, 20.0), (90.0, 50.0)
    place = Projection.of_strip(60, 12, ends, (1.2, 0.9))
    across = np.hypot(*np.subtract(*place.points([(0, 0), (0, 12)])))
    assert np.allclose(place.points([(0, 6), (60, 6)]), ends)
    assert np.isclose(across, 12 * 1.2)
    pixels = place.pixels((0, 0, 60, 12), 100, 80)
    there = np.asarray(place.points(list(zip(pixels.u.tolist(), pixels.v.tolist(), strict=True))))
    assert np.abs(there - np.stack([pixels.place % 100, pixels.place // 100], 1) - 0.5).max() < 1e-3


def test_a_stamp_is_its_slices_painted_over_each_other() -> None:
    for caps_near in (False, True):
        (slices,) = Slices.cut([CAP_AND_PIN], 60.0, 50.0, caps_near)
        sine, cosine = 0.3, 0.95
        stamp, left = _stamp(slices, sine, cosine)
        half = len(stamp) // 2
        v = (np.arange(-half, half) + 0.5)[:, None]
        u = (np.arange(stamp.shape[1]) + left + 0.5)[None, :]
        plain = np.full_like(stamp, EMPTY)
        for number, (place, radius) in enumerate(zip(slices.place, slices.radius, strict=True)):
            across = (u - np.float64(place) * cosine) / sine
            plain[across**2 + v**2 <= np.float64(radius) ** 2] = number
        assert np.mean(plain != stamp) < 1e-3  # a pixel on the very edge may round otherwise
        assert (stamp != EMPTY).mean() > 0.3
