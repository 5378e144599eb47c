"""What the verdicts say of models whose worth is known beforehand."""

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.phrases import percent, percentage_points, probability
from eval.report.verdict import HEADLINES, Verdict, make_verdict, summarise_standings
from eval.scoring.schema import TaskScore
from llava.common.records import TaskType, Truth
from tests.support.made_scores import answers_of, scores_of, truths_of

ABOUT = {"meta": {"about": "defect"}}
KINDS = ["crack", "rust", "nest", "none"]


def presence(yes: int, no: int) -> list[Truth]:
    return truths_of("presence", "yesno", ["yes"] * yes + ["no"] * no, **ABOUT)


def judged(truths: list[Truth], texts: Sequence[str | None], base: Sequence[str] | None = None) -> Verdict:
    return make_verdict(task_of(truths, texts, base), "picture")


def task_of(truths: list[Truth], texts: Sequence[str | None], base: Sequence[str] | None = None) -> TaskScore:
    other = answers_of("base", truths, base) if base else None
    return scores_of(truths, answers_of("tuned", truths, texts), other).tasks[0]


def test_what_was_found_is_said_in_counts_with_what_would_not_surprise() -> None:
    truths = presence(74, 76)
    texts = ["yes"] * 63 + ["no"] * 11 + ["yes"] * 10 + ["no"] * 66
    task = task_of(truths, texts)
    said = make_verdict(task, "picture")
    assert said.standing == "care"
    recall = task.tuned.per_class[0].recall if task.tuned.per_class else None
    assert recall and recall.low and recall.high
    low, high = f"{100 * recall.low:.0f}%", f"{100 * recall.high:.0f}%"
    assert said.lines[0] == (
        f"Of 74 pictures with a defect it found 63 (85%; could be {low} to {high}), and missed 11."
    )
    assert said.lines[1].startswith("Of 76 pictures without one it said yes to 10 (13%; could be ")
    assert said.lines[2] == "When it said yes, it was right 63 times in 73; when it said no, 66 in 77."


def test_a_model_that_says_yes_to_everything_is_not_to_be_relied_on() -> None:
    said = judged(presence(90, 10), ["yes"] * 100)
    assert said.standing == "not"
    assert said.reason == "it answers “yes” to everything, whatever the picture shows"
    assert "When it said yes, it was right 90 times in 100." in said.lines


def test_a_perfect_model_is_relied_on_if_there_are_images_enough() -> None:
    def perfect(yes: int, no: int) -> Verdict:
        return judged(presence(yes, no), [truth.answer for truth in presence(yes, no)])

    assert perfect(100, 100).standing == "rely"
    assert perfect(100, 100).reason.startswith(
        "finds 100% (could be 96% to 100%) of those with a defect; false"
    )
    few = perfect(12, 12)  # 12 of 12 may be a model that finds three in four
    assert few.standing == "care" and "on too few pictures to promise that" in few.reason
    assert (
        perfect(5, 5).standing == "unclear" and "10 independent pictures are too few" in perfect(5, 5).reason
    )


def test_a_model_that_answers_like_a_coin_is_no_better_than_a_guess() -> None:
    truths = presence(60, 60)
    said = judged(truths, ["yes", "no"] * 60)
    assert said.standing == "not" and "guess without looking: " in said.reason
    assert "against 50%" in said.reason


def test_a_model_that_misses_most_is_not_relied_on_though_it_looks() -> None:
    truths = presence(80, 80)
    said = judged(truths, ["yes"] * 30 + ["no"] * 50 + ["no"] * 80)
    assert said.standing == "not" and said.reason.startswith("it missed more than it found: finds 38% ")
    loud = judged(truths, ["yes"] * 80 + ["yes"] * 50 + ["no"] * 30)
    assert loud.standing == "not" and loud.reason.startswith("it raised a false alarm more often than not")


def test_answers_that_cannot_be_understood() -> None:
    said = judged(presence(40, 40), ["perhaps"] * 80)
    assert (said.standing, said.reason) == ("not", "none of its answers could be understood")
    assert said.lines[0] == "80 of its 80 answers could not be understood; they count as wrong."
    some = judged(presence(40, 40), ["yes"] * 35 + ["perhaps"] * 5 + ["no"] * 38 + [None, None])
    assert "5 of its 80 answers could not be understood; they count as wrong." in some.lines
    assert "2 of 80 questions have no answer; they count as wrong." in some.lines


def test_a_test_with_one_true_answer_tells_nothing() -> None:
    said = judged(presence(50, 0), ["yes"] * 50)
    assert said.standing == "unclear" and "a model that never looks could give it" in said.reason


def test_kinds_that_are_missed_are_named() -> None:
    answers = [kind for kind in KINDS for _ in range(30)]
    truths = truths_of("kind", "class", answers, classes=KINDS)
    texts = ["crack"] * 12 + ["none"] * 15 + ["rust"] * 3 + ["rust"] * 30 + ["nest"] * 30
    said = judged(truths, [*texts, *["none"] * 30])
    assert said.standing == "care" and said.reason.endswith("; weakest: crack 12 of 30")
    assert "By true answer: rust 30 of 30, nest 30 of 30, none 30 of 30, crack 12 of 30." in said.lines
    assert "Crack was missed more often than found; it was taken for “none” 15 times." in said.lines


def test_kinds_among_yes_answers_come_from_what_the_images_show() -> None:
    labels = ["crack"] * 30 + ["rust"] * 30 + ["none"] * 60
    truths = truths_of("presence", "yesno", ["yes"] * 60 + ["no"] * 60, label=labels, **ABOUT)
    said = judged(truths, ["yes"] * 10 + ["no"] * 20 + ["yes"] * 30 + ["no"] * 60)
    assert "Found by kind: rust 30 of 30, crack 10 of 30." in said.lines
    assert "Crack was missed more often than found." in said.lines
    assert said.reason.endswith("; weakest: crack 10 of 30")


def test_every_headline_has_words() -> None:
    said = {
        "class": ("a", {"classes": ["a", "b"]}),
        "yesno": ("yes", {}),
        "count": ("1", {}),
        "box": ("[0.1, 0.1, 0.2, 0.2]", {}),
        "text": ("a", {}),
        "json": ('{"a": "b"}', {}),
    }
    assert set(said) == set(get_args(TaskType))
    for kind, (answer, more) in said.items():
        truths = truths_of(kind, kind, [answer], **more)
        assert task_of(truths, [answer]).headline in HEADLINES
        assert make_verdict(task_of(truths, [answer])).lines


def test_letters_are_no_kinds() -> None:
    truths = truths_of("choice", "class", ["A"] * 30 + ["B"] * 30, classes=["A", "B"])
    said = judged(truths, ["A"] * 10 + ["B"] * 20 + ["B"] * 30)
    assert not [line for line in said.lines if "A 10 of 30" in line]


@pytest.mark.parametrize(
    ("tuned", "base", "line"),
    [
        (70, 40, "Better than the base model: 94% against 75%, by "),
        (40, 70, "WORSE than the base model: 75% against 94%, by "),
        (70, 70, "In this test no better and no worse than the base model (94%)."),
        (62, 60, "Not shown to be better than the base model: "),
    ],
)
def test_base_and_tuned_are_compared_in_words(tuned: int, base: int, line: str) -> None:
    def said(right: int, shift: int) -> list[str]:
        # Which are missed differs, where the two should not be the same model.
        found = ["yes" if (number + shift) % 80 < right else "no" for number in range(80)]
        return [*found, *["no"] * 80]

    shift = 0 if tuned == base else 20
    assert any(
        part.startswith(line) for part in judged(presence(80, 80), said(tuned, 0), said(base, shift)).lines
    )


def test_no_verdict_against_base_where_a_guess_does_as_well() -> None:
    """Two texts that are alike: tuned is far above base, and so is whoever always says that text."""
    truths = truths_of("describe", "text", ["A sound insulator."] * 2)
    task = task_of(truths, ["A sound insulator."] * 2, ["xyz"] * 2)
    assert (task.outcome, task.sees, task.majority["token_f1"]) == ("blind", False, 1.0)
    assert task.verdict.startswith("no verdict: +1.00 [") and task.verdict.endswith("looking (1.00)")
    assert "not shown to be better than a guess without looking" in make_verdict(task).lines[-1]
    other = answers_of("base", truths, ["xyz"] * 2)
    whole = scores_of(truths, answers_of("tuned", truths, ["A sound insulator."] * 2), other).verdict
    assert whole == "No verdict on describe: above base, but a guess without looking may do as well."


def test_a_test_too_small_says_how_many_it_would_take() -> None:
    truths = presence(30, 30)
    tuned = ["yes"] * 27 + ["no"] * 33
    task = task_of(truths, tuned, ["yes"] * 24 + ["no"] * 3 + ["yes"] * 2 + ["no"] * 31)
    assert task.needed_groups and task.needed_groups > 60
    (line,) = [line for line in make_verdict(task).lines if line.startswith("Not shown")]
    assert "This test is too small to tell: it has 60 independent pictures, some " in line


def test_counting_no_better_than_the_commonest_number() -> None:
    truths = truths_of("count", "count", ["1"] * 60 + ["2"] * 40)
    said = judged(truths, ["1"] * 58 + ["2", "2"] + ["1"] * 36 + ["2"] * 4)
    assert said.standing == "not" and "guess without looking" in said.reason
    assert said.lines[0].startswith("It counted exactly on 62 of 100 pictures (62%; could be ")
    assert "without looking, earns 60%" in said.lines[0]


def test_free_text_is_never_relied_on_by_its_words() -> None:
    words = [f"a {kind} on disc {number}" for number in range(40) for kind in ("crack", "nest")]
    said = judged(truths_of("describe", "text", words), list(words))
    assert said.standing == "care" and "shared words do not tell" in said.reason


def test_boxes_in_words() -> None:
    truths = truths_of("box", "box", ["[0.1, 0.1, 0.5, 0.5]", "[0.5, 0.5, 0.9, 0.9]"] * 20)
    said = judged(truths, ["[0.1, 0.1, 0.5, 0.5]"] * 40)
    assert said.lines[0].startswith("Its box met the true one by half or more on 20 of 40 pictures (50%; ")


def test_the_summary_names_every_task_once() -> None:
    truths = [*presence(100, 100), *truths_of("count", "count", ["1"] * 60 + ["2"] * 40)]
    texts = [truth.answer if truth.task == "presence" else "1" for truth in truths]
    scores = scores_of(truths, answers_of("tuned", truths, texts))
    assert summarise_standings(scores) == "Rely on it for: presence. Do not rely on it for: count."


@given(st.floats(0, 1))
def test_percents_never_round_to_certainty(value: float) -> None:
    shown = percent(value)
    assert (shown == "0%") == (value == 0) and (shown == "100%") == (value == 1)


@given(st.floats(1e-6, 1 - 1e-6).map(lambda value: round(value, 6)))
def test_probabilities_are_never_shown_as_certain_nor_rounded_up(value: float) -> None:
    shown = float(probability(value))
    assert 0 < shown <= value and shown == pytest.approx(value, abs=0.01 * min(value, 1 - value))


def test_points_have_a_sign_but_for_nothing() -> None:
    assert [percentage_points(value) for value in (0.123, -0.123, 0.001, -0.001)] == ["+12", "−12", "0", "0"]


def test_small_numbers_are_said_in_good_grammar() -> None:
    said = judged(presence(3, 2), ["yes", "no", "no", "no", "no"])
    assert "When it said yes, it was right 1 time in 1; when it said no, 2 in 4." in said.lines
    never = judged(presence(3, 2), ["no"] * 5)
    assert "When it said no, it was right 2 times in 5." in never.lines
    classes = truths_of("kind", "class", ["crack"] * 6 + ["none"] * 6, classes=KINDS)
    lines = judged(classes, ["none"] * 12).lines
    assert "Crack was never found; it was taken for “none” 6 times." in lines


def test_misses_and_finds_are_two_sides_of_one_interval() -> None:
    """On few pictures resampling alone would call the misses surer than the finds."""
    task = task_of(presence(10, 10), ["yes"] * 2 + ["no"] * 8 + ["yes"] + ["no"] * 9)
    assert task.tuned.per_class
    for name, row in zip(("miss", "over_call"), task.tuned.per_class, strict=True):
        rate, recall = task.tuned.metrics[name], row.recall
        assert recall and None not in (recall.low, recall.high)
        assert (rate.value, rate.low, rate.high) == pytest.approx(
            (1 - recall.value, 1 - (recall.high or 0), 1 - (recall.low or 0)), abs=1e-5
        )


def test_on_few_images_the_same_score_as_the_base_is_no_more_than_that() -> None:
    texts = ["yes", "no", "no"]
    said = judged(presence(2, 1), texts, texts)
    assert said.lines[-1] == (
        "In this test no better and no worse than the base model (75%). That is 3 independent pictures: too "
        "few to say more."
    )
