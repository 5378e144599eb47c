"""Metrics of the choices' probabilities: ranking, calibration, and a threshold for P(yes).

Ranking metrics depend on the order of all questions. They are computed for all resamples at once: the
questions are sorted once, and a resample is a weight per question (how often its group was drawn). Questions
of equal probability count half against each other. Undefined values (one class alone) are NaN.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scoring.intervals import group_draws
from eval.scoring.metrics import Array, Bools, Ints, Metrics, mean_where, ratio
from eval.scoring.schema import ReliabilityBin, RocCurve

BINS = 10  # of equal width, for calibration
FOLDS = 5  # of the cross-fitted threshold
_CURVE_POINTS = 101
_MAX_WEIGHTS = 2_000_000  # of resamples that are ranked at a time, 16 MB


@dataclass(frozen=True)
class ChoiceProbabilities:
    """Holds probabilities (n, k) over k classes, the true class (n,) and the group (n,) of each question.

    Where `yes_no` is set, the first class is yes, and P(yes) is what is ranked and calibrated; otherwise each
    class is ranked against the rest, and the probability of the likeliest class is calibrated.
    """

    values: Array
    truth: Ints
    groups: Ints
    yes_no: bool

    def subset(self, chosen: Bools) -> ChoiceProbabilities:
        """Return the chosen questions alone; groups keep their numbers."""
        return ChoiceProbabilities(
            self.values[chosen], self.truth[chosen], self.groups[chosen], yes_no=self.yes_no
        )

    @property
    def ranked_classes(self) -> list[int]:
        """The classes that can be ranked: those that are true of some questions and not of others."""
        classes = [0] if self.yes_no else range(self.values.shape[1])
        return [c for c in classes if 0 < (self.truth == c).sum() < len(self.truth)]

    @property
    def calibration_targets(self) -> tuple[Array, Array]:
        """The probability (n,) whose calibration is measured, and 1 where it came true."""
        if self.yes_no:
            return self.values[:, 0], (self.truth == 0).astype(np.float64)
        likeliest = self.values.argmax(axis=1)
        return self.values.max(axis=1), (likeliest == self.truth).astype(np.float64)


def parse_probability(value: object) -> float | None:
    """Return a number from 0 up; None for anything else that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None


def class_probabilities(
    choices: object, classes: Sequence[str], reader: Callable[[str], str | None]
) -> list[float] | None:
    """Return a probability per class from `metadata.choices`; None where they give none.

    Every choice must be one of the classes, as `reader` reads it; classes that were no choice get 0. Numbers
    that do not add up to 1 are divided by their sum.
    """
    if not isinstance(choices, Mapping) or not choices:
        return None
    values = dict.fromkeys(classes, 0.0)
    for choice, value in choices.items():
        name = reader(str(choice))
        number = parse_probability(value)
        if name is None or number is None:
            return None
        values[name] += number
    total = sum(values.values())
    if not 0 < total < math.inf:
        return None
    # The engine's own are rounded to six places; dividing would move them in the seventh.
    return list(values.values()) if abs(total - 1) < 1e-3 else [value / total for value in values.values()]


# --- ranking -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranking:
    """Holds the questions by falling probability: their order (n,), and where runs of equal ones begin."""

    order: Ints
    starts: Ints
    positive: Array

    @classmethod
    def of(cls, probability: Array, positive: Bools) -> _Ranking:
        order = np.argsort(-probability, kind="stable")
        falling = probability[order]
        starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
        return cls(order, starts, positive[order].astype(np.float64))

    def counts(self, weights: Array) -> tuple[Array, Array]:
        """Add up weights (r, n) of the positive and of all questions in each run: (r, runs) each."""
        ordered = weights[:, self.order]
        totals = np.add.reduceat(ordered, self.starts, axis=1)
        return np.add.reduceat(ordered * self.positive, self.starts, axis=1), totals


def auroc(hits: Array, totals: Array) -> Array:
    """Return the area under the ROC curve from weights (r, runs) of the positive and of all questions.

    It is the probability that a positive ranks above a negative, equals counting half (Mann and Whitney,
    1947). Runs are in the order of falling probability.
    """
    alarms = totals - hits
    below = alarms.sum(axis=1, keepdims=True) - np.cumsum(alarms, axis=1)
    return ratio((hits * (below + alarms / 2)).sum(axis=1), hits.sum(axis=1) * alarms.sum(axis=1))


def average_precision(hits: Array, totals: Array) -> Array:
    """Return the mean of the precisions at each threshold, weighted with the recall that it adds (no
    interpolation, as scikit-learn's `average_precision_score`)."""
    precision = np.nan_to_num(ratio(np.cumsum(hits, axis=1), np.cumsum(totals, axis=1)))
    return ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def ranking_metrics(probabilities: ChoiceProbabilities, weights: Array) -> Metrics:
    """Return auroc and average_precision under weights (r, n): of yes, or the mean over the ranked classes.

    Each class is ranked against the rest; in a resample the mean is over those that it can rank.
    """
    by_metric: dict[str, list[Array]] = {"auroc": [], "average_precision": []}
    for c in probabilities.ranked_classes:
        positive = probabilities.truth == c
        counts = _Ranking.of(probabilities.values[:, c], positive).counts(weights)
        area = auroc(*counts)
        by_metric["auroc"].append(area)
        by_metric["average_precision"].append(np.where(np.isnan(area), np.nan, average_precision(*counts)))
    return {
        name: mean_where(np.stack(parts, axis=1), ~np.isnan(np.stack(parts, axis=1)))
        for name, parts in by_metric.items()
        if parts
    }


def roc_curves(probabilities: ChoiceProbabilities, classes: Sequence[str]) -> list[RocCurve]:
    """Return a curve for yes, or one per class against the rest: its corners, at most 101."""
    curves = []
    for c in probabilities.ranked_classes:
        ranking = _Ranking.of(probabilities.values[:, c], probabilities.truth == c)
        hits, totals = ranking.counts(np.ones((1, len(probabilities.truth))))
        up, across = np.cumsum(hits[0]) / hits.sum(), np.cumsum((totals - hits)[0]) / (totals - hits).sum()
        corners = np.flatnonzero(_is_corner(hits[0], (totals - hits)[0]))
        chosen = corners[np.linspace(0, len(corners) - 1, min(len(corners), _CURVE_POINTS - 1)).astype(int)]
        points = [(0.0, 0.0), *((round(float(across[i]), 4), round(float(up[i]), 4)) for i in chosen)]
        area = round(float(auroc(hits, totals)[0]), 6)
        curves.append(RocCurve(name=classes[c], auroc=area, points=points))
    return curves


def _is_corner(hits: Array, alarms: Array) -> Bools:
    """Return whether the curve turns after each of its steps; the last ends it. Points between two corners
    lie on a straight line and are left out."""
    cross = hits[:-1] * alarms[1:] != hits[1:] * alarms[:-1]
    return np.append(cross, True)


# --- calibration -------------------------------------------------------------------------------------


def calibration_rows(probabilities: ChoiceProbabilities) -> Array:
    """Return per question 1, its Brier score, and in the column of its bin probability minus outcome."""
    probability, came_true = probabilities.calibration_targets
    rows = np.zeros((len(probability), 2 + BINS))
    rows[:, 0] = 1
    if probabilities.yes_no:
        rows[:, 1] = (probability - came_true) ** 2
    else:
        wanted = np.eye(probabilities.values.shape[1])[probabilities.truth]
        rows[:, 1] = ((probabilities.values - wanted) ** 2).sum(axis=1)
    rows[np.arange(len(rows)), 2 + bin_index(probability)] = probability - came_true
    return rows


def bin_index(probability: Array) -> Ints:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def calibration_metrics(sums: Array) -> Metrics:
    """Return ece and brier from sums of `calibration_rows`:

    - ece, the expected calibration error: the mean over questions of |mean probability - fraction that
      came true| in their bin, BINS bins of equal width (Guo et al., 2017, arXiv 1706.04599);
    - brier: the mean squared error of P(yes), or of all classes' probabilities added up (0..2; G. W. Brier,
      1950).
    """
    return {
        "ece": ratio(np.abs(sums[..., 2:]).sum(axis=-1), sums[..., 0]),
        "brier": ratio(sums[..., 1], sums[..., 0]),
    }


def reliability(probabilities: ChoiceProbabilities) -> list[ReliabilityBin]:
    """Return the calibration bins that hold a question."""
    probability, came_true = probabilities.calibration_targets
    index = bin_index(probability)
    return [
        ReliabilityBin(
            low=b / BINS,
            high=(b + 1) / BINS,
            n=int(inside.sum()),
            probability=round(float(probability[inside].mean()), 6),
            true=round(float(came_true[inside].mean()), 6),
        )
        for b in range(BINS)
        if (inside := index == b).any()
    ]


# --- all of them, with resamples ---------------------------------------------------------------------


def probability_metrics(probabilities: ChoiceProbabilities) -> Metrics:
    """Return auroc, average_precision, ece and brier of the questions themselves, arrays of one value."""
    ranking = ranking_metrics(probabilities, np.ones((1, len(probabilities.truth))))
    return ranking | calibration_metrics(calibration_rows(probabilities).sum(axis=0)[None])


def bootstrap_metrics(
    probabilities: ChoiceProbabilities, groups: int, resamples: int, seed: Sequence[int]
) -> Metrics:
    """Return `probability_metrics` of every resample, arrays (resamples,).

    Args:
        probabilities: The questions.
        groups: Number of groups in the whole task.
        resamples: Number of resamples.
        seed: The same seed draws the same groups as `intervals.bootstrap_sums`, so that two systems can be
            compared in pairs.
    """
    rows = calibration_rows(probabilities)
    sums = np.zeros((groups, rows.shape[1]))
    np.add.at(sums, probabilities.groups, rows)
    parts: dict[str, list[Array]] = {}
    at_a_time = max(1, _MAX_WEIGHTS // len(rows)) * groups
    for drawn in group_draws(groups, resamples, seed, limit=at_a_time):
        ranking = ranking_metrics(probabilities, drawn[:, probabilities.groups])
        for name, values in (ranking | calibration_metrics(drawn @ sums)).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


# --- the threshold for a stated miss rate ------------------------------------------------------------


def choose_threshold(probability: Array, positive: Bools, miss_rate: float) -> float:
    """Return the highest t such that at most `miss_rate` of the positive have a probability under t.

    Those at t or above are called yes. At least one question must be positive.
    """
    rising = np.sort(probability[positive])
    allowed = math.floor(miss_rate * len(rising) + 1e-9)
    return float(rising[min(allowed, len(rising) - 1)])


def threshold_rows(probability: Array, positive: Bools, threshold: Array | float) -> Array:
    """Return per question 1 where it is positive, where that is missed, where it is negative, and where that
    is called yes."""
    called = probability >= threshold
    columns = [positive, positive & ~called, ~positive, ~positive & called]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def threshold_metrics(sums: Array) -> Metrics:
    """Return miss and over_call from sums of `threshold_rows`."""
    positive, missed, negative, called = np.moveaxis(sums, -1, 0)
    return {"miss": ratio(missed, positive), "over_call": ratio(called, negative)}


def cross_fitted_thresholds(
    probabilities: ChoiceProbabilities, miss_rate: float, seed: int
) -> tuple[Array, int] | None:
    """Return for each question the threshold (n,) that the other folds choose, and the number of folds.

    Folds are parts of the groups; the groups that hold a yes are dealt out evenly. None if fewer than two
    groups hold one.
    """
    positive = probabilities.truth == 0
    holding = np.unique(probabilities.groups[positive])
    folds = min(FOLDS, len(holding))
    if folds < 2:
        return None
    generator = np.random.default_rng(seed)
    others = np.setdiff1d(np.unique(probabilities.groups), holding)
    dealt = np.concatenate([generator.permutation(holding), generator.permutation(others)])
    fold_of = dict(zip(dealt.tolist(), (np.arange(len(dealt)) % folds).tolist(), strict=True))
    fold = np.array([fold_of[group] for group in probabilities.groups.tolist()])
    probability = probabilities.values[:, 0]
    thresholds = np.array(
        [choose_threshold(probability[fold != f], positive[fold != f], miss_rate) for f in range(folds)]
    )
    return thresholds[fold], folds
