"""Options of multiple-choice questions: none is likelier to be right than another where it is shown."""

import random
from collections import Counter

import pytest

from data_prep.annotations import Shape
from data_prep.questions.options import deal_options
from data_prep.questions.select import COMMON_OPTION, make_questions
from data_prep.source_folder import Split
from tests.support.units import CRACK, asked_of, make_unit, only


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_option_is_right_as_often_as_the_others_where_it_is_shown(split: Split) -> None:
    """Neither the texts of the options nor what they stand beside tell the right one."""
    kinds = {"blowhole": 40, "break": 25, "crack": 20, "fray": 11, "uneven": 9}
    family = {"options": 3, "questions": ["Which? {options}", "Choose: {options} Answer."], "times": 2}
    recipe = only("choice", family, defects=[{"name": kind} for kind in kinds])
    boxes = [Shape(kind, (20, 20, 40, 40)) for kind, number in kinds.items() for _ in range(number)]
    units = [make_unit(n, *boxes[n : n + 1]) for n in range(200)]  # 95 of them sound
    items, skipped = make_questions(units, recipe, split, 0)
    shown, right, within = Counter[str](), Counter[str](), Counter[tuple[tuple[str, ...], str]]()
    for item in items:
        answer = item.options["ABC".index(item.answer)]
        assert answer == (item.unit.kinds[0] if item.unit.kinds else "none")
        assert len(set(item.options)) == 3
        shown.update(item.options)
        right[answer] += 1
        within[tuple(sorted(item.options)), answer] += 1
    for text, number in right.items():
        assert abs(shown[text] - 3 * number) <= 4, text  # two questions at most are not in a whole set
    for (options, _), number in within.items():
        assert sum(within[options, text] for text in options) <= 3 * number + 4
    # Too many pictures are sound for that: of those some are not asked about, and of nothing else.
    times = 2 if split == "train" else 1
    left_out = skipped[f"choice: {COMMON_OPTION}"]
    assert left_out == 200 * times - len(items) and right["none"] == (95 * times) - left_out
    assert right.total() - right["none"] == 105 * times


def test_options_begin_on_lines_of_their_own() -> None:
    recipe = only("choice", {"questions": ["Which? {options} Answer with the letter."], "options": 2})
    (item,) = asked_of(recipe, make_unit(0, CRACK))
    first, *options, last = item.question.split("\n")
    assert (first, last) == ("Which?", "Answer with the letter.")
    assert [option[:3] for option in options] == ["A. ", "B. "]
    assert options["AB".index(item.answer)].endswith("crack")


def test_no_option_is_the_best_guess_where_all_are_shown() -> None:
    rights = ["none"] * 50 + ["crack"] * 11 + ["moss"] * 10
    options = deal_options(rights, ["none", "crack", "moss"], 3, random.Random(0))
    asked = Counter(right for right, shown in zip(rights, options, strict=True) if shown)
    assert set(asked) == set(rights) and max(asked.values()) <= 11
    assert all(sorted(shown) == ["crack", "moss", "none"] for shown in options if shown)
