"""Learning curves: the promised range holds what comes, and nothing is promised where nothing can be told."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.curve_simulated import SIZES, coverage
from eval.scoring.answers import AnswerFile
from eval.scoring.learning_curve import LearningCurve, ScoredParts, make_curve, score_parts
from llava.common.records import Answer, InputFile, Truth


@pytest.mark.parametrize(("groups", "training_noise", "widest"), [(60, 0.01, 0.28), (400, 0.02, 0.18)])
def test_nine_ranges_in_ten_hold_the_score_at_twice_the_photos(
    groups: int, training_noise: float, widest: float
) -> None:
    held, width, _ = coverage(groups, training_noise, 80)
    assert min(held) >= 67 / 80  # 90% of 80 is 72, with a standard deviation of 2.7
    assert width < widest


def curve(
    values: list[float], groups: int, sizes: tuple[int, ...] = SIZES, noise: float = 0.03
) -> LearningCurve:
    draws = np.array(values) + np.random.default_rng(0).normal(0, noise, (500, len(values)))
    return make_curve(sizes, ScoredParts("kind", "accuracy", groups, np.array(values), draws))


def test_it_goes_on_rising_by_less_and_less() -> None:
    rising = curve([0.6, 0.7, 0.77, 0.82], 200, noise=0.01)
    assert rising.expected is not None
    assert 0.82 < rising.expected.value < 0.89
    assert len(rising.measured) == 4 and rising.band[-1] == rising.expected


@pytest.mark.parametrize(
    ("values", "groups", "sizes", "why"),
    [
        ([0.6, 0.8], 200, (50, 100), "2 sizes are no curve"),
        ([0.6, 0.7, 0.77, 0.82], 19, SIZES, "only 19 independent test photos"),
        ([0.8, 0.79, 0.81, 0.8], 200, SIZES, "no rise beyond chance"),
        ([0.8, 0.7, 0.6, 0.5], 200, SIZES, "no rise beyond chance"),
    ],
)
def test_where_nothing_can_be_told_it_says_so(
    values: list[float], groups: int, sizes: tuple[int, ...], why: str
) -> None:
    told = curve(values, groups, sizes)
    assert told.expected is None and why in told.why_not


def test_a_perfect_score_is_no_certainty() -> None:
    """All resamples of a perfect score are alike."""
    values = np.array([0.6, 0.9, 1.0, 1.0])
    draws = values + np.array([0.03, 0.02, 0, 0]) * np.random.default_rng(0).standard_normal((500, 4))
    expected = make_curve(SIZES, ScoredParts("kind", "accuracy", 40, values, draws)).expected
    assert expected is not None and expected.low < 0.99 and expected.high == 1


def test_a_task_and_the_classes_with_enough_test_photos_are_scored() -> None:
    kinds = ["crack"] * 25 + ["rust"] * 30 + ["nest"] * 4
    truths = [
        Truth(
            question_id=i,
            answer=kind,
            task="kind",
            type="class",
            group=str(i),
            classes=["crack", "rust", "nest"],
        )
        for i, kind in enumerate(kinds)
    ]

    def answers(right: int) -> AnswerFile:
        """The first so many of each kind are right."""
        seen = dict.fromkeys(kinds, 0)
        made = {}
        for i, kind in enumerate(kinds):
            seen[kind] += 1
            text = kind if seen[kind] <= right else "none of these"
            made[str(i)] = Answer(question_id=i, prompt="", text=text, answer_id="", model_id="")
        return AnswerFile("tuned", InputFile(name="", sha256="", lines=0), made)

    task, crack, rust = score_parts("kind", truths, [answers(5), answers(10)], 200)
    assert (task.name, task.metric, task.groups) == ("kind", "balanced_accuracy", 59)
    assert (crack.name, crack.metric, crack.groups) == ("kind: crack", "recall", 25)
    assert crack.values.tolist() == [0.2, 0.4] and rust.values == pytest.approx([5 / 30, 10 / 30])
    assert crack.draws.shape == (200, 2) and (crack.draws[:, 0] <= crack.draws[:, 1]).all()
