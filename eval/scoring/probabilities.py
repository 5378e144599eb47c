"""What the probabilities of the choices are worth: ranking, calibration, and a threshold for P(yes).

Ranking metrics depend on the order of all questions. They are taken of every resample at once: the questions
are sorted once, and a resample is a weight per question (how often its group was drawn). Questions of equal
probability count half against each other. Values that do not exist (one class alone) are NaN.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scoring import metrics as m
from eval.scoring.schema import ReliabilityBin, RocCurve

BINS = 10  # of equal width, for calibration
FOLDS = 5  # of the cross-fitted threshold
_CURVE_POINTS = 101
_AT_A_TIME = 2_000_000  # weights, 16 MB


@dataclass(frozen=True)
class Chances:
    """Probabilities (n, k) over k classes, the true class (n,) and the group (n,) of each question.

    Where `yes_no` is set, the first class is yes, and P(yes) is what is ranked and calibrated; otherwise each
    class is ranked against the rest, and the probability of the likeliest class is calibrated.
    """

    probabilities: m.Array
    truth: m.Ints
    groups: m.Ints
    yes_no: bool

    def only(self, chosen: m.Bools) -> Chances:
        """Of the chosen questions alone; groups keep their numbers."""
        return Chances(
            self.probabilities[chosen], self.truth[chosen], self.groups[chosen], yes_no=self.yes_no
        )

    @property
    def ranked(self) -> list[int]:
        """The classes that are ranked: those that some question is, and some is not."""
        classes = [0] if self.yes_no else range(self.probabilities.shape[1])
        return [c for c in classes if 0 < (self.truth == c).sum() < len(self.truth)]

    @property
    def calibrated(self) -> tuple[m.Array, m.Array]:
        """The probability (n,) that is calibrated, and 1 where it came true."""
        if self.yes_no:
            return self.probabilities[:, 0], (self.truth == 0).astype(np.float64)
        likeliest = self.probabilities.argmax(axis=1)
        return self.probabilities.max(axis=1), (likeliest == self.truth).astype(np.float64)


def probability_of(value: object) -> float | None:
    """A number from 0 up, None for anything else that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= sys.float_info.max else None


def read_choices(
    found: object, classes: Sequence[str], reader: Callable[[str], str | None]
) -> list[float] | None:
    """A probability per class from `metadata.choices`; None where it cannot be had.

    Every choice must be one of the classes, as `reader` reads it; classes that were no choice get 0. Numbers
    that do not add up to 1 are divided by their sum.
    """
    if not isinstance(found, Mapping) or not found:
        return None
    values = dict.fromkeys(classes, 0.0)
    for choice, value in found.items():
        name = reader(str(choice))
        number = probability_of(value)
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
    """The questions by falling probability: their order (n,), and where runs of equal ones begin."""

    order: m.Ints
    starts: m.Ints
    positive: m.Array

    @classmethod
    def of(cls, probability: m.Array, positive: m.Bools) -> _Ranking:
        order = np.argsort(-probability, kind="stable")
        falling = probability[order]
        starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
        return cls(order, starts, positive[order].astype(np.float64))

    def counts(self, weights: m.Array) -> tuple[m.Array, m.Array]:
        """Weights (r, n) of the positive and of all questions in each run: (r, runs) each."""
        ordered = weights[:, self.order]
        whole = np.add.reduceat(ordered, self.starts, axis=1)
        return np.add.reduceat(ordered * self.positive, self.starts, axis=1), whole


def auroc(hits: m.Array, all_: m.Array) -> m.Array:
    """Area under the ROC curve: the probability that a positive ranks above a negative, equals counting half
    (Mann and Whitney, 1947). Weights (r, runs) of the positive and of all, by falling probability."""
    alarms = all_ - hits
    below = alarms.sum(axis=1, keepdims=True) - np.cumsum(alarms, axis=1)
    return m.ratio((hits * (below + alarms / 2)).sum(axis=1), hits.sum(axis=1) * alarms.sum(axis=1))


def average_precision(hits: m.Array, all_: m.Array) -> m.Array:
    """The mean of the precisions at each threshold, weighted with the recall that it adds (no
    interpolation, as scikit-learn's `average_precision_score`)."""
    precision = np.nan_to_num(m.ratio(np.cumsum(hits, axis=1), np.cumsum(all_, axis=1)))
    return m.ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def ranking_metrics(chances: Chances, weights: m.Array) -> m.Metrics:
    """auroc and average_precision under weights (r, n): of yes, or the mean over the classes that are ranked
    (one against the rest; in a resample over those that it can rank)."""
    found: dict[str, list[m.Array]] = {"auroc": [], "average_precision": []}
    for c in chances.ranked:
        positive = chances.truth == c
        counts = _Ranking.of(chances.probabilities[:, c], positive).counts(weights)
        area = auroc(*counts)
        found["auroc"].append(area)
        found["average_precision"].append(np.where(np.isnan(area), np.nan, average_precision(*counts)))
    return {
        name: m.mean_where(np.stack(parts, axis=1), ~np.isnan(np.stack(parts, axis=1)))
        for name, parts in found.items()
        if parts
    }


def roc_curves(chances: Chances, classes: Sequence[str]) -> list[RocCurve]:
    """A curve for yes, or one per class against the rest: its corners, at most 101."""
    curves = []
    for c in chances.ranked:
        ranking = _Ranking.of(chances.probabilities[:, c], chances.truth == c)
        hits, all_ = ranking.counts(np.ones((1, len(chances.truth))))
        up, across = np.cumsum(hits[0]) / hits.sum(), np.cumsum((all_ - hits)[0]) / (all_ - hits).sum()
        corners = np.flatnonzero(_turns(hits[0], (all_ - hits)[0]))
        chosen = corners[np.linspace(0, len(corners) - 1, min(len(corners), _CURVE_POINTS - 1)).astype(int)]
        points = [(0.0, 0.0), *((round(float(across[i]), 4), round(float(up[i]), 4)) for i in chosen)]
        area = round(float(auroc(hits, all_)[0]), 6)
        curves.append(RocCurve(name=classes[c], auroc=area, points=points))
    return curves


def _turns(hits: m.Array, alarms: m.Array) -> m.Bools:
    """Whether the curve turns after each of its steps, the last of which ends it: the points between say
    nothing."""
    cross = hits[:-1] * alarms[1:] != hits[1:] * alarms[:-1]
    return np.append(cross, True)


# --- calibration -------------------------------------------------------------------------------------


def calibration_rows(chances: Chances) -> m.Array:
    """Per question: 1, its Brier score, and in the column of its bin probability minus what came true."""
    probability, came_true = chances.calibrated
    rows = np.zeros((len(probability), 2 + BINS))
    rows[:, 0] = 1
    if chances.yes_no:
        rows[:, 1] = (probability - came_true) ** 2
    else:
        wanted = np.eye(chances.probabilities.shape[1])[chances.truth]
        rows[:, 1] = ((chances.probabilities - wanted) ** 2).sum(axis=1)
    rows[np.arange(len(rows)), 2 + bins_of(probability)] = probability - came_true
    return rows


def bins_of(probability: m.Array) -> m.Ints:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def calibration_metrics(sums: m.Array) -> m.Metrics:
    """From sums of `calibration_rows`:

    - ece, the expected calibration error: the mean over questions of |mean probability - share that came
      true| in their bin, BINS bins of equal width (Guo et al., 2017, arXiv 1706.04599);
    - brier: the mean squared error of P(yes), or of all classes' probabilities added up (0..2; G. W. Brier,
      1950).
    """
    return {
        "ece": m.ratio(np.abs(sums[..., 2:]).sum(axis=-1), sums[..., 0]),
        "brier": m.ratio(sums[..., 1], sums[..., 0]),
    }


def reliability(chances: Chances) -> list[ReliabilityBin]:
    """The bins that hold a question."""
    probability, came_true = chances.calibrated
    index = bins_of(probability)
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


def chance_metrics(chances: Chances) -> m.Metrics:
    """auroc, average_precision, ece and brier of the questions as they are, arrays of one value."""
    ranked = ranking_metrics(chances, np.ones((1, len(chances.truth))))
    return ranked | calibration_metrics(calibration_rows(chances).sum(axis=0)[None])


def resampled(chances: Chances, groups: int, resamples: int, seed: Sequence[int]) -> m.Metrics:
    """The same of every resample of `groups` groups: arrays (resamples,). The same seed draws the same groups
    as `metrics.bootstrap_sums`, so that two systems can be compared in pairs."""
    rows = calibration_rows(chances)
    sums = np.zeros((groups, rows.shape[1]))
    np.add.at(sums, chances.groups, rows)
    parts: dict[str, list[m.Array]] = {}
    at_a_time = max(1, _AT_A_TIME // len(rows)) * groups
    for drawn in m.group_draws(groups, resamples, seed, most=at_a_time):
        found = ranking_metrics(chances, drawn[:, chances.groups]) | calibration_metrics(drawn @ sums)
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


# --- the threshold for a stated miss rate ------------------------------------------------------------


def threshold_for(probability: m.Array, positive: m.Bools, miss_rate: float) -> float:
    """The highest t such that no more than `miss_rate` of the positive have a probability under t (those at t
    or above are called yes). At least one must be positive."""
    rising = np.sort(probability[positive])
    allowed = math.floor(miss_rate * len(rising) + 1e-9)
    return float(rising[min(allowed, len(rising) - 1)])


def threshold_rows(probability: m.Array, positive: m.Bools, threshold: m.Array | float) -> m.Array:
    """Per question: 1 where it is positive, where that is missed, where it is negative, where that is called
    yes."""
    called = probability >= threshold
    columns = [positive, positive & ~called, ~positive, ~positive & called]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def threshold_metrics(sums: m.Array) -> m.Metrics:
    positive, missed, negative, called = np.moveaxis(sums, -1, 0)
    return {"miss": m.ratio(missed, positive), "over_call": m.ratio(called, negative)}


def cross_fitted(chances: Chances, miss_rate: float, seed: int) -> tuple[m.Array, int] | None:
    """For each question the threshold (n,) that the other folds choose, and the number of folds. Folds are
    parts of the groups, with the groups that hold a yes dealt out evenly; None if fewer than two hold one."""
    positive = chances.truth == 0
    holding = np.unique(chances.groups[positive])
    folds = min(FOLDS, len(holding))
    if folds < 2:
        return None
    generator = np.random.default_rng(seed)
    others = np.setdiff1d(np.unique(chances.groups), holding)
    dealt = np.concatenate([generator.permutation(holding), generator.permutation(others)])
    fold_of = dict(zip(dealt.tolist(), (np.arange(len(dealt)) % folds).tolist(), strict=True))
    fold = np.array([fold_of[group] for group in chances.groups.tolist()])
    probability = chances.probabilities[:, 0]
    thresholds = np.array(
        [threshold_for(probability[fold != f], positive[fold != f], miss_rate) for f in range(folds)]
    )
    return thresholds[fold], folds
