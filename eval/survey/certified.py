"""A decision file as the rule of a survey."""

from __future__ import annotations

from collections.abc import Sequence

from eval.deciding.decision import Decision
from eval.predict import PhotoQuestion
from eval.survey.sightings import DEFECT
from llava.common.errors import InputError
from llava.common.records import Call


class CertifiedRule:
    """Decides as decision.json says."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    @property
    def certified(self) -> str | None:
        return self._decision.guarantee if self._decision.certified else None

    def decide(self, p_yes: float) -> Call:
        return self._decision.decide(p_yes)


def wording_to_decide_by(decision: Decision, questions: Sequence[PhotoQuestion], unit: str) -> str:
    """Return the question whose answers the decision is for.

    Args:
        decision: What was certified.
        questions: All that is asked about each photo, or part of one.
        unit: What they are about: picture, object or tile.

    Raises:
        InputError: the survey does not ask as it was certified.
    """
    asked = next((item for item in questions if (item.family, item.about) == ("presence", DEFECT)), None)
    if asked is None or asked.choices is None:
        raise InputError(
            "--decision is for the question whether there is a defect, with the probabilities of its "
            "answers; the recipe does not ask it"
        )
    if decision.unit is not None and decision.unit != unit:
        raise InputError(
            f"the decision was certified for each {decision.unit}, and here each {unit} is asked"
        )
    return asked.text
