"""Makes a decision of the answers about calibration pictures, and says in words what it promises."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.deciding.answered import AnsweredTask
from eval.deciding.apply import count_calls, wrong_groups
from eval.deciding.bounds import groups_needed, upper_bound
from eval.deciding.thresholds import choose_thresholds
from llava.deciding.calls import SCALE, Thresholds
from llava.deciding.decision import Bound, Certificate

LIMITS = (
    "It holds for pictures taken like those of the calibration. Other cameras, other lines and other "
    "seasons are not covered: certify a decision for them.",
    "It holds for all defects together. A rare kind may be missed more often than the others.",
    "What the calibration pictures show is taken as it was annotated: a defect that nobody marked is not "
    "counted as missed.",
    "It holds for the model as it was loaded for the calibration: not in other bits, nor with another chat "
    "template.",
    "It holds for a decision that is made once. Whoever tries several rates and keeps the one that looks "
    "best has no promise.",
)
"""What no decision promises."""


@dataclass(frozen=True)
class Promise:
    """What is to be certified, with the probability `confidence`: that at most the share `miss` of the groups
    with a defect is missed and, if it is given, at most `false_alarm` of the groups with a sound picture
    called a defect."""

    miss: float = 0.05
    confidence: float = 0.95
    false_alarm: float | None = None

    @property
    def each(self) -> float:
        """The confidence of each bound, so that all hold together (Bonferroni)."""
        return self.confidence if self.false_alarm is None else (1 + self.confidence) / 2


def certify(answered: AnsweredTask, promise: Promise) -> Certificate:
    """Choose the thresholds, and return them with what is promised of them.

    Too few pictures are an answer too: nothing is then called sound, and the guarantee says how many more
    there should be.
    """
    thresholds = choose_thresholds(answered, promise.miss, promise.each, promise.false_alarm)
    misses = _bound(thresholds, answered, promise.miss, promise.each, defective=True)
    alarms = None
    if promise.false_alarm is not None:
        alarms = _bound(thresholds, answered, promise.false_alarm, promise.each, defective=False)
    defective, sound = (count_calls(thresholds, answered, truly) for truly in (True, False))
    below, start = thresholds.sound_below, thresholds.defect_from
    return Certificate(
        sound_below=None if below is None else below / SCALE,
        defect_from=None if start is None else start / SCALE,
        certified=misses.certified,
        guarantee=_in_words(misses, alarms, promise.confidence, answered),
        misses=misses,
        false_alarms=alarms,
        defective=defective,
        sound=sound,
        to_person=round((defective.ask + sound.ask) / len(answered.p_yes), 6),
    )


def _bound(
    thresholds: Thresholds, answered: AnsweredTask, rate: float, confidence: float, *, defective: bool
) -> Bound:
    wrong, groups = wrong_groups(thresholds, answered, defective)
    threshold = thresholds.sound_below if defective else thresholds.defect_from
    return Bound(
        rate=rate,
        confidence=confidence,
        certified=threshold is not None,
        groups=groups,
        wrong=wrong,
        needed=groups_needed(rate, confidence),
        best=math.ceil(10_000 * upper_bound(0, groups, confidence)) / 10_000,
    )


def _in_words(misses: Bound, alarms: Bound | None, confidence: float, answered: AnsweredTask) -> str:
    """Return what is promised, and what is not for want of pictures."""
    single = len(set(answered.groups)) == len(answered.groups)
    defective, sound = _groups_of("with a defect", single), _groups_of("without a defect", single)
    promised, sentences = [], []
    if misses.certified:
        called = "are called sound" if single else "have one that is called sound"
        promised.append(f"at most {share(misses.rate)} of the {defective} {called}")
    else:
        sentences.append(f"Nothing is called sound: {_why_not(misses, defective, 'miss')}")
    if alarms and alarms.certified:
        called = "are called a defect" if single else "have one that is called a defect"
        promised.append(f"at most {share(alarms.rate)} of the {sound} {called}")
    elif alarms:
        sentences.append(f"Nothing is called a defect: {_why_not(alarms, sound, 'false-alarm')}")
    if alarms is None:
        sentences.append("Nothing is promised of false alarms.")
    if promised:
        chance = f"With a probability of {share(confidence)} over the choice of the calibration pictures"
        sentences.insert(0, f"{chance}, {' and '.join(promised)}.")
    return " ".join(sentences)


def share(value: float) -> str:
    """Return a rate as it was asked for: 5%, 0.5%, 97.5%."""
    return f"{round(100 * value, 4):g}%"


def _groups_of(what: str, single: bool) -> str:
    return f"pictures {what}" if single else f"groups of pictures {what}"


def _why_not(bound: Bound, groups: str, flag: str) -> str:
    """Say why a rate is not certified: how many groups are missing, and what there are can certify."""
    if bound.groups >= bound.needed:
        return (
            f"at every threshold too many of the {bound.groups:,} {groups} are on the wrong side; a better "
            f"model is needed, or a higher --{flag}."
        )
    text = (
        f"{bound.groups:,} {groups} are too few. {share(bound.rate)} at {share(bound.confidence)} takes "
        f"{bound.needed:,} of them, {bound.needed - bound.groups:,} more than there are, even if none is on "
        "the wrong side."
    )
    if bound.groups:
        text += f" Those that there are can certify {share(bound.best)} at best (--{flag} {bound.best:g})."
    return text
