"""Slices: scores of parts of the questions, by what is true, box size, source folder or language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from eval.scoring.columns import SIZES, Folder, Shown, TruthColumns
from eval.scoring.intervals import (
    bootstrap_estimates,
    bootstrap_sums,
    paired_differences,
    wilson_estimate,
    wilson_interval,
)
from eval.scoring.metrics import Array, Ints, Metrics, NumberRows, ratio
from eval.scoring.outcomes import Judged
from eval.scoring.schema import Estimate, Slice

SliceCriterion = Literal["size", "source", "language", "all"]


def truth_slices(columns: TruthColumns, outcomes: Sequence[Judged]) -> list[Slice]:
    """Return the fraction of right answers by what is true: by answer and by label (where given)."""
    members: dict[Shown, list[int]] = {}
    for index, shown in enumerate(columns.shown):
        if shown != (None, None):
            members.setdefault(shown, []).append(index)
    slices = []
    for (answer, label), rows in sorted(members.items(), key=lambda item: [text or "" for text in item[0]]):
        groups = len(np.unique(columns.groups[rows]))
        estimates = [wilson_estimate(float(outcome.right[rows].mean()), groups) for outcome in outcomes]
        slices.append(
            Slice(
                name=": ".join(text for text in (answer, label) if text is not None),
                answer=answer,
                label=label,
                n=len(rows),
                groups=groups,
                tuned=estimates[0] or Estimate(value=0),
                base=estimates[1] if len(estimates) > 1 else None,
            )
        )
    return slices


def make_slices(
    by: SliceCriterion,
    names: Sequence[str | None],
    groups: Ints,
    values: Sequence[Array],
    resamples: int,
    seed: int,
) -> list[Slice]:
    """Return a slice per name, in the order of SIZES or of the alphabet; none where all are in one slice.

    Args:
        by: What the slices differ in.
        names: The name of each question's slice, None where it is in none.
        groups: The number of each question's group (n,).
        values: How good each answer is (n,), of tuned, and of base if there is one.
        resamples: Resamples of the bootstrap.
        seed: Seed of the resamples.
    """
    present = {name for name in names if name is not None}
    if len(present) < 2:
        return []
    order = [name for name in SIZES if name in present] if by == "size" else sorted(present)
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(order)}
    slice_of = np.fromiter((numbers.get(name, -1) for name in names), np.int64, len(names))
    return [
        mean_slice(by, name, np.flatnonzero(slice_of == number), groups, values, resamples, seed)
        for number, name in enumerate(order)
    ]


def mean_slice(
    by: SliceCriterion,
    name: str,
    rows: Ints,
    groups: Ints,
    values: Sequence[Array],
    resamples: int,
    seed: int,
) -> Slice:
    """Return the slice of the questions `rows`: the means of `values`, with intervals.

    Arguments are as in `make_slices`; `name` is the slice's name.
    """
    columns = np.stack([np.ones(len(rows)), *(value[rows] for value in values)], axis=1)
    present, numbers = np.unique(groups[rows], return_inverse=True)
    sums = NumberRows(columns).group_sums(numbers, len(present)).values
    drawn = bootstrap_sums(sums, resamples, [seed])
    draws: list[Metrics] = [{"value": ratio(drawn[:, i], drawn[:, 0])} for i in range(1, 1 + len(values))]
    estimates = []
    for value, draw in zip(columns[:, 1:].mean(axis=0), draws, strict=True):
        mean = float(value)
        estimates.append(
            bootstrap_estimates({"value": mean}, draw, {"value": wilson_interval(mean, len(sums))})
        )
    difference = None
    if len(values) == 2:
        same = bool((values[0][rows] == values[1][rows]).all())
        difference = paired_differences(estimates, draws, same)["value"]
    return Slice(
        by=by,
        name=name,
        n=len(rows),
        groups=len(sums),
        tuned=estimates[0]["value"],
        base=estimates[1]["value"] if len(estimates) == 2 else None,
        difference=difference,
    )


# --- which slice a question is in --------------------------------------------------------------------


def size_names(columns: TruthColumns) -> Sequence[str | None]:
    """Return the size class of the box in question."""
    return columns.sizes


def source_names(columns: TruthColumns) -> Sequence[str | None]:
    """Return the folders down to the first in which the images' names (meta `source`) differ."""
    return name_sources(columns.folders)


def name_sources(folders: Sequence[Folder | None]) -> list[str | None]:
    """Return the folders down to the first in which they differ; None for a question without a source."""
    known = {parts for parts in folders if parts is not None}
    depth = 0
    while (
        known and all(len(parts) > depth for parts in known) and len({parts[depth] for parts in known}) == 1
    ):
        depth += 1
    names = {parts: "/".join(parts[: depth + 1]) or "." for parts in known}
    return [None if parts is None else names[parts] for parts in folders]


def language_names(columns: TruthColumns) -> Sequence[str | None]:
    return columns.languages


SLICE_NAMES: dict[SliceCriterion, Callable[[TruthColumns], Sequence[str | None]]] = {
    "size": size_names,
    "source": source_names,
    "language": language_names,
}
