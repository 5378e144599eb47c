"""Metrics of the choices' probabilities: ranking, calibration, and a threshold for P(yes).

Ranking metrics depend on the order of all questions. They are computed for many resamples at once: the
questions are sorted once, and a resample is a weight per group (how often it was drawn). Questions of equal
probability count half against each other. Undefined values (one class alone) are NaN.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scoring.intervals import Statistic
from eval.scoring.metrics import (
    MAX_WEIGHTS,
    Array,
    Bools,
    Ints,
    Metrics,
    NumberRows,
    mean_where,
    ratio,
    run_starts,
)
from eval.scoring.schema import ReliabilityBin, RocCurve

BINS = 10  # of equal width, for calibration
FOLDS = 5  # of the cross-fitted threshold
_CURVE_POINTS = 101


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
        if chosen.all():
            return self
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
    """Holds the n questions by falling probability, and among them the p positive ones.

    `weighed_by` (n,) are the columns of their weights. `positive` (p,) are the places of the positive ones;
    `first` and `end` (p,) where the run of equal probabilities begins and ends that each is in, as places of
    all questions; `first_positive` and `end_positive` the same as places of the positive ones.
    """

    weighed_by: Ints
    positive: Ints
    first: Ints
    end: Ints
    first_positive: Ints
    end_positive: Ints

    @classmethod
    def of(cls, probability: Array, positive: Bools, weighed_by: Ints) -> _Ranking:
        """Sort the questions, whose weights will be in the columns `weighed_by` (n,)."""
        order = np.argsort(-probability, kind="stable")
        starts = run_starts(probability[order])
        ends = np.append(starts[1:], len(order))
        places = np.flatnonzero(positive[order])
        run = np.searchsorted(starts, places, side="right") - 1
        first, end = starts[run], ends[run]
        positives_before, positives_after = np.searchsorted(places, first), np.searchsorted(places, end)
        return cls(weighed_by[order], places, first, end, positives_before, positives_after)

    def metrics(self, weights: Array) -> tuple[Array, Array]:
        """Return AUROC and average precision (r,) under weights (r, columns); NaN where one side weighs 0.

        AUROC, the area under the ROC curve, is the probability that a positive ranks above a negative, equals
        counting half (Mann and Whitney, 1947). Average precision is the mean of the precisions at each
        threshold, weighted with the recall that it adds (no interpolation, as scikit-learn's
        `average_precision_score`).
        """
        weights = weights[:, self.weighed_by]
        hits = weights[:, self.positive]
        totals, found = _sums_up_to(weights), _sums_up_to(hits)
        found_before, found_after = found[:, self.first_positive], found[:, self.end_positive]
        totals_after = totals[:, self.end]
        alarms_before = totals[:, self.first] - found_before
        alarms_after = totals_after - found_after
        all_hits, all_alarms = found[:, -1], totals[:, -1] - found[:, -1]
        below = all_alarms[:, None] - (alarms_before + alarms_after) / 2
        area = ratio((hits * below).sum(axis=1), all_hits * all_alarms)
        precision = np.nan_to_num(ratio(found_after, totals_after))
        mean_precision = ratio((hits * precision).sum(axis=1), all_hits)
        return area, np.where(np.isnan(area), np.nan, mean_precision)


def _sums_up_to(weights: Array) -> Array:
    """Return the sums of the first 0, 1, ... n columns of weights (r, n): (r, n + 1)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _rankings(probabilities: ChoiceProbabilities, weighed_by: Ints) -> list[_Ranking]:
    return [
        _Ranking.of(probabilities.values[:, c], probabilities.truth == c, weighed_by)
        for c in probabilities.ranked_classes
    ]


def ranking_metrics(probabilities: ChoiceProbabilities, weights: Array) -> Metrics:
    """Return auroc and average_precision under weights (r, n): of yes, or the mean over the ranked classes.

    Each class is ranked against the rest; in a resample the mean is over those that it can rank.
    """
    return _mean_ranking(_rankings(probabilities, np.arange(len(probabilities.truth))), weights)


def _mean_ranking(rankings: Sequence[_Ranking], weights: Array) -> Metrics:
    if not rankings:
        return {}
    parts = np.array([ranking.metrics(weights) for ranking in rankings])  # (rankings, metrics, r)
    areas, precisions = parts.transpose(1, 2, 0)
    return {
        "auroc": mean_where(areas, ~np.isnan(areas)),
        "average_precision": mean_where(precisions, ~np.isnan(precisions)),
    }


def roc_curves(probabilities: ChoiceProbabilities, classes: Sequence[str]) -> list[RocCurve]:
    """Return a curve for yes, or one per class against the rest: its corners, at most 101."""
    curves = []
    for c in probabilities.ranked_classes:
        falling = np.argsort(-probabilities.values[:, c], kind="stable")
        starts = run_starts(probabilities.values[falling, c])
        hits = np.add.reduceat((probabilities.truth[falling] == c).astype(np.float64), starts)
        alarms = np.diff(np.append(starts, len(falling))) - hits
        up, across = np.cumsum(hits) / hits.sum(), np.cumsum(alarms) / alarms.sum()
        corners = np.flatnonzero(_is_corner(hits, alarms))
        chosen = corners[np.linspace(0, len(corners) - 1, min(len(corners), _CURVE_POINTS - 1)).astype(int)]
        points = [(0.0, 0.0), *((round(float(across[i]), 4), round(float(up[i]), 4)) for i in chosen)]
        area = (hits * (alarms.sum() - np.cumsum(alarms) + alarms / 2)).sum() / (hits.sum() * alarms.sum())
        curves.append(RocCurve(name=classes[c], auroc=round(float(area), 6), points=points))
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


def resampled_metrics(probabilities: ChoiceProbabilities, groups: int) -> Statistic:
    """Return what gives `probability_metrics` of resamples of the groups, of which the whole task has
    `groups`."""
    sums = NumberRows(calibration_rows(probabilities)).group_sums(probabilities.groups, groups)
    rankings = _rankings(probabilities, probabilities.groups)
    at_a_time = max(1, MAX_WEIGHTS // len(probabilities.truth))

    def statistic(drawn: Array) -> Metrics:
        parts = [
            _mean_ranking(rankings, drawn[start : start + at_a_time])
            for start in range(0, len(drawn), at_a_time)
        ]
        ranking = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return ranking | calibration_metrics(sums.resample(drawn))

    return statistic


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
    fold_of = np.zeros(int(dealt.max()) + 1, dtype=np.int64)
    fold_of[dealt] = np.arange(len(dealt)) % folds
    fold = fold_of[probabilities.groups]
    probability = probabilities.values[:, 0]
    thresholds = np.array(
        [choose_threshold(probability[fold != f], positive[fold != f], miss_rate) for f in range(folds)]
    )
    return thresholds[fold], folds
