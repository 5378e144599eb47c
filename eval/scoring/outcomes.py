"""What every kind of question has: how its answers turned out, and what can be asked of its family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.scoring import metrics as m

Texts = Sequence[str | None]


@dataclass(frozen=True)
class Outcome:
    """What one answers file says to the n questions of a task: `rows` (n, columns) for the metrics, and per
    question (n,) whether it is `right`, whether `parsed`, and in 0..1 how good (`value`). `boxes` (n, 4) of
    a box task are shares of the picture, NaN where none was given."""

    rows: m.Array
    right: m.Bools
    parsed: m.Bools
    value: m.Array
    boxes: m.Array | None = None


class Family(Protocol):
    """The questions of one task. `headline` is the metric that base and tuned are compared by."""

    @property
    def headline(self) -> str: ...

    def read(self, texts: Texts) -> Outcome:
        """The outcome of the answers, in the order of the truths; None is a missing answer."""

    def metrics(self, sums: m.Array) -> m.Metrics: ...

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        """Intervals for where the bootstrap says nothing: Wilson's, with groups (g, columns) for trials."""

    def majority(self) -> dict[str, float]: ...

    def random(self) -> dict[str, float]: ...


def shares(point: dict[str, float], trials: int) -> dict[str, tuple[float, float]]:
    """Wilson intervals of the values that are means of numbers in 0..1."""
    return {
        name: m.wilson(value, trials)
        for name, value in point.items()
        if name != "mean_abs_error" and value == value
    }


def floats(values: m.Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if name != "parsed"}
