import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from data_prep.synthesis.drawing.shells import Shells, find_shells
from data_prep.synthesis.strings import InsulatorString, find_string
from tests.support.drawn_strings import DrawnString

DRAWN = DrawnString(discs=14, angle=-20.0)


@st.composite
def strings(draw: st.DrawFn) -> InsulatorString:
    """Strings that sag a little and are smaller at one end."""
    angle = draw(st.floats(-math.pi, math.pi))
    period, thickness = draw(st.floats(8, 60)), draw(st.floats(10, 150))
    units, sag, shrink = draw(st.integers(4, 30)), draw(st.floats(-0.1, 0.1)), draw(st.floats(0, 0.3))
    place = np.arange(units + 1) / units
    along = units * period * place * (1 - shrink * place / 2)
    aside = sag * units * period * place * (1 - place)
    ahead, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    middle = 500 + along[:, None] * ahead + aside[:, None] * across
    half = across * (thickness / 2 * (1 - shrink * place))[:, None]
    return InsulatorString(middle, half, tuple(range(units)))


@given(strings())
def test_coordinates_lead_back_to_their_pixels(string: InsulatorString) -> None:
    area = string.area(range(0, min(3, string.units)), 0.5, (1200, 1200))
    rows, columns = np.mgrid[area]
    if rows.size:
        u, v = string.coordinates(area)
        x, y = string.to_photo(u, v)
        inside = (np.abs(v) <= 1) & (u >= 0) & (u <= string.units)
        np.testing.assert_allclose(x[inside], columns[inside], atol=0.1)
        np.testing.assert_allclose(y[inside], rows[inside], atol=0.1)


@pytest.fixture(scope="module")
def found() -> InsulatorString:
    string = find_string(np.asarray(DRAWN.draw()), DRAWN.box)
    assert string
    return string


@pytest.fixture(scope="module")
def shells(found: InsulatorString) -> Shells:
    return find_shells(np.asarray(DRAWN.draw()), found)


def test_a_drawn_string_is_found_with_its_units(found: InsulatorString) -> None:
    assert found.period == pytest.approx(DRAWN.period, rel=0.05)
    assert abs(len(found.whole) - DRAWN.discs) <= 2


def test_the_shape_covers_discs_and_leaves_out_the_land(found: InsulatorString, shells: Shells) -> None:
    (row,) = shells.rows
    assert row.low < row.rod_low < row.rod_high < row.high
    on_discs = np.array([[unit + row.centre for unit in found.whole]], np.float32)
    assert (shells.cover(on_discs, np.full_like(on_discs, (row.low + row.high) / 2)) > 0.9).all()
    assert (shells.cover(on_discs, np.full_like(on_discs, 1.4)) < 0.1).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_holds_no_string(level: int) -> None:
    assert find_string(np.full((80, 120, 3), level, np.uint8), (10.0, 10.0, 110.0, 70.0)) is None


def test_a_box_too_small_for_a_string_holds_none() -> None:
    assert find_string(np.zeros((80, 120, 3), np.uint8), (10.0, 10.0, 20.0, 16.0)) is None
