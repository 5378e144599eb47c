"""Schema of findings.json: what a survey found in each photo, and how sure it is.

A finding is one answer for one thing that was asked for (`about`, such as "defect") in one photo, or in
several that show the same (a burst of one pole). Photos that were found sound are findings too, with the
decision `sound`; photos that could not be read have a `problem` and the decision `ask`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llava.common.boxes import Box
from llava.common.records import Call

Reason = Literal["uncertain", "never seen", "unreadable", "no answer"]
"""Why a person is asked: the decision file says so of its probability; it is like nothing in training; the
photo cannot be read; there is no answer, or, for a certified decision, none with a probability."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class NoveltyMap(_Part):
    """Where a photo, or a tile of it, is unlike what training held.

    `rows` are those of patches from the top, a digit for each: 0 where one is no more unlike than the
    strangest patch of a typical sound picture, 9 where it is as unlike as any in the photo or tile. `box` is
    where they lie, in 0..1 of the upright photo; around one that the model saw padded to a square it reaches
    beyond.
    """

    box: Box
    rows: list[Annotated[str, Field(pattern="^[0-9]+$")]] = Field(min_length=1)


class Finding(_Part):
    """One finding.

    `photo` is the photo that shows it best, by its name below the survey's folder; `photos` are all that show
    it, that one first. `box` is (x1, y1, x2, y2) in 0..1 of the upright photo, `place` what the model says of
    where it is. `p_yes` is the probability of yes where that was asked, `kind_probability` that of `kind`
    among the recipe's kinds. `novelty` is the share of sound calibration pictures that are as unlike what
    training held (a p-value: small is unlike); `novelty_maps` say where, of a photo that is never seen.
    """

    id: str
    photo: str
    photos: list[str] = Field(min_length=1)
    asset: str = ""
    """The photo's folder below the survey's."""
    sha256: str | None = None
    """Of the photo's file."""
    width: int | None = None
    """Of the upright photo, in pixels."""
    height: int | None = None
    time: str | None = None
    """When it was taken, ISO 8601, from EXIF; without a zone where EXIF has none."""
    latitude: float | None = None
    """Degrees north, WGS 84."""
    longitude: float | None = None
    """Degrees east."""
    altitude: float | None = None
    """Metres above the sea."""
    about: str = "defect"
    decision: Call
    reason: Reason | None = None
    p_yes: float | None = None
    kind: str | None = None
    kind_probability: float | None = None
    box: Box | None = None
    place: str | None = None
    count: int | None = None
    """How many the model counts, where the recipe asks for that."""
    report: str | None = None
    """What the model writes about it, where the recipe asks for that."""
    novelty: float | None = None
    novelty_maps: list[NoveltyMap] = Field(default_factory=list)
    problem: str | None = None


class Findings(_Part):
    """The file: what was asked of which photos by which model, and all findings."""

    format: Literal["llava-inspect findings"] = "llava-inspect findings"
    version: Literal[1] = 1
    survey: str
    """A hash of the photos, the model's name and the findings: corrections name it."""
    model_id: str
    recipe: str
    photos_folder: str
    certified: str | None = None
    """The guarantee in words, where a decision file was applied."""
    warnings: list[str] = Field(default_factory=list)
    kinds: list[str] = Field(default_factory=list)
    """The kinds that the recipe knows, for those who correct."""
    findings: list[Finding]
