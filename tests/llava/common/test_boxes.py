"""Boxes survive the way into text and back."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.common.boxes import Box, Frame, format_box, from_frame, iou, parse_box, parse_boxes, to_frame

sizes = st.integers(1, 6000)
unit = st.floats(0, 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    xs, ys = sorted([draw(unit), draw(unit)]), sorted([draw(unit), draw(unit)])
    return xs[0], ys[0], xs[1], ys[1]


@given(boxes(), sizes, sizes, st.sampled_from(["padded", "whole"]))
def test_a_frame_and_its_inverse(box: Box, width: int, height: int, frame: Frame) -> None:
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    framed = to_frame(pixels, width, height, frame)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in framed)
    assert from_frame(framed, width, height, frame) == pytest.approx(pixels, abs=1e-6)


def test_the_padded_frame_is_the_square_that_llava_pads_to() -> None:
    # A 400x200 image lies at rows 100..300 of a 400x400 square.
    assert to_frame((0, 0, 400, 200), 400, 200, "padded") == (0, 0.25, 1, 0.75)
    assert to_frame((0, 0, 400, 200), 400, 200, "whole") == (0, 0, 1, 1)
    # LLaVA's paste offset is a whole number: (5 - 2) // 2 = 1.
    assert to_frame((0, 0, 5, 2), 5, 2, "padded") == (0, 0.2, 1, 0.6)


@given(boxes(), st.integers(2, 6))
def test_text_and_back(box: Box, decimals: int) -> None:
    text = format_box(box, decimals)
    assert parse_box(f"It is at {text}.") == pytest.approx(box, abs=0.51 * 10**-decimals)
    assert len(text) == len(format_box((0, 0, 1, 1), decimals))


@given(st.text())
def test_any_text_parses_or_does_not(text: str) -> None:
    for x1, y1, x2, y2 in parse_boxes(text):
        assert x1 <= x2 and y1 <= y2


def test_forms_that_models_write() -> None:
    assert parse_boxes("[0.1,0.2, .3 ,1] and [0.9, 0.9, 0.5, 0.5]") == [
        (0.1, 0.2, 0.3, 1.0),
        (0.5, 0.5, 0.9, 0.9),
    ]
    assert parse_box("none") is None
    assert parse_box("[0.1, 0.2, 0.3]") is None


def test_overlap() -> None:
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_it_does_not_load_torch() -> None:
    code = "import sys, llava.common.boxes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
