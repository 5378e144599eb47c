"""Windows cover every photo, and what is small lies whole in one of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llava.search.windows import scales, shifted, window_side, windows

SIZES = st.tuples(st.integers(1, 900), st.integers(1, 900))


@given(SIZES, st.integers(2, 300), st.data())
def test_what_is_half_a_window_large_lies_whole_in_one(
    size: tuple[int, int], side: int, data: st.DataObject
) -> None:
    width, height = (data.draw(st.integers(1, max(min(side // 2, length), 1))) for length in size)
    x, y = data.draw(st.integers(0, size[0] - width)), data.draw(st.integers(0, size[1] - height))
    boxes = windows(size, side)
    assert any(b[0] <= x and x + width <= b[2] and b[1] <= y and y + height <= b[3] for b in boxes)
    for x1, y1, x2, y2 in boxes:
        assert (x2 - x1, y2 - y1) == (min(side, size[0]), min(side, size[1]))
        assert min(x1, y1) >= 0 and x2 <= size[0] and y2 <= size[1]
    assert len(set(boxes)) == len(boxes)


@given(SIZES, st.integers(1, 300), st.data())
def test_shifted_windows_stay_in_the_photo_and_on_its_border(
    size: tuple[int, int], side: int, data: st.DataObject
) -> None:
    box = data.draw(st.sampled_from(windows(size, side)))
    borders = (0, 0, *size)
    for other in shifted(box, size):
        assert other != box
        for edge in range(4):
            moved = abs(other[edge] - box[edge])
            assert moved <= round(0.2 * (box[2 + edge % 2] - box[edge % 2]))
            assert 0 <= other[edge] <= size[edge % 2]
            if box[edge] == borders[edge]:
                assert moved == 0


def test_a_window_away_from_the_border_keeps_its_size() -> None:
    moved = shifted((100, 100, 200, 200), (1000, 1000))
    assert moved == [(80, 100, 180, 200), (120, 100, 220, 200), (100, 80, 200, 180), (100, 120, 200, 220)]
    assert shifted((0, 100, 100, 200), (1000, 1000))[:2] == [(0, 100, 80, 200), (0, 100, 120, 200)]


def test_the_numbers_of_windows_that_the_documentation_states() -> None:
    side = window_side(336)
    assert side == 672
    assert len(windows((3000, 1902), side)) == 40
    assert len(windows((5520, 3680), side)) == 160
    assert scales((3000, 1902), side) == [672, 1344]
    assert scales((5520, 3680), side) == [672, 1344, 2688]


def test_larger_things_take_larger_windows_and_fewer() -> None:
    assert window_side(336, smallest=40) == 2 * window_side(336, smallest=20)
    assert window_side(336, smallest=1) == 168
