"""Metrics against scikit-learn's, as they are and under the weights of a resample."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from eval.scoring.intervals import bootstrap, group_draws
from eval.scoring.metrics import class_counts, class_metrics, confusion_rows
from eval.scoring.probabilities import (
    ChoiceProbabilities,
    calibration_metrics,
    calibration_rows,
    choose_threshold,
    class_probabilities,
    cross_fitted_thresholds,
    probability_metrics,
    ranking_metrics,
    reliability,
    resampled_metrics,
    roc_curves,
)

Ints = npt.NDArray[np.int64]


def drawn(seed: int, classes: int = 3, n: int = 60) -> tuple[Ints, Ints, Ints]:
    """Truth, answers (-1 where unparsed) and groups; every class is true somewhere."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    answers = np.where(rng.random(n) < 0.6, truth, rng.integers(-1, classes, n))
    return truth, answers, rng.integers(0, 12, n)


def weights_of(groups: Ints, seed: int = 5, resamples: int = 8) -> npt.NDArray[np.float64]:
    """How often each question is in each resample (resamples, n)."""
    (counts,) = group_draws(int(groups.max()) + 1, resamples, [seed])
    return counts[:, groups]


@pytest.mark.parametrize("seed", range(5))
def test_class_metrics(seed: int) -> None:
    truth, answers, groups = drawn(seed)
    rows = np.eye(12)[confusion_rows(truth, answers, 3).cells]
    labels = [0, 1, 2]
    for weights in (np.ones(len(truth)), *weights_of(groups)):
        found = class_metrics(weights @ rows, 3)
        known: dict[str, Any] = {"sample_weight": weights, "labels": labels, "zero_division": 0}
        present = [k for k in labels if weights[truth == k].sum()]
        counts = class_counts((weights @ rows).reshape(3, 4))
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, answers, sample_weight=weights))
        recall = sk.recall_score(truth, answers, average=None, **known)
        assert found["balanced_accuracy"] == pytest.approx(recall[present].mean())
        f1 = sk.f1_score(truth, answers, average=None, **known)
        assert found["macro_f1"] == pytest.approx(f1[present].mean())
        precision = sk.precision_score(truth, answers, average=None, **known)
        assert np.nan_to_num(counts.precision) == pytest.approx(precision)
        confusion = sk.confusion_matrix(truth, answers, labels=[0, 1, 2, -1], sample_weight=weights)
        assert (weights @ rows).reshape(3, 4) == pytest.approx(confusion[:3])
        if len(present) == 3 and (answers[weights > 0] >= 0).all():
            whole = sk.balanced_accuracy_score(truth, answers, sample_weight=weights)
            assert found["balanced_accuracy"] == pytest.approx(whole)


def make_probabilities(seed: int, classes: int, yes_no: bool, ties: bool) -> ChoiceProbabilities:
    truth, _, groups = drawn(seed, classes)
    rng = np.random.default_rng(seed)
    raw = rng.random((len(truth), classes)) + 0.8 * np.eye(classes)[truth]
    raw = raw.round(1) + 0.01 if ties else raw
    return ChoiceProbabilities(raw / raw.sum(axis=1, keepdims=True), truth, groups, yes_no)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_yes_no_probabilities(seed: int, ties: bool) -> None:
    probs = make_probabilities(seed, 2, True, ties)
    yes, probability = probs.truth == 0, probs.values[:, 0].round(2 if ties else 9)
    probs = ChoiceProbabilities(
        np.stack([probability, 1 - probability], 1), probs.truth, probs.groups, yes_no=True
    )
    rows = calibration_rows(probs)
    for weights in (np.ones(len(yes)), *weights_of(probs.groups)):
        found = ranking_metrics(probs, weights[None])
        area = sk.roc_auc_score(yes, probability, sample_weight=weights)
        assert found["auroc"][0] == pytest.approx(area)
        precision = sk.average_precision_score(yes, probability, sample_weight=weights)
        assert found["average_precision"][0] == pytest.approx(precision)
        brier = sk.brier_score_loss(yes, probability, sample_weight=weights)
        assert calibration_metrics(weights @ rows)["brier"] == pytest.approx(brier)
    (curve,) = roc_curves(probs, ["yes", "no"])
    across, up, _ = sk.roc_curve(yes, probability, drop_intermediate=False)
    points = np.array(curve.points)
    whole = {(round(x, 4), round(y, 4)) for x, y in zip(across.tolist(), up.tolist(), strict=True)}
    assert set(curve.points) <= whole and curve.points[-1] == (1, 1)  # its corners alone
    assert sk.auc(points[:, 0], points[:, 1]) == pytest.approx(sk.auc(across, up), abs=1e-3)
    assert curve.auroc == pytest.approx(sk.auc(across, up), abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_probsof_classes(ties: bool) -> None:
    probs = make_probabilities(1, 4, False, ties)
    rows = calibration_rows(probs)
    wanted = np.eye(4)[probs.truth]
    for weights in (np.ones(len(wanted)), *weights_of(probs.groups)):
        found = ranking_metrics(probs, weights[None])
        area = sk.roc_auc_score(
            wanted, probs.values, average="macro", multi_class="ovr", sample_weight=weights
        )
        assert found["auroc"][0] == pytest.approx(area)
        precision = sk.average_precision_score(wanted, probs.values, average="macro", sample_weight=weights)
        assert found["average_precision"][0] == pytest.approx(precision)
        brier = sk.brier_score_loss(
            probs.truth, probs.values, sample_weight=weights, scale_by_half=False, labels=range(4)
        )
        assert calibration_metrics(weights @ rows)["brier"] == pytest.approx(brier)


def test_expected_calibration_error_by_hand() -> None:
    # In 0.9..1 are 0.95, 0.9 and 1.0, two of them true: |2.85 - 2|. In 0.2..0.3 is 0.2, not true: 0.2.
    probability = np.array([0.95, 0.9, 0.2, 1.0])
    yes = np.array([True, False, False, True])
    probs = ChoiceProbabilities(
        np.stack([probability, 1 - probability], 1), (~yes).astype(int), np.arange(4), True
    )
    sums = calibration_rows(probs).sum(axis=0)
    assert calibration_metrics(sums)["ece"] == pytest.approx((abs(2.85 - 2) + 0.2) / 4)
    bins = reliability(probs)
    assert [(part.low, part.n, part.true) for part in bins] == [
        (0.2, 1, 0.0),
        (0.9, 3, pytest.approx(2 / 3, abs=1e-6)),
    ]


def test_ranking_by_hand() -> None:
    # yes at 0.9, 0.5; no at 0.5, 0.1: pairs 0.9 > both, 0.5 = 0.5 (half), 0.5 > 0.1
    probability, truth = np.array([0.9, 0.5, 0.5, 0.1]), np.array([0, 0, 1, 1])
    probs = ChoiceProbabilities(np.stack([probability, 1 - probability], 1), truth, np.arange(4), True)
    found = probability_metrics(probs)
    assert found["auroc"][0] == pytest.approx(3.5 / 4)
    # At 0.9: precision 1, recall + 1/2; at 0.5: precision 2/3, recall + 1/2
    assert found["average_precision"][0] == pytest.approx(1 / 2 + 2 / 3 / 2)


def test_one_class_alone_has_no_ranking() -> None:
    probs = ChoiceProbabilities(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), np.array([0, 1]), True)
    assert probs.ranked_classes == [] and roc_curves(probs, ["yes", "no"]) == []
    assert set(probability_metrics(probs)) == {"ece", "brier"}
    # In resamples that lack one of two classes AUROC does not exist, and is left out of the interval.
    both = ChoiceProbabilities(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]), np.array([0, 1]), True)
    (drawn_,) = bootstrap([resampled_metrics(both, 2)], 2, 200, [0])
    assert 60 < np.isnan(drawn_["auroc"]).sum() < 140 and np.nanmin(drawn_["auroc"]) == 1


def test_chunks_of_resamples_are_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = make_probabilities(2, 3, False, True)
    (whole,) = bootstrap([resampled_metrics(probs, 12)], 12, 40, [1, 2])
    monkeypatch.setattr("eval.scoring.probabilities.MAX_WEIGHTS", 7 * len(probs.truth))
    (parts,) = bootstrap([resampled_metrics(probs, 12)], 12, 40, [1, 2])
    for name in whole:
        assert parts[name] == pytest.approx(whole[name])


probabilities = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40)


@given(probabilities, st.integers(0, 99))
def test_the_threshold_keeps_the_promise_and_no_higher_one_does(
    pairs: list[tuple[int, bool]], percent: int
) -> None:
    probability = np.array([value / 20 for value, _ in pairs] + [0.5])
    yes = np.array([flag for _, flag in pairs] + [True])
    rate = percent / 100
    found = choose_threshold(probability, yes, rate)
    allowed = rate * yes.sum() + 1e-9
    assert (probability[yes] < found).sum() <= allowed
    higher = probability[yes][probability[yes] > found]
    assert not len(higher) or (probability[yes] < higher.min()).sum() > allowed


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_no_question_chooses_its_own_threshold(seed: int, groups: int) -> None:
    """Changing one group's probabilities never changes the threshold that the group is held against."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), 2)
    truth = np.tile([0, 1], groups)
    probability = rng.random(len(group))

    def thresholds(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = cross_fitted_thresholds(
            ChoiceProbabilities(np.stack([values, 1 - values], 1), truth, group, True), 0.1, 3
        )
        assert found is not None
        return found[0]

    before = thresholds(probability)
    changed = int(rng.integers(groups))
    after = thresholds(np.where(group == changed, rng.random(len(group)), probability))
    assert (before[group == changed] == after[group == changed]).all()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["yes", "no", "x"]), inner),
    max_leaves=5,
)


@given(json_values)
def test_any_choices_are_read_or_refused(found: object) -> None:
    values = class_probabilities(found, ["yes", "no"], lambda text: text if text in ("yes", "no") else None)
    assert values is None or (sum(values) == pytest.approx(1, abs=1e-3) and min(values) >= 0)
    assert class_probabilities({"yes": 10**400}, ["yes"], str) is None


def test_choices_are_read_as_answers_are() -> None:
    def read(text: str) -> str | None:
        return {"yes": "yes", "no": "no"}.get(text.casefold())

    assert class_probabilities({"Yes": 0.7, "no": 0.3}, ["yes", "no"], read) == [0.7, 0.3]
    assert class_probabilities({"no": 1, "yes": 3}, ["yes", "no"], read) == [0.75, 0.25]  # not yet shares
    assert class_probabilities({"no": 1.0}, ["yes", "no"], read) == [0, 1]
    refused: list[object] = [None, {}, [0.5], {"yes": 0.5, "maybe": 0.5}, {"yes": "0.5", "no": 0.5}]
    refused += [{"yes": float("nan"), "no": 1}, {"yes": -0.1, "no": 1.1}, {"yes": 0, "no": 0}, {"yes": True}]
    for found in refused:
        assert class_probabilities(found, ["yes", "no"], read) is None
