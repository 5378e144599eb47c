"""What a difference between tuned and base decides, of a task and of the whole test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.scoring.schema import Estimate, Outcome, TaskScore

SMALL = 20  # groups; below this a percentile interval is rough, and usually too narrow
NEGLIGIBLE = 0.02  # a difference whose whole interval is nearer to zero than this is none to speak of


def outcome_of(difference: Estimate | None, same: bool) -> Outcome:
    """`same`: both systems' answers are read alike, question by question. None is no base at all."""
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


def verdict_of(difference: Estimate | None, same: bool, needed: int | None = None) -> str:
    outcome = outcome_of(difference, same)
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
    """With how many groups, roughly, a difference of this size would be told from zero, or one under
    NEGLIGIBLE be known to be none: intervals shrink with the root of the number of groups. Never fewer than
    SMALL: what fewer seem to decide is not to be relied on."""
    if difference is None or difference.low is None or difference.high is None:
        return None
    half = (difference.high - difference.low) / 2
    return max(groups + 1, SMALL, math.ceil(groups * (half / max(abs(difference.value), NEGLIGIBLE)) ** 2))


def verdict_of_all(tasks: Sequence[TaskScore]) -> str:
    """How many tasks are better and worse, and whether the test is too small for the rest."""
    if all(task.outcome == "alone" for task in tasks):
        return "No base answers were given: what the tuning changed is not known."
    parts = []
    for outcome, words in (("better", "better in"), ("worse", "WORSE in"), ("same", "no different in")):
        named = [task.task for task in tasks if task.outcome == outcome]
        if named:
            parts.append(f"{words} {len(named)} ({', '.join(named)})")
    open_ = [task for task in tasks if task.outcome == "undecided"]
    whole = f"Of {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}, tuned is "
    sentence = whole + ", ".join(parts) + "." if parts else ""
    if open_:
        tasks_open = ", ".join(task.task for task in open_)
        needed = [task.needed_groups for task in open_ if task.needed_groups]
        most = max(task.groups for task in open_)
        enough = f"; some {min(needed):,} would decide the first of them" if needed else ""
        groups = f"{most:,} independent {'group' if most == 1 else 'groups'} of pictures{enough}"
        sentence += f" This test is too small to decide {tasks_open}: {groups}."
    return sentence.strip()
