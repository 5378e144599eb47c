"""Slices: scores of parts of the questions, by what is true, box size, source folder or language."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from eval.scoring.boxes import truth_box
from eval.scoring.intervals import (
    bootstrap_estimates,
    bootstrap_sums,
    group_sums,
    paired_differences,
    wilson_estimate,
    wilson_interval,
)
from eval.scoring.metrics import Array, Ints, Metrics, ratio
from eval.scoring.outcomes import Outcomes
from eval.scoring.parse import same_text
from eval.scoring.schema import Estimate, Slice
from llava.common.records import Truth

# Upper limits, as fractions of the image. 1% is a square of a tenth of each side, 2.4 patches of LLaVA-1.5.
SIZES = {"small": 0.01, "medium": 0.1, "large": np.inf}
SliceCriterion = Literal["size", "source", "language", "all"]


def truth_slices(truths: Sequence[Truth], outcomes: Sequence[Outcomes]) -> list[Slice]:
    """Return the fraction of right answers by what is true: by answer and by label (where given).

    By answer only in closed lists, and not for letters, which stand for another answer in each question.
    """
    members: dict[tuple[str | None, str | None], list[int]] = {}
    for index, truth in enumerate(truths):
        letters = set(truth.classes or ()) <= set(string.ascii_uppercase)
        closed = truth.type == "yesno" or (truth.type == "class" and not letters)
        answer = truth.answer if closed else None
        label = None if closed and truth.label and same_text(truth.label, truth.answer) else truth.label
        if answer is not None or label is not None:
            members.setdefault((answer, label), []).append(index)
    slices = []
    for (answer, label), rows in sorted(members.items(), key=lambda item: [text or "" for text in item[0]]):
        groups = len({truths[row].group for row in rows})
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
    truths: Sequence[Truth],
    values: Sequence[Array],
    resamples: int,
    seed: int,
) -> list[Slice]:
    """Return a slice per name, in the order of SIZES or of the alphabet; none where all are in one slice.

    Args:
        by: What the slices differ in.
        names: The name of each question's slice, None where it is in none.
        truths: The questions.
        values: How good each answer is (n,), of tuned, and of base if there is one.
        resamples: Resamples of the bootstrap.
        seed: Seed of the resamples.
    """
    present = {name for name in names if name is not None}
    if len(present) < 2:
        return []
    order = [name for name in SIZES if name in present] if by == "size" else sorted(present)
    return [
        mean_slice(
            by, name, np.flatnonzero([other == name for other in names]), truths, values, resamples, seed
        )
        for name in order
    ]


def mean_slice(
    by: SliceCriterion,
    name: str,
    rows: Ints,
    truths: Sequence[Truth],
    values: Sequence[Array],
    resamples: int,
    seed: int,
) -> Slice:
    """Return the slice of the questions `rows`: the means of `values`, with intervals.

    Arguments are as in `make_slices`; `name` is the slice's name.
    """
    groups = [truths[row].group for row in rows]
    columns = np.stack([np.ones(len(rows)), *(value[rows] for value in values)], axis=1)
    sums = group_sums(columns, groups)
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


def size_names(truths: Sequence[Truth]) -> list[str | None]:
    """Return the size class of the box in question: the true box, or meta `area`; None without either."""
    return [_size_class(truth) for truth in truths]


def _size_class(truth: Truth) -> str | None:
    box = truth_box(truth)
    area = truth.meta.get("area") if box is None else (box[2] - box[0]) * (box[3] - box[1])
    if not isinstance(area, (int, float)) or isinstance(area, bool) or not 0 < area <= 1:
        return None
    return next(name for name, limit in SIZES.items() if area < limit)


def source_names(truths: Sequence[Truth]) -> list[str | None]:
    """Return the folders down to the first in which the images' names (meta `source`) differ.

    None for a question without a source.
    """
    folders = [
        PurePosixPath(str(truth.meta["source"])).parent.parts if "source" in truth.meta else None
        for truth in truths
    ]
    known = [parts for parts in folders if parts is not None]
    depth = 0
    while (
        known and all(len(parts) > depth for parts in known) and len({parts[depth] for parts in known}) == 1
    ):
        depth += 1
    return [None if parts is None else "/".join(parts[: depth + 1]) or "." for parts in folders]


def language_names(truths: Sequence[Truth]) -> list[str | None]:
    return [truth.language for truth in truths]


SLICE_NAMES: dict[SliceCriterion, Callable[[Sequence[Truth]], list[str | None]]] = {
    "size": size_names,
    "source": source_names,
    "language": language_names,
}
