"""The arithmetic of scores: every metric is a function of sums over questions, so that it can be computed for
the whole test, for one group of images, or for ten thousand resamples at once.

A task family turns each question into a row of numbers; rows are added up per group of images, and the
`..._metrics` functions map sums of shape (..., columns) to one array of shape (...) per metric. Undefined
values (the recall of a class without a question) are NaN. Ranking metrics, which need the order of the
questions instead of sums, are in eval/scoring/probabilities.py; intervals are in eval/scoring/intervals.py.
The rows of closed answers, one-hot and wide, are never written out (`CellRows`).

Rules:
- An unparsed or missing answer is wrong, and no class's.
- Balanced accuracy and macro-F1 are means over the classes that occur in the truth; in a resample that
  lacks a class, over those it has.
- F1 = 2 tp / (2 tp + fp + fn); the precision of a class that is never answered is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Metrics = dict[str, Array]
MAX_WEIGHTS = 500_000  # of resamples that are worked on at a time, 4 MB: what a processor holds near itself


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return the elementwise quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def mean_where(values: Array, present: Bools) -> Array:
    """Return the mean over the last axis of the values that are present, NaN where none is."""
    return ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


# --- rows and their sums -----------------------------------------------------------------------------


class GroupSums(Protocol):
    """The sums of rows per group, of which resamples are made."""

    @property
    def groups(self) -> int:
        """How many groups there are."""

    def total(self) -> Array:
        """Return the sums over all groups (columns,)."""

    def resample(self, drawn: Array) -> Array:
        """Return the sums (r, columns) of resamples in which each group is drawn so often (r, groups)."""


class Rows(Protocol):
    """A row of numbers per question, n in all, of which metrics are functions of the sums."""

    def total(self) -> Array:
        """Return the sums over all questions (columns,)."""

    def group_sums(self, groups: Ints, count: int) -> GroupSums:
        """Add up per group; `groups` (n,) are numbers under `count`."""

    @property
    def compared(self) -> npt.NDArray[Any]:
        """What two rows (n, ...) of a task are equal by."""


@dataclass(frozen=True)
class NumberSums:
    """Holds the sums per group as they are (groups, columns)."""

    values: Array

    @property
    def groups(self) -> int:
        return len(self.values)

    def total(self) -> Array:
        return np.asarray(self.values.sum(axis=0), dtype=np.float64)

    def resample(self, drawn: Array) -> Array:
        return np.asarray(drawn @ self.values, dtype=np.float64)


@dataclass(frozen=True)
class NumberRows:
    """Holds rows (n, columns) of any numbers."""

    values: Array

    def total(self) -> Array:
        return np.asarray(self.values.sum(axis=0), dtype=np.float64)

    def group_sums(self, groups: Ints, count: int) -> NumberSums:
        # Column by column, each added up in the order of the questions.
        return NumberSums(np.stack([np.bincount(groups, column, count) for column in self.values.T], axis=1))

    @property
    def compared(self) -> Array:
        return self.values


@dataclass(frozen=True)
class CellSums:
    """Holds the sums per group of one-hot rows: how often (`times`, (m,)) each cell comes in each group.

    `cell` and `group` (m,) are the pairs that do come, by cell: few of all, where there are many classes.
    """

    groups: int
    columns: int
    cell: Ints
    group: Ints
    times: Array

    def total(self) -> Array:
        return np.asarray(np.bincount(self.cell, self.times, self.columns), dtype=np.float64)

    def resample(self, drawn: Array) -> Array:
        starts = run_starts(self.cell)
        sums = np.zeros((len(drawn), self.columns))
        at_a_time = max(1, MAX_WEIGHTS // len(self.cell))
        for start in range(0, len(drawn), at_a_time):
            weights = drawn[start : start + at_a_time, self.group] * self.times
            sums[start : start + at_a_time, self.cell[starts]] = np.add.reduceat(weights, starts, axis=1)
        return sums

    def groups_with(self, kind_of_cell: Ints, kinds: int) -> Ints:
        """Return how many groups hold each kind (kinds,) of cell; `kind_of_cell` is (columns,)."""
        pairs = np.unique(self.group * kinds + kind_of_cell[self.cell])
        return np.bincount(pairs % kinds, minlength=kinds).astype(np.int64)


@dataclass(frozen=True)
class CellRows:
    """Holds rows that are 0 but for a 1 in the column of a question's cell (n,), of `columns`."""

    cells: Ints
    columns: int

    def total(self) -> Array:
        return np.bincount(self.cells, minlength=self.columns).astype(np.float64)

    def group_sums(self, groups: Ints, count: int) -> CellSums:
        pairs, times = np.unique(self.cells * count + groups, return_counts=True)
        return CellSums(count, self.columns, pairs // count, pairs % count, times.astype(np.float64))

    @property
    def compared(self) -> Ints:
        return self.cells


def run_starts(ordered: npt.NDArray[Any]) -> Ints:
    """Return where the runs of equal values begin in ordered ones (n,), one or more."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


# --- closed answers: a confusion matrix, its last column the unparsed --------------------------------


@dataclass(frozen=True)
class ClassCounts:
    """Counts and rates of each class from a confusion matrix (..., k, k + 1); arrays of shape (..., k)."""

    support: Array
    answered: Array
    precision: Array
    recall: Array
    f1: Array


def class_counts(confusion: Array) -> ClassCounts:
    """Count per class; rows are the truth, columns the answers, the last those unparsed or missing."""
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


def confusion_rows(truth: Ints, answers: Ints, classes: int) -> CellRows:
    """Return a one-hot row of k * (k + 1) per question: its cell of the flattened confusion matrix.

    `truth` (n,) holds class numbers 0..k-1, `answers` (n,) the same or -1 for an unparsed answer.
    """
    column = np.where(answers < 0, classes, answers)
    return CellRows(truth * (classes + 1) + column, classes * (classes + 1))


def class_metrics(sums: Array, classes: int) -> Metrics:
    """Return accuracy, balanced_accuracy, macro_f1 and parsed from flattened confusion matrices."""
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
    """Return `class_metrics` of the classes (yes, no), and

    - over_call: the fraction of true "no" that was answered "yes" (a false alarm);
    - miss: the fraction of true "yes" that was not answered "yes" (an unparsed answer reports nothing);
    - says_yes: the fraction of all questions answered "yes".
    """
    confusion = sums.reshape(*sums.shape[:-1], 2, 3)
    per_class = class_counts(confusion)
    return class_metrics(sums, 2) | {
        "over_call": ratio(confusion[..., 1, 0], per_class.support[..., 1]),
        "miss": 1 - per_class.recall[..., 0],
        "says_yes": ratio(per_class.answered[..., 0], sums.sum(axis=-1)),
    }


def majority_class_metrics(support: Array) -> dict[str, float]:
    """Return what always answering the most frequent class scores; `support` (k,) are the true counts."""
    prior = support.max() / support.sum()
    present = int((support > 0).sum())
    return {
        "accuracy": float(prior),
        "balanced_accuracy": 1 / present,
        "macro_f1": float(2 * prior / (1 + prior)) / present,
    }


def random_guess_metrics(support: Array) -> dict[str, float]:
    """Return what a uniform guess among all k classes scores on average (macro-F1: of the average matrix)."""
    guesses = len(support)
    priors = support[support > 0] / support.sum()
    return {
        "accuracy": 1 / guesses,
        "balanced_accuracy": 1 / guesses,
        "macro_f1": float(np.mean(2 * priors / (1 + guesses * priors))),
    }


# --- counts, boxes, text: means over questions -------------------------------------------------------


def count_rows(truth: Ints, answers: Ints) -> Array:
    """Return per question 1, parsed, exact, off by at most one, absolute error; answer -1 is unparsed."""
    parsed = answers >= 0
    error = np.where(parsed, np.abs(answers - truth), 0)
    columns = [np.ones(len(truth)), parsed, parsed & (error == 0), parsed & (error <= 1), error]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def count_metrics(sums: Array) -> Metrics:
    """Return exact and within_one over all questions, mean_abs_error over the parsed answers only."""
    questions, parsed, exact, within_one, error = np.moveaxis(sums, -1, 0)
    return {
        "exact": ratio(exact, questions),
        "within_one": ratio(within_one, questions),
        "mean_abs_error": ratio(error, parsed),
        "parsed": ratio(parsed, questions),
    }


def box_rows(overlap: Array) -> Array:
    """Return per question 1, parsed, IoU, IoU >= 0.5; `overlap` (n,) is NaN where no box was parsed."""
    parsed = ~np.isnan(overlap)
    known = np.where(parsed, overlap, 0.0)
    columns = [np.ones(len(overlap)), parsed, known, known >= 0.5]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def box_metrics(sums: Array) -> Metrics:
    """Return mean_iou and acc_50 (the fraction with IoU >= 0.5); an unparsed box has IoU 0."""
    questions, parsed, overlap, hits = np.moveaxis(sums, -1, 0)
    return {
        "mean_iou": ratio(overlap, questions),
        "acc_50": ratio(hits, questions),
        "parsed": ratio(parsed, questions),
    }


def text_rows(exact: Bools, f1: Array, parsed: Bools) -> Array:
    """Return per question 1, parsed, exact, word F1; all are (n,)."""
    columns = [np.ones(len(exact)), parsed, exact, f1]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def text_metrics(sums: Array) -> Metrics:
    """Return token_f1 and exact; parsed is the fraction of answers that are not empty."""
    questions, parsed, exact, f1 = np.moveaxis(sums, -1, 0)
    return {
        "token_f1": ratio(f1, questions),
        "exact": ratio(exact, questions),
        "parsed": ratio(parsed, questions),
    }


def report_rows(exact: Bools, parsed: Bools, fields: Array) -> Array:
    """Return per question 1, parsed, all fields right (`exact`), then two columns for each field.

    `exact` and `parsed` are (n,), `fields` (n, 2 * keys) the columns of the fields: the fraction of the field
    that is right, and 1 if the truth has it.
    """
    columns = [np.ones(len(exact)), parsed, exact]
    return np.hstack([np.stack([column.astype(np.float64) for column in columns], axis=1), fields])


def report_metrics(sums: Array, keys: Sequence[str]) -> Metrics:
    """Return field_accuracy, `field.<key>`, exact and parsed from sums of `report_rows`.

    field_accuracy is the fraction of all fields that are right, `field.<key>` the same of one field, exact
    the fraction of reports with all fields right, parsed the fraction of valid ones.
    """
    questions, parsed, exact = np.moveaxis(sums[..., :3], -1, 0)
    fields = sums[..., 3:].reshape(*sums.shape[:-1], len(keys), 2)
    return {
        "field_accuracy": ratio(fields[..., 0].sum(axis=-1), fields[..., 1].sum(axis=-1)),
        "exact": ratio(exact, questions),
        "parsed": ratio(parsed, questions),
        **{f"field.{key}": ratio(fields[..., i, 0], fields[..., i, 1]) for i, key in enumerate(keys)},
    }


def iou(first: Array, second: Array) -> Array:
    """Return the IoU of boxes x1, y1, x2, y2: (..., 4) and (..., 4) -> (...); NaN stays NaN."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    return ratio(intersection, areas[0] + areas[1] - intersection)
