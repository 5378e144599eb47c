"""scores.json: what `python -m eval.score` found, for programs. Absent values are left out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from llava.records import TaskType


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Estimate(_Part):
    """A value and its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None


class InputFile(_Part):
    """`name` is the file's own name without folders, so that moving the files changes nothing."""

    name: str
    sha256: str
    lines: int
    model_ids: list[str] = Field(default_factory=list)


class ClassScore(_Part):
    """One class of a closed list: how often it is true (`support`), and how often it was answered."""

    name: str
    support: int
    answered: int
    recall: Estimate | None = None
    precision: float | None = None
    f1: float | None = None


class SystemScore(_Part):
    """What one answers file scores on one task.

    `missing` questions have no answer; `unreadable` ones were answered with an error, because their
    picture could not be read; `unparsed` counts those and every answer that could not be understood.
    `confusion`: a row per true class, a column per answered class, and a last column of the unparsed.
    """

    missing: int
    unreadable: int
    unparsed: int
    metrics: dict[str, Estimate]
    per_class: list[ClassScore] | None = None
    confusion: list[list[int]] | None = None


class Slice(_Part):
    """The questions with one true `answer` about pictures or objects that show one `label`.

    `tuned` and `base` are the shares answered rightly; their intervals are Wilson's with groups for trials.
    """

    answer: str | None = None
    label: str | None = None
    n: int
    groups: int
    tuned: Estimate
    base: Estimate | None = None


class TaskScore(_Part):
    """`majority` and `random` are what blind guessing earns. `difference` is tuned minus base, in pairs on
    the same resamples; `verdict` says what it means for the `headline` metric."""

    task: str
    type: TaskType
    n: int
    groups: int
    small: bool
    headline: str
    classes: list[str] | None = None
    tuned: SystemScore
    base: SystemScore | None = None
    majority: dict[str, float]
    random: dict[str, float]
    difference: dict[str, Estimate] | None = None
    verdict: str
    slices: list[Slice]


class Bootstrap(_Part):
    resamples: int
    seed: int
    unit: Literal["group"] = "group"
    level: float = 0.95


class Scores(_Part):
    format: Literal["llava-inspect scores"] = "llava-inspect scores"
    version: Literal[1] = 1
    truth: InputFile
    answers: InputFile
    baseline_answers: InputFile | None = None
    bootstrap: Bootstrap
    warnings: list[str]
    tasks: list[TaskScore]
