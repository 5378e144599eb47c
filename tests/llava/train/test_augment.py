"""A flipped picture and what is said of it stay in agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.common.boxes import format_box, parse_boxes
from llava.common.records import Record
from llava.train.augment import (
    Augmentation,
    augment_image,
    draw_augmentation,
    flip_text,
    may_flip,
    mentions_places,
)
from llava.train.config import AugmentSettings

BOTH = Augmentation(horizontal=True, vertical=True)


def record(question: str, answer: str, **meta: Any) -> Record:
    turns = [{"from": "human", "value": "<image>\n" + question}, {"from": "gpt", "value": answer}]
    return Record.model_validate({"id": "r", "image": "a.png", "conversations": turns, "meta": meta})


@pytest.mark.parametrize(
    ("augmentation", "text", "turned"),
    [
        (Augmentation(horizontal=True), "At the upper left.", "At the upper right."),
        (Augmentation(vertical=True), "At the upper left.", "At the lower left."),
        (BOTH, "Top LEFT, not bottom Right", "Bottom RIGHT, not top Left"),
        (Augmentation(horizontal=True), "leftover rights", "leftover rights"),
        (
            Augmentation(horizontal=True),
            "at [0.100, 0.200, 0.300, 0.400].",
            "at [0.700, 0.200, 0.900, 0.400].",
        ),
        (BOTH, "[0.10, 0.20, 0.30, 0.40]", "[0.70, 0.60, 0.90, 0.80]"),
        (BOTH, "in [brackets]", "in [brackets]"),
        (Augmentation(), "left [0.1, 0.2, 0.3, 0.4]", "left [0.1, 0.2, 0.3, 0.4]"),
    ],
)
def test_words_and_boxes_turn_with_the_image(augmentation: Augmentation, text: str, turned: str) -> None:
    assert flip_text(text, augmentation) == turned


@given(st.tuples(*[st.integers(0, 1000)] * 4), st.booleans(), st.booleans())
def test_turning_twice_gives_the_text_back(corners: tuple[int, ...], across: bool, down: bool) -> None:
    x1, y1, x2, y2 = (value / 1000 for value in corners)
    text = "lower right " + format_box((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
    augmentation = Augmentation(horizontal=across, vertical=down)
    assert flip_text(flip_text(text, augmentation), augmentation) == text


def test_a_box_stays_on_its_object() -> None:
    square = Image.new("RGB", (100, 100))
    square.paste((255, 255, 255), (10, 20, 40, 90))
    turned = augment_image(square, BOTH, (0, 0, 0))
    (box,) = parse_boxes(flip_text("[0.10, 0.20, 0.40, 0.90]", BOTH))
    assert turned.getbbox() == tuple(round(100 * value) for value in box)


def test_only_records_that_vouch_for_their_words_are_turned() -> None:
    everything = AugmentSettings(flip_horizontal=1, flip_vertical=1, shrink=0.5)
    plain = record("Is a disc missing?", "Yes.")
    doubtful = record("Is that right?", "No.")
    where = record("Where is it?", "At the left.", task="where")
    box = record("Box it.", "[0.1, 0.2, 0.3, 0.4]", type="box")
    foreign = record("在哪里？", "左上。", language="zh", task="where")
    assert [mentions_places(r) for r in (plain, doubtful, where, box, foreign)] == [False, *[True] * 4]
    assert [may_flip(r) for r in (doubtful, where, box, foreign)] == [False, True, True, False]
    for records, flips, shrinks in [
        ([plain], True, True),
        ([plain, where, box], True, False),
        ([plain, doubtful], False, False),
        ([plain, foreign], False, False),
    ]:
        augmentation = draw_augmentation(everything, records, np.random.default_rng(0))
        assert (augmentation.horizontal, augmentation.vertical) == (flips, flips)
        assert (augmentation.shrink[0] < 1) is shrinks
    forbidden = record("Where is it?", "At the left.", task="where", flip=False)
    assert not draw_augmentation(everything, [forbidden], np.random.default_rng(0)).horizontal


def test_nothing_is_drawn_by_default_and_a_draw_repeats() -> None:
    off = draw_augmentation(AugmentSettings(), [record("a?", "b.")], np.random.default_rng(1))
    noise = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (np.asarray(augment_image(Image.fromarray(noise), off, (0, 0, 0))) == noise).all()
    some = AugmentSettings(flip_horizontal=0.5, brightness=0.2, contrast=0.2, shrink=0.3)
    first, again = (draw_augmentation(some, [record("a?", "b.")], np.random.default_rng(1)) for _ in range(2))
    assert first == again


def test_shrinking_cuts_nothing_off_and_fills_with_the_given_colour() -> None:
    white = Image.new("RGB", (64, 64), (255, 255, 255))
    small = np.asarray(augment_image(white, Augmentation(shrink=(0.5, 1.0, 0.0)), (9, 9, 9)))
    assert (small[:32, 32:] == 255).all() and (small[32:] == 9).all() and (small[:, :32] == 9).all()
