"""Outcomes of the answers to a task's questions, and what every family of tasks can compute from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from eval.scoring.intervals import wilson_interval
from eval.scoring.metrics import Array, Bools, GroupSums, Metrics, Rows

AnswerTexts = Iterable[str | None]
"""An answer for each question of a task, None where it is missing; they are gone through once."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Holds how one answers file did on the n questions of a task.

    Per question (n,): whether the answer is `right`, was `parsed`, and how good it is, 0..1 (`value`).
    `boxes` (n, 4), of box tasks, are the answered boxes as fractions of the image, NaN where none was given.
    """

    right: Bools
    parsed: Bools
    value: Array
    boxes: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Outcomes(Judged):
    """Holds `rows` too, what metrics are sums of: more than is kept of every task."""

    rows: Rows

    @property
    def judged(self) -> Judged:
        """The same without the rows."""
        return Judged(right=self.right, parsed=self.parsed, value=self.value, boxes=self.boxes)


class TaskFamily(Protocol):
    """How the questions of one task are scored; `headline` is the metric that base and tuned differ by."""

    @property
    def headline(self) -> str: ...

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        """Read the answers, in the order of the truths, and compare them with these."""

    def metrics(self, sums: Array) -> Metrics:
        """Map sums (..., columns) of `Outcomes.rows` to one array (...) per metric."""

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        """Return intervals for where the bootstrap says nothing, with the groups of `sums` for trials."""

    def majority_baseline(self) -> dict[str, float]:
        """Return what always giving the commonest answer scores."""

    def random_baseline(self) -> dict[str, float]:
        """Return what random answers score on average; empty where there is no fixed set to guess from."""


def mean_intervals(values: dict[str, float], trials: int) -> dict[str, tuple[float, float]]:
    """Return Wilson's intervals of the metrics that are means of numbers in 0..1."""
    return {
        name: wilson_interval(value, trials)
        for name, value in values.items()
        if name != "mean_abs_error" and value == value
    }


def baseline_values(values: Metrics) -> dict[str, float]:
    """Return the metrics of a baseline as floats; it needs no parsing, so `parsed` is left out."""
    return {name: float(value) for name, value in values.items() if name != "parsed"}
