"""Comparison of tuned and base: which is better in a task, and in how many tasks of the whole test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.scoring.schema import ComparisonOutcome, Estimate, TaskScore

SMALL = 20  # groups; below this a percentile interval is rough, and usually too narrow
NEGLIGIBLE = 0.02  # a difference whose whole interval is nearer to zero than this counts as none


def comparison_outcome(
    difference: Estimate | None, same: bool, sees: bool | None = True
) -> ComparisonOutcome:
    """Classify a difference, tuned minus base; None is no base at all.

    Args:
        difference: Tuned minus base, with its interval.
        same: Whether both systems are right and wrong alike, question by question.
        sees: Whether tuned is above blind guessing (`TaskScore.sees`). Where that is not shown, a model that
            never looks would be better than base too, and tuned is not called so.
    """
    if difference is None:
        return "alone"
    if same:
        return "same"
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better" if sees else "blind"
    if difference.high < 0:
        return "worse"
    return "same" if max(-difference.low, difference.high) < NEGLIGIBLE else "undecided"


def describe_difference(
    outcome: ComparisonOutcome, difference: Estimate | None, blind: float, needed: int | None = None
) -> str:
    """Return the comparison in words.

    Args:
        outcome: What `comparison_outcome` says of it.
        difference: Tuned minus base.
        blind: What blind guessing scores.
        needed: Groups of images that would decide it.
    """
    if difference is None:
        return "no base answers were given to compare with tuned"
    if outcome == "same" and difference.low == difference.high == 0:
        return "the same: tuned and base are right and wrong alike"
    if difference.low is None or difference.high is None:
        return "too few pictures to decide"
    figures = f"{difference.value:+.2f} [{difference.low:.2f}, {difference.high:.2f}]"
    if outcome in ("better", "worse"):
        return f"tuned is {outcome}: {figures}"
    if outcome == "blind":
        return (
            f"no verdict: {figures} against base, but tuned is not shown to be better than a guess without "
            f"looking ({blind:.2f})"
        )
    if outcome == "same":
        return f"no difference to speak of: {figures}"
    enough = f"; some {needed:,} groups of pictures would be needed" if needed else ""
    return f"too few pictures to decide: {figures}{enough}"


def groups_needed(difference: Estimate | None, groups: int) -> int | None:
    """Estimate how many groups would tell a difference of this size from zero, or show it to be NEGLIGIBLE.

    Intervals shrink with the square root of the number of groups. Never fewer than SMALL: what fewer seem to
    decide cannot be relied on.
    """
    if difference is None or difference.low is None or difference.high is None:
        return None
    half = (difference.high - difference.low) / 2
    return max(groups + 1, SMALL, math.ceil(groups * (half / max(abs(difference.value), NEGLIGIBLE)) ** 2))


def describe_comparisons(tasks: Sequence[TaskScore]) -> str:
    """Return in words which tasks are better and worse, and which the test is too small to decide."""
    if all(task.outcome == "alone" for task in tasks):
        return "No base answers were given: what the tuning changed is not known."
    parts = []
    for outcome, words in (("better", "better in"), ("worse", "WORSE in"), ("same", "no different in")):
        named = [task.task for task in tasks if task.outcome == outcome]
        if named:
            parts.append(f"{words} {len(named)} ({', '.join(named)})")
    undecided = [task for task in tasks if task.outcome == "undecided"]
    blind = [task.task for task in tasks if task.outcome == "blind"]
    subject = f"Of {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}, tuned is "
    sentence = subject + ", ".join(parts) + "." if parts else ""
    if blind:
        sentence += (
            f" No verdict on {', '.join(blind)}: above base, but a guess without looking may do as well."
        )
    if undecided:
        names = ", ".join(task.task for task in undecided)
        needed = [task.needed_groups for task in undecided if task.needed_groups]
        largest = max(task.groups for task in undecided)
        enough = f"; some {min(needed):,} would decide the first of them" if needed else ""
        groups = f"{largest:,} independent {'group' if largest == 1 else 'groups'} of pictures{enough}"
        sentence += f" This test is too small to decide {names}: {groups}."
    return sentence.strip()
