"""A decision file as the rule of a survey."""

from __future__ import annotations

from collections.abc import Sequence

from eval.predict import PhotoQuestion
from eval.survey.sightings import DEFECT
from llava.common.errors import InputError
from llava.common.records import Call
from llava.deciding.decision import Decision


class CertifiedRule:
    """Decides as decision.json says."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    @property
    def certified(self) -> str | None:
        return self._decision.guarantee if self._decision.certified else None

    def decide(self, p_yes: float) -> Call:
        return self._decision.decide(p_yes)


def check_asked(decision: Decision, questions: Sequence[PhotoQuestion]) -> None:
    """Check that a survey asks as its decision was certified.

    Args:
        decision: What was certified.
        questions: All that is asked about each photo, or part of one.

    Raises:
        InputError: it does not.
    """
    asked = next((item for item in questions if (item.family, item.about) == ("presence", DEFECT)), None)
    if asked is None or asked.choices is None:
        raise InputError(
            "--decision is for the question whether there is a defect, with the probabilities of its "
            "answers; the recipe does not ask it"
        )
    decision.check_wording(asked.text)
