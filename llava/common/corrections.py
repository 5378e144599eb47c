"""Schema of corrections.json: what a person says of a survey's findings. The survey's page saves it, and
data_prep reads it as annotations."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llava.common.boxes import Box
from llava.common.records import Call

CORRECTIONS_FORMAT: Final = "llava-inspect corrections"
Verdict = Literal["accept", "reject", "correct"]


class Correction(BaseModel):
    """What a person says of one finding.

    `photo` shows it best, and `more_photos` of a burst show it too. `decision` is the survey's. `accept`: it
    is as the survey says, and `kind` and `box` repeat that.
    `reject`: it is not. `correct`: there is `kind`. A `box` is (x1, y1, x2, y2) in 0..1 of the upright photo,
    the survey's or one that the person drew; a kind without one is somewhere in the photo.
    """

    model_config = ConfigDict(extra="forbid")

    finding: str
    photo: str = Field(min_length=1)
    decision: Call
    verdict: Verdict
    kind: str | None = None
    box: Box | None = None
    note: str = ""
    more_photos: list[str] = Field(default_factory=list)

    @field_validator("box", mode="before")
    @classmethod
    def _is_in_the_photo(cls, box: Any) -> Any:
        if box is None or _is_box(box):
            return box
        raise ValueError("its box is not x1, y1, x2, y2 in 0..1, with x1 < x2 and y1 < y2")

    @model_validator(mode="after")
    def _is_whole(self) -> Correction:
        if self.verdict == "reject":
            return self
        if self.kind is not None and not self.kind.strip():
            raise ValueError("its kind is empty; name it")
        if self.kind is None and self.verdict == "correct":
            raise ValueError("it is corrected, but names no kind")
        if self.kind is None and self.box is not None:
            raise ValueError("it has a box, but names no kind")
        return self

    @property
    def names_what_is_there(self) -> bool:
        """Whether it says which kind is in the photo, or that none is. A defect that is accepted without a
        kind does not, nor does one who says only that a photo is not sound."""
        if self.verdict == "reject":
            return self.decision != "sound"
        return self.kind is not None or self.decision == "sound"


def _is_box(box: Any) -> bool:
    is_four = isinstance(box, (list, tuple)) and len(box) == 4
    if not is_four or not all(isinstance(edge, (int, float)) for edge in box):
        return False
    x1, y1, x2, y2 = box
    return 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1


class Corrections(BaseModel):
    """The file. `survey` is that of findings.json, `photos_folder` the folder that photos are named below."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["llava-inspect corrections"] = CORRECTIONS_FORMAT
    version: Literal[1] = 1
    survey: str
    photos_folder: str
    corrections: list[Correction]
