"""Scores of parts of the questions: by what is true, by size of the box, by source folder, by language."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from eval.scoring import metrics as m
from eval.scoring.boxes import truth_box
from eval.scoring.intervals import differences, estimates, share
from eval.scoring.outcomes import Outcome
from eval.scoring.parse import same_text
from eval.scoring.schema import Estimate, Slice
from llava.common.records import Truth

# Of the picture's area. 1% is a square of a tenth of each side: 2.4 patches of LLaVA-1.5.
SIZES = {"small": 0.01, "medium": 0.1, "large": np.inf}
By = Literal["size", "source", "language", "all"]


def truth_slices(truths: Sequence[Truth], outcomes: Sequence[Outcome]) -> list[Slice]:
    """Shares of right answers by what is true: the answer (closed lists, save for letters, which stand for
    another answer in each question) and the label (where given)."""
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
        shares = [share(float(outcome.right[rows].mean()), groups) for outcome in outcomes]
        slices.append(
            Slice(
                name=": ".join(text for text in (answer, label) if text is not None),
                answer=answer,
                label=label,
                n=len(rows),
                groups=groups,
                tuned=shares[0] or Estimate(value=0),
                base=shares[1] if len(shares) > 1 else None,
            )
        )
    return slices


def slices_by(
    by: By,
    names: Sequence[str | None],
    truths: Sequence[Truth],
    values: Sequence[m.Array],
    resamples: int,
    seed: int,
) -> list[Slice]:
    """A slice per name, in the order of SIZES or of the alphabet; none where all questions are in one.
    `values` are those of tuned, and of base if there is one (n,)."""
    present = {name for name in names if name is not None}
    if len(present) < 2:
        return []
    order = [name for name in SIZES if name in present] if by == "size" else sorted(present)
    return [
        slice_of(
            by, name, np.flatnonzero([other == name for other in names]), truths, values, resamples, seed
        )
        for name in order
    ]


def slice_of(
    by: By,
    name: str,
    rows: m.Ints,
    truths: Sequence[Truth],
    values: Sequence[m.Array],
    resamples: int,
    seed: int,
) -> Slice:
    """The means of `values` over some rows."""
    groups = [truths[row].group for row in rows]
    columns = np.stack([np.ones(len(rows)), *(value[rows] for value in values)], axis=1)
    sums = m.group_sums(columns, groups)
    drawn = m.bootstrap_sums(sums, resamples, [seed])
    draws: list[m.Metrics] = [{"value": m.ratio(drawn[:, i], drawn[:, 0])} for i in range(1, 1 + len(values))]
    found = []
    for value, draw in zip(columns[:, 1:].mean(axis=0), draws, strict=True):
        mean = float(value)
        found.append(estimates({"value": mean}, draw, {"value": m.wilson(mean, len(sums))}))
    difference = None
    if len(values) == 2:
        same = bool((values[0][rows] == values[1][rows]).all())
        difference = differences(found, draws, same)["value"]
    return Slice(
        by=by,
        name=name,
        n=len(rows),
        groups=len(sums),
        tuned=found[0]["value"],
        base=found[1]["value"] if len(found) == 2 else None,
        difference=difference,
    )


# --- which slice a question is in --------------------------------------------------------------------


def sizes(truths: Sequence[Truth]) -> list[str | None]:
    """By the share of the picture that the box in question covers: the true box, or meta `area`; None where
    neither is there."""
    return [_size(truth) for truth in truths]


def _size(truth: Truth) -> str | None:
    box = truth_box(truth)
    area = truth.meta.get("area") if box is None else (box[2] - box[0]) * (box[3] - box[1])
    if not isinstance(area, (int, float)) or isinstance(area, bool) or not 0 < area <= 1:
        return None
    return next(name for name, most in SIZES.items() if area < most)


def sources(truths: Sequence[Truth]) -> list[str | None]:
    """The first folder by which the pictures' names (meta `source`) differ; None everywhere where they lie in
    one folder."""
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


def languages(truths: Sequence[Truth]) -> list[str | None]:
    return [truth.language for truth in truths]


NAMED: dict[By, Callable[[Sequence[Truth]], list[str | None]]] = {
    "size": sizes,
    "source": sources,
    "language": languages,
}
