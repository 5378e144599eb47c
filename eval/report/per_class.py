"""What a task's questions are about, kind by kind, and which of them a model misses."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from eval.scoring.schema import Estimate, TaskScore

HALF = 0.5
FEW = 5  # questions, below which a class or a kind is not called weak, and is folded away in tables
_LISTED = 8  # kinds named in one sentence
_ZERO = Estimate(value=0)


@dataclass(frozen=True)
class ClassTally:
    """Something to be found: `right` of `n` questions about it were answered rightly."""

    name: str
    right: int
    n: int


def class_tallies(task: TaskScore) -> list[ClassTally]:
    """What is to be found, the best found first: true answers of a closed list (letters are no kinds), or
    what the pictures show; in yes/no tasks those whose right answer is yes."""
    if task.type != "class":
        yes = (task.classes or ["yes"])[0] if task.type == "yesno" else None
        parts = [part for part in task.slices if part.by == "truth" and part.answer == yes and part.label]
        kinds = [ClassTally(part.label or "", round(part.tuned.value * part.n), part.n) for part in parts]
        kinds = kinds if len(kinds) > 1 else []
    elif set(task.classes or []) <= set(string.ascii_uppercase):
        kinds = []
    else:
        rows = [row for row in task.tuned.per_class or [] if row.support and row.recall]
        kinds = [
            ClassTally(row.name, round((row.recall or _ZERO).value * row.support), row.support)
            for row in rows
        ]
    return sorted(kinds, key=lambda kind: (-kind.right / kind.n, -kind.n))


def weak_classes(kinds: Sequence[ClassTally], least: float = HALF) -> list[ClassTally]:
    """Those of which less than `least` was right, the worst first."""
    return [kind for kind in reversed(kinds) if kind.n >= FEW and kind.right < least * kind.n]


def tally_text(kinds: Sequence[ClassTally]) -> str:
    parts = [f"{kind.name} {kind.right:,} of {kind.n:,}" for kind in kinds]
    if len(parts) > _LISTED + 2:  # the worst are what matters: those in the middle are left out
        half = _LISTED // 2
        parts = [*parts[:half], f"… {len(parts) - _LISTED:,} more …", *parts[-half:]]
    return ", ".join(parts)
