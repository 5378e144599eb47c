"""Metrics against hand-computed values and against plain loops; intervals against what they promise."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scoring.intervals import (
    Z95,
    bootstrap,
    combined_interval,
    number_groups,
    percentile_interval,
    wilson_interval,
)
from eval.scoring.metrics import (
    box_metrics,
    box_rows,
    class_counts,
    class_metrics,
    confusion_rows,
    count_metrics,
    count_rows,
    iou,
    majority_class_metrics,
    random_guess_metrics,
    yes_no_metrics,
)

# Truth: 4 x a, 3 x b, 1 x c. Answers (columns a, b, c, unparsed).
HAND = np.array([[3, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]], dtype=float)


def test_class_metrics_by_hand() -> None:
    values = class_metrics(HAND.reshape(-1), 3)
    assert values["accuracy"] == pytest.approx(4 / 8)
    assert values["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    # F1: a 2*3/(4+4), b 2*1/(2+3), c 0/(0+1)
    assert values["macro_f1"] == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)
    assert values["parsed"] == pytest.approx(6 / 8)
    counts = class_counts(HAND)
    assert counts.support.tolist() == [4, 3, 1]
    assert counts.answered.tolist() == [4, 2, 0]
    assert counts.precision[:2].tolist() == [3 / 4, 1 / 2]
    assert math.isnan(counts.precision[2])


def test_yes_no_metrics_by_hand() -> None:
    # yes: 6 said yes, 2 said no, 2 unparsed; no: 3 said yes, 7 said no
    values = yes_no_metrics(np.array([6, 2, 2, 3, 7, 0], dtype=float))
    assert values["over_call"] == pytest.approx(0.3)
    assert values["miss"] == pytest.approx(0.4)
    assert values["says_yes"] == pytest.approx(9 / 20)
    assert values["balanced_accuracy"] == pytest.approx((0.6 + 0.7) / 2)


def test_classes_absent_from_the_truth_are_left_out_of_the_means() -> None:
    values = class_metrics(np.array([[2, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]], dtype=float).reshape(-1), 3)
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert values["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_count_metrics_by_hand() -> None:
    rows = count_rows(np.array([3, 5, 7, 2]), np.array([3, 6, 4, -1]))
    values = count_metrics(rows.sum(axis=0))
    assert values["exact"] == 1 / 4
    assert values["within_one"] == 2 / 4
    assert values["mean_abs_error"] == pytest.approx(4 / 3)
    assert values["parsed"] == 3 / 4


def test_box_metrics_by_hand() -> None:
    truth = np.array([[0, 0, 0.2, 0.2], [0, 0, 0.2, 0.2], [0, 0, 0.2, 0.2], [0, 0, 1, 1]])
    said = np.array([[0, 0, 0.2, 0.1], [0.1, 0.1, 0.3, 0.3], [np.nan] * 4, [0, 0, 1, 1]])
    overlap = iou(said, truth)
    assert overlap[[0, 1, 3]].tolist() == pytest.approx([1 / 2, 1 / 7, 1])
    assert math.isnan(overlap[2])
    values = box_metrics(box_rows(overlap).sum(axis=0))
    assert values["mean_iou"] == pytest.approx((1 / 2 + 1 / 7 + 0 + 1) / 4)
    assert values["acc_50"] == 2 / 4
    assert values["parsed"] == 3 / 4


def brute_force(truth: list[int], answers: list[int], classes: int) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy and macro-F1 by loops over questions."""
    recalls, f1s = [], []
    for c in range(classes):
        tp = sum(t == c and a == c for t, a in zip(truth, answers, strict=True))
        fn = sum(t == c and a != c for t, a in zip(truth, answers, strict=True))
        fp = sum(t != c and a == c for t, a in zip(truth, answers, strict=True))
        if tp + fn:
            recalls.append(tp / (tp + fn))
            precision = tp / (tp + fp) if tp + fp else 0.0
            f1s.append(2 * precision * recalls[-1] / (precision + recalls[-1]) if tp else 0.0)
    right = sum(t == a for t, a in zip(truth, answers, strict=True))
    return right / len(truth), sum(recalls) / len(recalls), sum(f1s) / len(f1s)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=40))
def test_class_metrics_agree_with_loops(pairs: list[tuple[int, int]]) -> None:
    truth, answers = [t for t, _ in pairs], [a for _, a in pairs]
    values = class_metrics(confusion_rows(np.array(truth), np.array(answers), 4).total(), 4)
    expected = brute_force(truth, answers, 4)
    found = (values["accuracy"], values["balanced_accuracy"], values["macro_f1"])
    assert [float(value) for value in found] == pytest.approx(list(expected))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_majority_is_what_the_constant_answer_scores(truth: list[int]) -> None:
    support = np.bincount(truth, minlength=4).astype(float)
    expected = brute_force(truth, [int(support.argmax())] * len(truth), 4)
    found = majority_class_metrics(support)
    assert list(found.values()) == pytest.approx(list(expected))


def test_random_guessing_agrees_with_a_simulation() -> None:
    truth = [0] * 6000 + [1] * 3000 + [2] * 1000
    draw = random.Random(0)
    expected = brute_force(truth, [draw.randrange(3) for _ in truth], 3)
    found = random_guess_metrics(np.bincount(truth).astype(float))
    assert list(found.values()) == pytest.approx(list(expected), abs=0.02)


def test_bootstrap_agrees_with_resampling_the_questions_one_by_one() -> None:
    """The matrix of counts gives what copying the drawn groups' questions gives, draw for draw."""
    draw = random.Random(3)
    truth = [draw.randrange(3) for _ in range(60)]
    answers = [draw.choice([t, t, -1, 0]) for t in truth]
    groups = [f"g{draw.randrange(12)}" for _ in truth]
    rows = confusion_rows(np.array(truth), np.array(answers), 3)
    numbers, names = number_groups(groups)
    sums = rows.group_sums(numbers, len(names))
    (values,) = bootstrap([lambda drawn: class_metrics(sums.resample(drawn), 3)], len(names), 50, [7])
    counts = np.random.default_rng([7]).multinomial(len(names), [1 / len(names)] * len(names), size=50)
    for resample in range(50):
        picked = [
            i for i, group in enumerate(groups) for _ in range(int(counts[resample, names.index(group)]))
        ]
        expected = brute_force([truth[i] for i in picked], [answers[i] for i in picked], 3)
        found = [float(values[k][resample]) for k in ("accuracy", "balanced_accuracy", "macro_f1")]
        assert found == pytest.approx(list(expected))


def accuracy_interval(right: np.ndarray, groups: list[str], seed: int = 0) -> tuple[float, float]:
    rows = confusion_rows(np.zeros(len(right), dtype=np.int64), np.where(right, 0, 1), 2)
    numbers, names = number_groups(groups)
    sums = rows.group_sums(numbers, len(names))
    (draws,) = bootstrap([lambda drawn: class_metrics(sums.resample(drawn), 2)], len(names), 1000, [seed])
    interval = percentile_interval(draws["accuracy"])
    assert interval is not None
    return interval


def test_answers_that_fail_together_widen_the_interval() -> None:
    """8 questions of one picture that are all right or all wrong are one observation, not eight."""
    right = np.repeat(np.random.default_rng(0).random(50) < 0.7, 8)
    images = [f"p{i // 8}" for i in range(400)]
    alone = [f"q{i}" for i in range(400)]
    low, high = accuracy_interval(right, images)
    alone_low, alone_high = accuracy_interval(right, alone)
    assert low <= right.mean() <= high
    # The standard error grows by sqrt(8) = 2.8.
    assert 2.2 < (high - low) / (alone_high - alone_low) < 3.5


def test_intervals_cover_the_truth_about_19_times_in_20() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        right = np.repeat(generator.random(60) < 0.7, 3)
        low, high = accuracy_interval(right, [f"p{i // 3}" for i in range(180)], seed=trial)
        covered += low <= 0.7 <= high
    assert 87 <= covered <= 100


def test_an_interval_is_refused_where_all_resamples_are_alike() -> None:
    assert percentile_interval(np.ones(100)) is None
    assert percentile_interval(np.full(100, np.nan)) is None


def test_wilson_by_hand() -> None:
    # The textbook example 8 of 10: [0.4902, 0.9433]
    assert wilson_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(1.0, 45) == pytest.approx((45 / (45 + Z95**2), 1.0))


@settings(max_examples=50)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(case: tuple[int, int]) -> None:
    right, n = case
    low, high = wilson_interval(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    assert high > low


def test_combined_interval_by_hand() -> None:
    # Newcombe 1998, table II, example 56/70 - 48/80: method 10 gives [0.0524, 0.3339]
    low, high = combined_interval(
        56 / 70, wilson_interval(56 / 70, 70), 48 / 80, wilson_interval(48 / 80, 80)
    )
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
