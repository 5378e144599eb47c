"""The arithmetic of scores: every metric is a function of sums over questions, so that it can be taken of
the whole test, of one group of pictures, or of ten thousand resamples at once.

A *family* turns each question into a row of numbers; rows are added up per group of pictures, and `metrics`
maps sums of shape (..., columns) to one array of shape (...) per metric. The bootstrap draws groups with
replacement, as a matrix of counts: (resamples, groups) @ (groups, columns). Values that do not exist (the
recall of a class without a question) are NaN. What needs an order of the questions, and so no sums, is in
eval/scoring/probabilities.py.

Rules, said once:
- An unparsed or missing answer is wrong, and no class's.
- Balanced accuracy and macro-F1 are means over the classes that occur in the truth; in a resample that
  lacks a class, over those it has.
- F1 = 2 tp / (2 tp + fp + fn); precision of a class that is never answered does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Metrics = dict[str, Array]

Z95 = 1.959963984540054


def ratio(numerator: Array, denominator: Array) -> Array:
    """Elementwise quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def mean_where(values: Array, present: Bools) -> Array:
    """Mean over the last axis of the values that are present, NaN where none is."""
    return ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


# --- closed answers: a confusion table, its last column the unparsed ---------------------------------


@dataclass(frozen=True)
class ClassCounts:
    """What a confusion table (..., k, k + 1) says about each class; arrays of shape (..., k)."""

    support: Array
    answered: Array
    precision: Array
    recall: Array
    f1: Array


def class_counts(confusion: Array) -> ClassCounts:
    """Rows are the truth, columns the answers; the last column holds the unparsed and missing ones."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support = confusion.sum(axis=-1)
    answered = confusion[..., :-1].sum(axis=-2)
    return ClassCounts(
        support=support,
        answered=answered,
        precision=ratio(right, answered),
        recall=ratio(right, support),
        f1=ratio(2 * right, answered + support),
    )


def confusion_rows(truth: Ints, answers: Ints, classes: int) -> Array:
    """One row of k * (k + 1) zeros and a one per question: its cell of the flattened confusion table.

    `truth` (n,) holds class numbers 0..k-1, `answers` (n,) the same or -1 for an unparsed answer.
    """
    rows = np.zeros((len(truth), classes * (classes + 1)))
    column = np.where(answers < 0, classes, answers)
    rows[np.arange(len(truth)), truth * (classes + 1) + column] = 1
    return rows


def class_metrics(sums: Array, classes: int) -> Metrics:
    """accuracy, balanced_accuracy, macro_f1 and parsed from flattened confusion tables."""
    confusion = sums.reshape(*sums.shape[:-1], classes, classes + 1)
    per_class = class_counts(confusion)
    total = sums.sum(axis=-1)
    right = np.trace(confusion, axis1=-2, axis2=-1)
    present = per_class.support > 0
    return {
        "accuracy": ratio(right, total),
        "balanced_accuracy": mean_where(per_class.recall, present),
        "macro_f1": mean_where(per_class.f1, present),
        "parsed": 1 - ratio(confusion[..., -1].sum(axis=-1), total),
    }


def yes_no_metrics(sums: Array) -> Metrics:
    """`class_metrics` of the classes (yes, no), and

    - over_call: the share of true "no" that was answered "yes" (a false alarm);
    - miss: the share of true "yes" that was not answered "yes" (an unparsed answer reports nothing);
    - says_yes: the share of all questions answered "yes".
    """
    confusion = sums.reshape(*sums.shape[:-1], 2, 3)
    per_class = class_counts(confusion)
    return class_metrics(sums, 2) | {
        "over_call": ratio(confusion[..., 1, 0], per_class.support[..., 1]),
        "miss": 1 - per_class.recall[..., 0],
        "says_yes": ratio(per_class.answered[..., 0], sums.sum(axis=-1)),
    }


def majority_of_classes(support: Array) -> dict[str, float]:
    """What always answering the most frequent class scores; `support` (k,) are the true counts."""
    share = support.max() / support.sum()
    present = int((support > 0).sum())
    return {
        "accuracy": float(share),
        "balanced_accuracy": 1 / present,
        "macro_f1": float(2 * share / (1 + share)) / present,
    }


def random_of_classes(support: Array) -> dict[str, float]:
    """What a uniform guess among all k classes scores on average (macro-F1: the F1 of the average table)."""
    guesses = len(support)
    share = support[support > 0] / support.sum()
    return {
        "accuracy": 1 / guesses,
        "balanced_accuracy": 1 / guesses,
        "macro_f1": float(np.mean(2 * share / (1 + guesses * share))),
    }


# --- counts, boxes, text: means over questions -------------------------------------------------------


def count_rows(truth: Ints, answers: Ints) -> Array:
    """Per question: 1, parsed, exact, off by at most one, absolute error. `answers` is -1 where unparsed."""
    parsed = answers >= 0
    error = np.where(parsed, np.abs(answers - truth), 0)
    columns = [np.ones(len(truth)), parsed, parsed & (error == 0), parsed & (error <= 1), error]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def count_metrics(sums: Array) -> Metrics:
    """exact and within_one over all questions; mean_abs_error over the parsed answers alone."""
    questions, parsed, exact, within_one, error = np.moveaxis(sums, -1, 0)
    return {
        "exact": ratio(exact, questions),
        "within_one": ratio(within_one, questions),
        "mean_abs_error": ratio(error, parsed),
        "parsed": ratio(parsed, questions),
    }


def box_rows(overlap: Array) -> Array:
    """Per question: 1, parsed, IoU, IoU of at least 0.5. `overlap` (n,) is NaN where no box was parsed."""
    parsed = ~np.isnan(overlap)
    known = np.where(parsed, overlap, 0.0)
    columns = [np.ones(len(overlap)), parsed, known, known >= 0.5]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def box_metrics(sums: Array) -> Metrics:
    """mean_iou and acc_50 (the share with IoU >= 0.5); an unparsed box has IoU 0."""
    questions, parsed, overlap, hits = np.moveaxis(sums, -1, 0)
    return {
        "mean_iou": ratio(overlap, questions),
        "acc_50": ratio(hits, questions),
        "parsed": ratio(parsed, questions),
    }


def text_rows(exact: Sequence[bool], f1: Sequence[float], parsed: Sequence[bool]) -> Array:
    columns = [np.ones(len(exact)), np.array(parsed), np.array(exact), np.array(f1)]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def text_metrics(sums: Array) -> Metrics:
    """exact and token_f1; parsed is the share of answers that are not empty."""
    questions, parsed, exact, f1 = np.moveaxis(sums, -1, 0)
    return {
        "token_f1": ratio(f1, questions),
        "exact": ratio(exact, questions),
        "parsed": ratio(parsed, questions),
    }


def report_rows(exact: Sequence[bool], parsed: Sequence[bool], fields: Array) -> Array:
    """Per question: 1, parsed, all fields right, then for each field the share that is right and 1 if the
    truth has it. `fields` (n, 2 * keys) are those pairs."""
    columns = [np.ones(len(exact)), np.array(parsed), np.array(exact)]
    return np.hstack([np.stack([column.astype(np.float64) for column in columns], axis=1), fields])


def report_metrics(sums: Array, keys: Sequence[str]) -> Metrics:
    """field_accuracy, the share of right fields in all; `field.<key>`, the same of one field; exact,
    the share of reports with all fields right; parsed, the share of valid ones."""
    questions, parsed, exact = np.moveaxis(sums[..., :3], -1, 0)
    shares = sums[..., 3:].reshape(*sums.shape[:-1], len(keys), 2)
    return {
        "field_accuracy": ratio(shares[..., 0].sum(axis=-1), shares[..., 1].sum(axis=-1)),
        "exact": ratio(exact, questions),
        "parsed": ratio(parsed, questions),
        **{f"field.{key}": ratio(shares[..., i, 0], shares[..., i, 1]) for i, key in enumerate(keys)},
    }


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of boxes x1, y1, x2, y2: (..., 4) and (..., 4) -> (...); NaN stays NaN."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    return ratio(shared, areas[0] + areas[1] - shared)


# --- intervals ---------------------------------------------------------------------------------------


def group_index(groups: Sequence[str]) -> Ints:
    """The number of each question's group (n,), groups in sorted order."""
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64)


def group_sums(rows: Array, groups: Sequence[str]) -> Array:
    """Rows (n, columns) added up per group: (number of groups, columns), groups in sorted order."""
    index = group_index(groups)
    sums = np.zeros((int(index.max()) + 1, rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def group_draws(groups: int, resamples: int, seed: Sequence[int], most: int = 4_000_000) -> Iterator[Array]:
    """How often each group is drawn, when as many are drawn with replacement as there are, `resamples` times
    over: chunks of (resamples, groups) that hold `most` numbers. The draws do not depend on `most`."""
    generator = np.random.default_rng(list(seed))
    chunk = max(1, most // groups)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=size)
        yield drawn.astype(np.float64)


def bootstrap_sums(sums: Array, resamples: int, seed: Sequence[int]) -> Array:
    """Groups (g, columns) drawn g times with replacement and added up, `resamples` times over.

    Returns (resamples, columns). Columns drawn together stay together: hand two systems' columns side by
    side and every resample holds the same groups for both.
    """
    return np.concatenate([drawn @ sums for drawn in group_draws(len(sums), resamples, seed)])


def percentile_interval(draws: Array) -> tuple[float, float] | None:
    """The middle 95% of the draws that exist; None where they are all alike, and so say nothing.

    A model that is always right scores 1.0 in every resample, which is no proof that it always will.
    """
    known = draws[~np.isnan(draws)]
    if len(known) == 0 or np.ptp(known) < 1e-9:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion seen in n independent trials (E. B. Wilson, 1927)."""
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def combined_interval(
    first: float, first_interval: tuple[float, float], second: float, second_interval: tuple[float, float]
) -> tuple[float, float]:
    """An interval of `first - second` from the interval of each (MOVER: R. G. Newcombe, 1998, method 10)."""
    (low_1, high_1), (low_2, high_2) = first_interval, second_interval
    difference = first - second
    return (
        difference - math.hypot(first - low_1, high_2 - second),
        difference + math.hypot(high_1 - first, second - low_2),
    )
