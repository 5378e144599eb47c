"""The schemas of every JSON record and JSONL line that passes between the packages. Torch-free.

Field names are LLaVA's own where LLaVA has them (haotian-liu/LLaVA, docs/Finetune_Custom_Data.md and
llava/eval/model_vqa.py); our own fields are in `meta` or `metadata`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llava.common.errors import InputError

IMAGE_PLACEHOLDER = "<image>"

TaskType = Literal["yesno", "class", "count", "box", "text", "json"]
YES_NO = ("yes", "no")


class Turn(BaseModel):
    """One turn of a record's conversation."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: str


class Record(BaseModel):
    """One conversation of train.json, val.json or test.json.

    `image` is a path relative to the image folder, a list of such paths, or absent (text only);
    each `<image>` in the human turns marks where the next image goes.
    """

    model_config = ConfigDict(extra="allow")

    id: str
    image: str | list[str] | None = None
    conversations: list[Turn] = Field(min_length=2)
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """The paths of its images as a list, empty without any."""
        if self.image is None:
            return []
        return [self.image] if isinstance(self.image, str) else self.image

    @model_validator(mode="after")
    def _check(self) -> Record:
        for position, turn in enumerate(self.conversations):
            expected = "human" if position % 2 == 0 else "gpt"
            if turn.speaker != expected:
                raise ValueError(f"turn {position} is from {turn.speaker!r}, expected {expected!r}")
            if turn.speaker == "gpt" and not turn.value.strip():
                raise ValueError(f"turn {position} has an empty answer: nothing to train on")
        if len(self.conversations) % 2:
            raise ValueError("the last turn is from 'human': it needs an answer")
        marks = sum(
            turn.value.count(IMAGE_PLACEHOLDER) for turn in self.conversations if turn.speaker == "human"
        )
        if marks != len(self.images):
            raise ValueError(f"{len(self.images)} picture(s) but {marks} <image> mark(s) in its questions")
        return self


class Question(BaseModel):
    """A line of a question file. `image` must be present; null asks without an image.

    `source` is the photo's own name, for people to read: `image` may be named by its content. No model ever
    sees either name.
    """

    model_config = ConfigDict(extra="allow")

    question_id: str | int
    image: str | list[str] | None
    text: str = Field(min_length=1)
    category: str = "default"
    choices: list[str] | None = Field(default=None, min_length=2)
    source: str | None = None

    @property
    def images(self) -> list[str]:
        """The paths of its images as a list, empty without any."""
        if self.image is None:
            return []
        return [self.image] if isinstance(self.image, str) else self.image


def question_text(text: str, images: int) -> str:
    """Return the question with an `<image>` mark for each image: its own, or as many lines before it."""
    marks = text.count(IMAGE_PLACEHOLDER)
    if marks not in (0, images):
        raise InputError(f"the question has {marks} {IMAGE_PLACEHOLDER} mark(s) for {images} picture(s)")
    return text if marks else f"{IMAGE_PLACEHOLDER}\n" * images + text


class Answer(BaseModel):
    """A line of an answers file.

    `metadata` holds `error` for a question that could not be answered, `choices`, a probability per choice,
    for one that asked for it, and `source`, the photo's own name, where the question has it.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    question_id: str | int
    prompt: str
    text: str
    answer_id: str
    model_id: str
    metadata: dict[str, Any] = Field(default_factory=dict)


class Truth(BaseModel):
    """A line of a truth file: what the answer to a question should be."""

    model_config = ConfigDict(extra="allow")

    question_id: str | int
    answer: str
    task: str
    """The question family: presence, kind, ..."""
    type: TaskType
    """How the answers are read and scored."""
    group: str
    """The unit of resampling: questions about images that are not independent of each other share it."""
    classes: list[str] | None = None
    """Of a class task, the closed list of answers; of a yes/no task with other words, those for yes and no,
    in this order; of a box task, what may be answered instead of a box."""
    label: str | None = None
    """What the image or object really shows, for slices such as recall per kind of defect."""
    language: str = "en"
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Truth:
        if self.type == "class" and not self.classes:
            raise ValueError("a class task needs `classes`, the list of its answers")
        if self.type == "yesno":
            words = self.classes or YES_NO
            if len(words) != 2:
                raise ValueError("a yes/no task has two `classes`: the words for yes and no, in this order")
            if self.answer.strip(" .!").casefold() not in [word.casefold() for word in words]:
                raise ValueError(f"a yes/no task has the answer {self.answer!r}; write {' or '.join(words)}")
        if self.type == "count" and not (self.answer.isascii() and self.answer.isdigit()):
            raise ValueError(f"a counting task has the answer {self.answer!r}; write a whole number")
        if self.type == "json":
            report_entries(self.answer)
        return self


def report_entries(text: str) -> list[dict[str, str]]:
    """Read a report: a JSON object, or a list of them, whose values are texts, numbers or null (all as text).

    Raises:
        ValueError: the text is anything else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("a report is a JSON object or a list of objects") from None
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise ValueError("a report is a JSON object or a list of objects")
    if any(isinstance(part, (dict, list)) for entry in entries for part in entry.values()):
        raise ValueError("a report's values are texts or numbers, nothing deeper")
    return [
        {key: part if isinstance(part, str) else json.dumps(part) for key, part in entry.items()}
        for entry in entries
    ]
