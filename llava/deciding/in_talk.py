"""What a decision says of the picture in a talk, where it is asked what the decision was certified for."""

from __future__ import annotations

from dataclasses import dataclass

from llava.common.records import Call
from llava.deciding.decision import Decision
from llava.inference.chat import Talk


@dataclass(frozen=True)
class Decided:
    """What is said of a picture, and the probability that it is said by."""

    call: Call
    p_yes: float


def decide_in_talk(decision: Decision, talk: Talk, question: str) -> Decided | None:
    """Decide on the picture that was shown last, after a question was answered.

    The talk so far and other pictures in it change probabilities. So the model is asked aside, as it was for
    the calibration: one picture, one question.

    Args:
        decision: What was certified, for the talk's model.
        talk: Whose picture is decided on.
        question: What was asked last. White space does not count: a terminal has no line breaks in questions.

    Returns:
        None where the question is none that the decision is for, or no picture was shown.

    Raises:
        InputError: the question cannot be asked aside.
    """
    wording = next((known for known in decision.wordings if known.split() == question.split()), None)
    if wording is None:
        return None
    probabilities = talk.probabilities_alone(wording, decision.choices)
    if probabilities is None:
        return None
    p_yes = probabilities[decision.choices[0]]
    return Decided(decision.decide(p_yes), p_yes)
