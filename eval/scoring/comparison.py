"""Comparison of tuned and base: which is better in a task, and in how many tasks of the whole test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.scoring.schema import ComparisonOutcome, Estimate, TaskScore

SMALL = 20  # groups; below this a percentile interval is rough, and usually too narrow
NEGLIGIBLE = 0.02  # a difference whose whole interval is nearer to zero than this counts as none


def comparison_outcome(difference: Estimate | None, same: bool) -> ComparisonOutcome:
    """Classify a difference, tuned minus base; None is no base at all.

    `same`: both systems are right and wrong alike, question by question.
    """
    if difference is None:
        return "alone"
    if same:
        return "same"
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    if difference.high < 0:
        return "worse"
    return "same" if max(-difference.low, difference.high) < NEGLIGIBLE else "undecided"


def describe_difference(difference: Estimate | None, same: bool, needed: int | None = None) -> str:
    """Return the comparison in words; `needed`: groups of images that would decide it."""
    outcome = comparison_outcome(difference, same)
    if difference is None:
        return "no base answers were given to compare with tuned"
    if same:
        return "the same: tuned and base are right and wrong alike"
    if difference.low is None or difference.high is None:
        return "too few pictures to decide"
    figures = f"{difference.value:+.2f} [{difference.low:.2f}, {difference.high:.2f}]"
    if outcome in ("better", "worse"):
        return f"tuned is {outcome}: {figures}"
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
    subject = f"Of {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}, tuned is "
    sentence = subject + ", ".join(parts) + "." if parts else ""
    if undecided:
        names = ", ".join(task.task for task in undecided)
        needed = [task.needed_groups for task in undecided if task.needed_groups]
        largest = max(task.groups for task in undecided)
        enough = f"; some {min(needed):,} would decide the first of them" if needed else ""
        groups = f"{largest:,} independent {'group' if largest == 1 else 'groups'} of pictures{enough}"
        sentence += f" This test is too small to decide {names}: {groups}."
    return sentence.strip()
