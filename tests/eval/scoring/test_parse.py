"""What an answer says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.recipe.families import PLACES
from eval.scoring import parse
from llava.common.errors import InputError

KINDS = ["missing_disc", "broken disc", "disc", "flashover-burn", "no defect"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, there is a broken disc.", "yes"),
        ("No.", "no"),
        ("**Yes**", "yes"),
        ("The answer is no.", "no"),
        ("Answer: Yes", "yes"),
        ("No, there is no broken disc.", "no"),
        ("No there isn't", "no"),
        ("no, it’s fine", "no"),
        ("NO", "no"),
        ("I cannot say yes or no", None),
        ("Yes and no.", None),
        ("No. 3 is broken.", None),
        ("No doubt there is one.", None),
        ("No defect is visible.", None),
        ("Yes, no defect.", None),
        ("Yesterday", None),
        ("North", None),
        ("There is a defect.", None),
        ("", None),
    ],
)
def test_parse_yes_no(text: str, expected: str | None) -> None:
    assert parse.parse_yes_no(text) == expected


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("예, 결함이 있습니다.", ("예", "아니요"), "yes"),
        ("네.", ("예", "아니요"), "yes"),
        ("아니요", ("예", "아니요"), "no"),
        ("아니오.", ("예", "아니요"), "no"),
        ("예상 밖입니다", ("예", "아니요"), None),
        ("Yes", ("예", "아니요"), None),
        ("Да, виден дефект", ("да", "нет"), "yes"),
        ("**Нет**", ("да", "нет"), "no"),
        ("Нет, дефектов нет.", ("да", "нет"), "no"),
        ("Нет дефектов", ("да", "нет"), None),
        ("да и нет", ("да", "нет"), None),
        ("Дальше", ("да", "нет"), None),
        ("", ("да", "нет"), None),
    ],
)
def test_parse_yes_no_in_other_words(text: str, said: tuple[str, str], expected: str | None) -> None:
    assert parse.parse_yes_no(text, said) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. broken disc", "B"),
        ("B) broken disc", "B"),
        ("The answer is B.", "B"),
        ("Option C: flashover", "C"),
        ("D", None),
        ("A missing disc", None),
        ("A or B", None),
        ("broken disc", None),
        ("", None),
    ],
)
def test_parse_letter(text: str, expected: str | None) -> None:
    assert parse.parse_letter(text, "ABC") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "x"}', [{"a": "x"}]),
        ('[{"a": "x"}, {"a": null, "b": 2}]', [{"a": "x"}, {"a": "null", "b": "2"}]),
        ('```json\n{"a": "x"}\n```', [{"a": "x"}]),
        ('{"a": "x"', None),
        ('Here it is: {"a": "x"}', None),
        ('{"a": ["x"]}', None),
        ("[]", None),
        ("{}", None),
        ("7", None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_parse_report(text: str, expected: list[dict[str, str]] | None) -> None:
    assert parse.parse_report(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Missing disc.", "missing_disc"),
        ("It shows a FLASHOVER BURN", "flashover-burn"),
        ("a broken disc", "broken disc"),
        ("Two broken discs can be seen; both are broken discs.", "broken disc"),
        ("No defect.", "no defect"),
        ("There is no defect in the picture", "no defect"),
        ("There is no flashover burn.", None),
        ("It isn't a broken disc.", None),
        ("A flashover burn? No.", None),
        ("A flashover burn or a missing disc", None),
        ("A broken disc. The rest is not damaged.", "broken disc"),
        ("discovery", None),
        ("a bird nest", None),
        ("", None),
    ],
)
def test_parse_class(text: str, expected: str | None) -> None:
    assert parse.parse_class(text, KINDS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top", "top"),
        ("At the top centre.", "top"),  # what an earlier version called it
        ("in the upper middle", "top"),
        ("It is in the bottom center of the picture", "bottom"),
        ("in the middle", "centre"),
        ("upper left", "top left"),
        ("on the left", "left"),
        ("center left", "left"),
        ("at the top left", "top left"),
        ("left or right", None),
    ],
)
def test_places_have_several_names(text: str, expected: str | None) -> None:
    assert parse.parse_class(text, PLACES) == expected
    earlier = {"top": "top centre", "bottom": "bottom centre"}  # in its truth files
    renamed = earlier.get(expected or "", expected)
    assert parse.parse_class(text, [earlier.get(name, name) for name in PLACES]) == renamed
    assert parse.parse_class("the middle", ["centre", "edge"]) is None, "no places"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        ("three", 3),
        ("There are 3 discs.", 3),
        ("Three (3)", 3),
        ("twenty-one discs", 21),
        ("Seventeen", 17),
        ("None.", 0),
        ("There are no discs.", 0),
        ("**12**", 12),
        ("3개", 3),
        ("12개입니다.", 12),
        ("3번째", None),
        ("3 of 9", None),
        ("3-4", None),
        ("3.5", None),
        ("-3", None),
        ("the 3rd", None),
        ("at least 3", None),
        ("not 3", None),
        ("a dozen", None),
        ("9" * 5000, None),
        ("many", None),
    ],
)
def test_parse_count(text: str, expected: int | None) -> None:
    assert parse.parse_count(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("It is at [0.100, 0.200, 1.000, 0.400].", (0.1, 0.2, 1.0, 0.4)),
        ("[0.1, 0.2, 0.3, 0.4] [0.5, 0.2, 0.7, 0.4]", None),
        ("[0.1, 0.2, 0.3]", None),
        ("[0.1, 0.2, 0.1, 0.4]", None),
        ("[10, 20, 30, 40]", None),
        ("nowhere", None),
    ],
)
def test_parse_box(text: str, expected: tuple[float, ...] | None) -> None:
    assert parse.parse_box(text) == expected


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert parse.parse_yes_no(text) in ("yes", "no", None)
    assert parse.parse_class(text, KINDS) in (*KINDS, None)
    count = parse.parse_count(text)
    assert count is None or count >= 0
    box = parse.parse_box(text)
    assert box is None or 0 <= min(box) < max(box) <= 1
    assert parse.parse_yes_no(text, ("да", "нет")) in ("yes", "no", None)
    assert parse.parse_letter(text, "ABC") in ("A", "B", "C", None)
    assert parse.parse_report(text) is None or text.strip()
    assert parse.token_f1(text, text) == 1


@given(st.integers(0, 999_999), st.sampled_from(["{}", "There are {} discs.", " ({}) ", "Count: {}!"]))
def test_every_number_is_read_back(number: int, form: str) -> None:
    assert parse.parse_count(form.format(number)) == number


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["{}", "{}.", "The kind is: {}.", "I see a {} here"]),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_every_class_is_read_back(kind: str, form: str, case: Any) -> None:
    assert parse.parse_class(case(form.format(kind)), KINDS) == kind


@given(st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_two_classes_are_no_answer(first: str, second: str) -> None:
    expected = first if first == second else None
    assert parse.parse_class(f"{first} or {second}", KINDS) == expected


def test_classes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match="told apart"):
        parse.parse_class("x", ["a_b", "A b"])


def test_token_f1_by_hand() -> None:
    # 3 shared words of 4 given and 5 wanted
    assert parse.token_f1("a burn, the disc", "The disc has a crack") == pytest.approx(2 * 3 / 9)
    assert parse.token_f1("disc disc", "disc") == pytest.approx(2 / 3)
    assert parse.token_f1("", "disc") == 0
