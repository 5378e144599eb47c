"""The schemas of every JSON record and JSONL line that passes between the packages. Torch-free.

Field names are LLaVA's own where LLaVA has them (haotian-liu/LLaVA, docs/Finetune_Custom_Data.md and
llava/eval/model_vqa.py); our own fields are in `meta` or `metadata`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llava.common.errors import InputError

IMAGE_PLACEHOLDER = "<image>"

TaskType = Literal["yesno", "class", "count", "box", "text", "json"]
YES_NO = ("yes", "no")
Call = Literal["sound", "defect", "ask"]
"""What is said of a picture; `ask` leaves it to a person."""


# Keys of records of LLaMA-Factory, ms-swift and ShareGPT that change what a record means: without them
# it would be another one, so that it is refused. Keys that only inform are passed over.
_MEDIA_KEYS = ("video", "videos", "audio", "audios")
_PREFERENCE_KEYS = ("chosen", "rejected", "rejected_response", "kto_tag")
# Keys of a turn, with the values that change nothing.
_LOSS_KEYS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("weight", "loss", "loss_weight", "loss_scale", "train", "trainable"), (None, 1)),
    **dict.fromkeys(("mask", "masked"), (None, 0)),
}
_MEDIA_MARK = re.compile(r"\A\s*<(video|audio)>|^[ \t]*<(video|audio)>[ \t]*$", re.MULTILINE)


def unread_content(record: Any) -> str | None:
    """Return what a record, as JSON, holds that is not read here and changes its meaning; None for nothing.

    Such as a video or a system prompt: training would go on without it.
    """
    if not isinstance(record, dict):
        return None
    if key := _media_key(record):
        return f"it has a `{key}`, and only pictures are read here; take the record out"
    for key in ("system", "tools"):
        if record.get(key) and record[key] != "[]":  # LLaMA-Factory's for none
            return (
                f"its `{key}` is not used; put what the model needs into the first question, or take it out"
            )
    for key in _PREFERENCE_KEYS:
        if record.get(key) is not None:
            return f"it has `{key}`, as preference data do, which is not trained on here; take it out"
    if record.get("images") and not record.get("image"):
        return "it has `images`; call it `image`, a name or a list of names"
    if record.get("objects") and "<bbox>" in str(record.get("conversations")):
        return "its <bbox> marks stand for its `objects`, as in ms-swift; write the boxes out"
    turns = record.get("conversations")
    for position, turn in enumerate(turns if isinstance(turns, list) else []):
        if isinstance(turn, dict) and (reason := _unread_in_turn(turn)):
            return f"turn {position} {reason}"
    return None


def _media_key(fields: dict[str, Any]) -> str | None:
    return next((key for key in _MEDIA_KEYS if fields.get(key)), None)


def _unread_in_turn(turn: dict[str, Any]) -> str | None:
    for key, neutral in _LOSS_KEYS.items():
        if turn.get(key) not in neutral:
            return f"has `{key}`: {turn[key]!r:.40}, but all answers are trained on alike here; take it out"
    for key in ("image", "images", *_MEDIA_KEYS):
        if turn.get(key):
            return f"has a `{key}` of its own; pictures are named in the record's `image`"
    text = turn.get("value")
    if not isinstance(text, str) or turn.get("from") != "human":
        return None
    if (mark := _MEDIA_MARK.search(text)) and f"</{mark[1] or mark[2]}>" not in text:  # HTML has an end
        return f"holds the mark {mark[0].strip()}, and only pictures are read here; take the record out"
    return None


class Turn(BaseModel):
    """One turn of a record's conversation."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: str


def is_synthetic(meta: object) -> bool:
    """Return whether the meta of a record, any JSON value, says that its images were made."""
    return isinstance(meta, dict) and bool(meta.get("synthetic"))


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

    @property
    def is_synthetic(self) -> bool:
        """Whether its images were made, not taken: it may be trained on, but says nothing of real photos."""
        return is_synthetic(self.meta)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unread(cls, data: Any) -> Any:
        if reason := unread_content(data):
            raise ValueError(reason)
        return data

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

    @model_validator(mode="before")
    @classmethod
    def _refuse_media(cls, data: Any) -> Any:
        if isinstance(data, dict) and (key := _media_key(data)):
            raise ValueError(f"it has a `{key}`, and only pictures are read here; take the question out")
        return data

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
    for one that asked for it, `source`, the photo's own name, where the question has it, and `novelty`, how
    new its photo is, where that was measured.
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


class InputFile(BaseModel):
    """An input file; `name` is without folders, so that moving the files changes nothing."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    sha256: str
    lines: int
    model_ids: list[str] = Field(default_factory=list)


class Calls(BaseModel):
    """How many answers a decision calls sound, calls defect, and leaves to a person."""

    model_config = ConfigDict(extra="forbid")

    sound: int = 0
    defect: int = 0
    ask: int = 0

    @property
    def total(self) -> int:
        return self.sound + self.defect + self.ask


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
