"""Schema of decision.json: three answers instead of a probability, and what is promised of them.

Whoever applies a decision reads it with `load_decision`, asks `check_model`, `check_unit` and `check_wording`
as far as they know these, and `decide` for each answer. Nothing here loads torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llava.common.errors import InputError
from llava.common.files import first_problem, read_json
from llava.common.records import Call, Calls, InputFile
from llava.deciding.calls import Thresholds, steps


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Bound(_Part):
    """A bound on the share of groups that are wrong, and what it rests on.

    `groups` are those of the calibration pictures that could be wrong, `wrong` of which are. If `certified`,
    the true share is at most `rate` with the probability `confidence`. `needed` groups, none of them wrong,
    are the fewest that certify this rate; `best` is the lowest rate that so many groups as there are can
    certify.
    """

    rate: float
    confidence: float
    certified: bool
    groups: int
    wrong: int
    needed: int
    best: float


class Certificate(_Part):
    """A decision on answers of yes or no, "yes" being a defect, and what is promised of it.

    A picture whose P(yes) is under `sound_below` is called sound, one at `defect_from` or above a defect; a
    person is asked about the others. Where a threshold is absent nothing is called so. `certified`: the
    promise on misses holds; without it nothing is called sound. `false_alarms` is absent where nothing was
    asked of them. `defective` and `sound` are what the decision makes of the calibration pictures, by what
    they truly show, and `to_person` the share of them that is left to a person.
    """

    sound_below: float | None = Field(default=None, ge=0, le=1)
    defect_from: float | None = Field(default=None, ge=0, le=1)
    certified: bool
    guarantee: str
    misses: Bound
    false_alarms: Bound | None = None
    defective: Calls
    sound: Calls
    to_person: float

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        below, start = self.sound_below, self.defect_from
        if below is not None and start is not None and below > start:
            raise ValueError("sound_below is above defect_from")
        return self

    @property
    def thresholds(self) -> Thresholds:
        below, start = self.sound_below, self.defect_from
        return Thresholds(None if below is None else steps(below), None if start is None else steps(start))

    def decide(self, p_yes: float | None) -> Call:
        """Return what is said of a picture with this P(yes); a person is asked where there is none."""
        return self.thresholds.call(p_yes)


class Decision(Certificate):
    """The file: a certificate, and what it is for. `limits` say in sentences what is not promised."""

    format: Literal["llava-inspect decision"] = "llava-inspect decision"
    version: Literal[1] = 1
    task: str
    about: str | None = None
    """What is asked for (the truth's meta `about`), where it is one thing."""
    wordings: list[str] = Field(min_length=1)
    """The questions as they were asked."""
    choices: tuple[str, str]
    """The answers that were offered: that for yes, of whose probability P(yes) is made, and that for no."""
    recipe: str | None = None
    """The recipe that `convert` made the questions of."""
    unit: str | None = None
    """What its questions are about: picture, object (a crop) or tile."""
    model_id: str
    fingerprint: str | None = None
    """Of the model's files; without it the model is known by its name alone."""
    limits: list[str]
    answers: InputFile
    truth: InputFile
    pictures: list[str]
    """The SHA-256 of each calibration picture's file."""

    def check_model(self, *, fingerprint: str | None = None, model_id: str | None = None) -> None:
        """Raise InputError if the decision was made for another model.

        Args:
            fingerprint: Of the model that answers (`ModelFolder.fingerprint`).
            model_id: Its name, which is compared where the decision or the caller knows no fingerprint.
        """
        if self.fingerprint is not None and fingerprint is not None:
            if fingerprint != self.fingerprint:
                raise InputError(
                    f"the decision was certified for another model ({self.model_id}, "
                    f"{self.fingerprint[:19]}), not for this one ({fingerprint[:19]}): certify one for it"
                )
        elif model_id is not None and model_id != self.model_id:
            raise InputError(
                f"the decision was certified for the model {self.model_id!r}, not for {model_id!r}: certify "
                "one for this model"
            )

    def check_unit(self, unit: str) -> None:
        """Raise InputError if the decision was made for another unit than what is asked about."""
        if self.unit is not None and self.unit != unit:
            raise InputError(
                f"the decision was certified for each {self.unit}, and here each {unit} is asked"
            )

    def check_wording(self, wording: str) -> None:
        """Raise InputError if the decision was made for other questions than this one."""
        if wording not in self.wordings:
            known = " or ".join(f'"{text}"' for text in self.wordings[:3])
            raise InputError(
                f'the decision was certified for the question {known}, not for "{wording}": ask as it was '
                "certified, or certify this wording"
            )


def load_decision(path: Path) -> Decision:
    """Read decision.json; InputError if it is none."""
    try:
        return Decision.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is not a decision of certify: {first_problem(error)}") from None
