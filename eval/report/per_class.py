"""Right answers per class: which of the things to be found a model finds, and which it misses."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from eval.scoring.schema import Estimate, TaskScore

HALF = 0.5
FEW = 5  # questions; with fewer a class is not called weak, and is folded away in tables
_LISTED = 8  # classes named in one sentence
_ZERO = Estimate(value=0)


@dataclass(frozen=True)
class ClassTally:
    """Holds how many (`right`) of `n` questions about a class were answered rightly."""

    name: str
    right: int
    n: int


def class_tallies(task: TaskScore) -> list[ClassTally]:
    """Return the tallies of what is to be found, the best found first.

    Classes are the true answers of a closed list (but no letters), or what the images show; in yes/no tasks
    only questions whose right answer is yes count.
    """
    if task.type != "class":
        yes = (task.classes or ["yes"])[0] if task.type == "yesno" else None
        slices = [part for part in task.slices if part.by == "truth" and part.answer == yes and part.label]
        tallies = [ClassTally(part.label or "", round(part.tuned.value * part.n), part.n) for part in slices]
        tallies = tallies if len(tallies) > 1 else []
    elif set(task.classes or []) <= set(string.ascii_uppercase):
        tallies = []
    else:
        rows = [row for row in task.tuned.per_class or [] if row.support and row.recall]
        tallies = [
            ClassTally(row.name, round((row.recall or _ZERO).value * row.support), row.support)
            for row in rows
        ]
    return sorted(tallies, key=lambda tally: (-tally.right / tally.n, -tally.n))


def weak_classes(tallies: Sequence[ClassTally], threshold: float = HALF) -> list[ClassTally]:
    """Return the classes of which less than `threshold` (0..1) was right, the worst first."""
    return [tally for tally in reversed(tallies) if tally.n >= FEW and tally.right < threshold * tally.n]


def tally_text(tallies: Sequence[ClassTally]) -> str:
    """Return `crack 9 of 10, rust 3 of 8`; those in the middle of a long list are counted only."""
    parts = [f"{tally.name} {tally.right:,} of {tally.n:,}" for tally in tallies]
    if len(parts) > _LISTED + 2:  # the worst are what matters: those in the middle are left out
        half = _LISTED // 2
        parts = [*parts[:half], f"… {len(parts) - _LISTED:,} more …", *parts[-half:]]
    return ", ".join(parts)
