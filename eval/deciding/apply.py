"""What a decision makes of answers whose truth is known: how many are missed, how many left to a person."""

from __future__ import annotations

from collections import Counter

from eval.deciding.answered import AnsweredTask
from eval.deciding.bounds import exact_interval
from eval.scoring.intervals import make_estimate, wilson_interval
from eval.scoring.schema import DecisionScore, Estimate
from llava.common.records import Calls
from llava.deciding.calls import Thresholds
from llava.deciding.decision import Decision


def count_calls(thresholds: Thresholds, answered: AnsweredTask, defective: bool) -> Calls:
    """Count what is said of the pictures that truly show a defect, or of those that do not."""
    calls = Counter[str](
        thresholds.call(p_yes)
        for p_yes, truly in zip(answered.p_yes, answered.defective, strict=True)
        if truly == defective
    )
    return Calls(**calls)


def wrong_groups(thresholds: Thresholds, answered: AnsweredTask, defective: bool) -> tuple[int, int]:
    """Return how many groups have a picture that is called the wrong way, and how many could.

    With `defective` these are groups with a defect, of which a picture with it is called sound; else those
    with a sound picture, of which such a one is called a defect.
    """
    wrong: dict[str, bool] = {}
    for p_yes, truly, group in zip(answered.p_yes, answered.defective, answered.groups, strict=True):
        if truly == defective:
            is_wrong = thresholds.call(p_yes) == ("sound" if defective else "defect")
            wrong[group] = is_wrong or wrong.get(group, False)
    return sum(wrong.values()), len(wrong)


def score_decision(decision: Decision, answered: AnsweredTask, truth_sha256: str) -> DecisionScore:
    """Score a decision on answers to its task; `truth_sha256` is the hash of their truth file."""
    defective, sound = (count_calls(decision.thresholds, answered, truly) for truly in (True, False))
    groups = len(set(answered.groups))
    asked = (defective.ask + sound.ask) / len(answered.p_yes)
    return DecisionScore(
        task=decision.task,
        guarantee=decision.guarantee,
        certified=decision.certified,
        miss=decision.misses.rate,
        missed=_share(*wrong_groups(decision.thresholds, answered, defective=True)),
        false_alarms=_share(*wrong_groups(decision.thresholds, answered, defective=False)),
        to_person=make_estimate(asked, wilson_interval(asked, groups)),
        defective=defective,
        sound=sound,
        own_pictures=truth_sha256 == decision.truth.sha256,
    )


def _share(wrong: int, groups: int) -> Estimate | None:
    return make_estimate(wrong / groups, exact_interval(wrong, groups)) if groups else None
