"""Conversations that files hold, gathered by picture: what readers of questions and answers share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_prep.annotations import (
    AnnotatedSource,
    Annotation,
    Conversation,
    Shape,
    make_source,
)
from data_prep.source_folder import SPLIT_NAMES, SourceFolder, Split
from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER

# What tables and files are called, `datasets` writes "dev" too.
SPLIT_WORDS: dict[str, Split] = SPLIT_NAMES | {"dev": "val"}
SHOWN_PROBLEMS = 1000  # of one file; the rest is counted
_SHARED = 1 << 16
Value = TypeVar("Value")


def split_of(path: Path) -> Split | None:
    """The split that a name says (`train.csv`, `test-00000-of-00002.parquet`), None if none."""
    return SPLIT_WORDS.get(re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0]).casefold())


def named_splits(paths: Sequence[Path]) -> dict[Path, Split]:
    """The splits that the names say, if they say more than one: a lone `train.json` may still be divided."""
    named = {path: split for path in paths if (split := split_of(path))}
    return named if len(set(named.values())) > 1 else {}


def plain_text(value: object, what: str) -> str:
    """A value as text without space around it, "" for none; numbers as they are written.

    InputError for what is neither, and for half of a surrogate pair, which no file can hold.
    """
    if value is None or value != value:  # NaN stands for nothing in tables written by pandas
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{what} is {_kind(value)}; write text")
    try:
        text = str(value).strip()
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} holds half of a character (a lone surrogate); write it as UTF-8") from None
    except ValueError:  # Python's limit of digits
        raise InputError(f"{what} is too large a number") from None
    return text


def _kind(value: object) -> str:
    kinds = {bool: str(value).lower(), list: "a list", dict: "an object", bytes: "bytes"}
    return kinds.get(type(value), f"of type {type(value).__name__}")


def plain_question(value: object, what: str) -> str:
    """A question or answer: text that is not empty and marks no picture."""
    text = plain_text(value, what)
    if not text:
        raise InputError(f"{what} is empty")
    if IMAGE_PLACEHOLDER in text:
        raise InputError(f"{what} holds {IMAGE_PLACEHOLDER}, which marks a picture; take it out")
    return text


@dataclass(slots=True)
class Said:
    """What one file says of one picture."""

    conversations: list[Conversation] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)
    shapes: dict[Shape, None] = field(default_factory=dict)


class Collector:
    """Gathers what the rows of several files say of pictures, and what is wrong with them, a line each.

    Made for millions of rows: of a conversation that many pictures share one is kept, and pictures are
    looked up once a name. Per file: `begin`, the rows, `end`.
    """

    def __init__(self, folder: SourceFolder) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._found: list[tuple[Path, Annotation]] = []
        self._facts: dict[tuple[Path, str], tuple[str, str]] = {}  # picture, group or split -> value, where
        self._shared: dict[Any, Any] = {}
        self._file = folder.root
        self._said: dict[Path, Said] = {}
        self._images: dict[str, Path | str] = {}
        self._owners: dict[Path, str] = {}
        self._bad = 0

    def begin(self, file: Path) -> None:
        self._file, self._said, self._bad = file, {}, 0
        self._images = {}  # which of two pictures with one name is meant may depend on the file
        self._owners = {}

    def problem(self, place: str, why: object) -> None:
        self._bad += 1
        if self._bad <= SHOWN_PROBLEMS:
            self.problems.append(f"{self._file}, {place}: {why}")

    def image(self, name: str) -> Path:
        """InputError, without the file's name, if there is no such picture, or it has another name too."""
        known = self._images.get(name)
        if known is None:
            try:
                known = self.folder.image_of(self._file, name, owners=self._owners)
            except InputError as error:
                known = str(error).removeprefix(f"{self._file}: ")
            self._images[name] = known
        if isinstance(known, str):
            raise InputError(known)
        return known

    def shared(self, value: Value) -> Value:
        """The value itself or an equal one that was seen before."""
        if len(self._shared) >= _SHARED:
            self._shared.clear()
        return self._shared.setdefault(value, value)

    def talk(self, image: Path, turns: Sequence[tuple[str, str]], task: str, language: str) -> Said:
        """Take in a conversation; "" for a task or language that is not stated."""
        kept = tuple((self.shared(question), answer) for question, answer in turns)
        said = self._said.setdefault(image, Said())
        said.conversations.append(self.shared(Conversation(kept, task or "vqa", language or None)))
        return said

    def agree(self, place: str, image: Path, fact: str, value: str) -> None:
        """InputError if `fact` (group, split) of the picture was said to be another before."""
        where = f"{self._file.name}, {place}"
        known, first = self._facts.setdefault((image, fact), (self.shared(value), where))
        if known != value:
            raise InputError(f"{image.name} is of {fact} {value!r}, but of {known!r} in {first}")

    def end(self) -> None:
        twice = 0
        for image, said in self._said.items():
            conversations = tuple(dict.fromkeys(said.conversations))
            twice += len(said.conversations) - len(conversations)
            annotation = Annotation(
                self._file,
                image.name,
                shapes=tuple(said.shapes),
                labels=tuple(said.labels),
                conversations=conversations,
            )
            self._found.append((image, annotation))
        if twice:
            self.notes.append(f"{self._file}: {twice} conversation(s) that are there twice kept once")
        if self._bad > SHOWN_PROBLEMS:
            self.problems.append(f"{self._file}: {self._bad - SHOWN_PROBLEMS} more like these")
        self._said = {}

    def source(self, format: str) -> AnnotatedSource:
        source = make_source(self.folder, format, self._found, self.notes)
        for image in source.images:
            image.group = self._facts.get((image.file, "group"), (None, ""))[0]
            if split := self._facts.get((image.file, "split")):
                image.split = SPLIT_WORDS[split[0]]
        return source
