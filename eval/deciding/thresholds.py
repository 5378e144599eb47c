"""Chooses the thresholds of a decision: as few pictures as possible are left to a person.

A group is wrong if any of its pictures is, so that what counts of a group is its worst picture. Probabilities
have six decimals, as in answers files: the family of thresholds is 0, 0.000001, ..., 1, fixed before any
answer is seen, and is tested from the one that calls nothing sound (or nothing a defect) on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import takewhile

from eval.deciding.answered import AnsweredTask
from eval.deciding.bounds import fixed_sequence
from llava.deciding.calls import SCALE, Thresholds, steps

_NEVER = SCALE + 1


def choose_thresholds(
    answered: AnsweredTask, miss: float, confidence: float, false_alarm: float | None
) -> Thresholds:
    """Choose the thresholds that leave the fewest pictures to a person.

    Args:
        answered: The answers about the calibration pictures.
        miss: The share of groups with a defect of which a picture may be called sound.
        confidence: The probability with which each promise holds.
        false_alarm: The share of groups with a sound picture of which one may be called a defect; None
            promises nothing, and calls a defect what at most the share `miss` of these groups reaches.
    """
    misses = lowest_of_groups(answered, defective=True)
    below = last_safe(misses, lambda wrong: fixed_sequence(wrong, len(misses), miss, confidence))
    # Turned round, a false alarm is what a miss is: a picture on the wrong side of the threshold.
    alarms = lowest_of_groups(answered, defective=False)
    if false_alarm is None:
        turned = last_safe(alarms, lambda wrong: sum(1 for _ in takewhile(_at_most(miss, alarms), wrong)))
    else:
        turned = last_safe(alarms, lambda wrong: fixed_sequence(wrong, len(alarms), false_alarm, confidence))
    start = _NEVER - turned
    if below > start:  # whatever lies between is as safe for both, and leaves nothing to a person
        below = start = (below + start) // 2
    return Thresholds(below or None, start if start < _NEVER else None)


def lowest_of_groups(answered: AnsweredTask, defective: bool) -> list[int]:
    """Return of each group that holds such a picture how far its worst one is from the safe end, in steps:
    P(yes) of pictures with a defect, P(no) of sound ones.

    A group without a probability is left to a person whatever the threshold, and never wrong.
    """
    lowest: dict[str, int] = {}
    for p_yes, truly, group in zip(answered.p_yes, answered.defective, answered.groups, strict=True):
        if truly == defective:
            step = _NEVER if p_yes is None else steps(p_yes) if defective else SCALE - steps(p_yes)
            lowest[group] = min(step, lowest.get(group, _NEVER))
    return sorted(lowest.values())


def last_safe(lowest: Sequence[int], accepted: Callable[[Sequence[int]], int]) -> int:
    """Return the highest threshold that is accepted; 0, under which nothing lies, if none is.

    Args:
        lowest: The worst picture of each group, in rising order.
        accepted: Says how many of a family of thresholds are accepted, by the number of groups that have a
            picture below each.
    """
    # In between the number of wrong groups stays the same: the last threshold stands for all before it.
    family = sorted({step for step in lowest if step < _NEVER})
    count = accepted([bisect_left(lowest, step) for step in family])
    return family[count - 1] if count else 0


def _at_most(share: float, groups: Sequence[int]) -> Callable[[int], bool]:
    return lambda wrong: wrong <= share * len(groups) + 1e-9
