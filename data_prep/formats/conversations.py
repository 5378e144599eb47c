"""Gather the conversations that files hold by image: shared by the readers of questions and answers."""

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

# The names of splits in tables and file names; `datasets` writes "dev" too.
SPLIT_WORDS: dict[str, Split] = SPLIT_NAMES | {"dev": "val"}
MAX_PROBLEMS = 1000  # shown of one file; the rest is counted
_MAX_INTERNED = 1 << 16
Interned = TypeVar("Interned")


def split_of_file(path: Path) -> Split | None:
    """Return the split that a name states (`train.csv`, `test-00000-of-00002.parquet`), None if none."""
    return SPLIT_WORDS.get(re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0]).casefold())


def splits_of_files(paths: Sequence[Path]) -> dict[Path, Split]:
    """Return the splits that file names state, if they state more than one.

    A lone `train.json` may still be divided.
    """
    splits = {path: split for path in paths if (split := split_of_file(path))}
    return splits if len(set(splits.values())) > 1 else {}


def parse_text(value: object, field_name: str) -> str:
    """Return a value as text without space around it, "" for none; numbers as they are written.

    InputError for what is neither, and for half of a surrogate pair, which no file can hold.
    """
    if value is None or value != value:  # NaN stands for nothing in tables written by pandas
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{field_name} is {_describe_type(value)}; write text")
    try:
        text = str(value).strip()
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{field_name} holds half of a character (a lone surrogate); write it as UTF-8"
        ) from None
    except ValueError:  # Python's limit of digits
        raise InputError(f"{field_name} is too large a number") from None
    return text


def _describe_type(value: object) -> str:
    names = {bool: str(value).lower(), list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), f"of type {type(value).__name__}")


def parse_turn(value: object, field_name: str) -> str:
    """Return the text of a question or answer, which is not empty and holds no image placeholder."""
    text = parse_text(value, field_name)
    if not text:
        raise InputError(f"{field_name} is empty")
    if IMAGE_PLACEHOLDER in text:
        raise InputError(f"{field_name} holds {IMAGE_PLACEHOLDER}, which marks a picture; take it out")
    return text


@dataclass(slots=True)
class ImageContent:
    """What the rows of one file give for one image; `shapes` and `labels` are ordered sets."""

    conversations: list[Conversation] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)
    shapes: dict[Shape, None] = field(default_factory=dict)


class ConversationCollector:
    """Gathers what the rows of several files give for each image, with notes and problems, a line each.

    For each file call `start_file`, then `add_conversation` for each row, then `finish_file`; at the end
    `make_source`. Made for millions of rows: a conversation that many images share is kept once, and images
    are looked up once for each name.
    """

    def __init__(self, folder: SourceFolder) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._pairs: list[tuple[Path, Annotation]] = []
        # (image, property: group or split) -> its value and the place that stated it first.
        self._properties: dict[tuple[Path, str], tuple[str, str]] = {}
        self._interned: dict[Any, Any] = {}
        # Of the current file:
        self._file = folder.root
        self._contents: dict[Path, ImageContent] = {}
        self._images: dict[str, Path | str] = {}  # name -> the image, or why it is not found
        self._owners: dict[Path, str] = {}
        self._problem_count = 0

    def start_file(self, file: Path) -> None:
        self._file, self._contents, self._problem_count = file, {}, 0
        self._images = {}  # which of two images with one name is meant may depend on the file
        self._owners = {}

    def add_problem(self, place: str, reason: object) -> None:
        self._problem_count += 1
        if self._problem_count <= MAX_PROBLEMS:
            self.problems.append(f"{self._file}, {place}: {reason}")

    def find_image(self, name: str) -> Path:
        """Return the image that the current file calls `name`.

        InputError, without the file's name, if there is none, or if the file calls it by another name too.
        """
        image = self._images.get(name)
        if image is None:
            try:
                image = self.folder.image_of(self._file, name, owners=self._owners)
            except InputError as error:
                image = str(error).removeprefix(f"{self._file}: ")
            self._images[name] = image
        if isinstance(image, str):
            raise InputError(image)
        return image

    def add_conversation(
        self, image: Path, turns: Sequence[tuple[str, str]], task: str, language: str
    ) -> ImageContent:
        """Add a conversation about an image of the current file.

        Args:
            image: The image.
            turns: (question, answer) pairs.
            task: What scores are reported under, "" where not stated.
            language: Of question and answer, "" where not stated.

        Returns:
            What the file has given for the image so far, to which labels and shapes can be added.
        """
        interned = tuple((self._intern(question), answer) for question, answer in turns)
        content = self._contents.setdefault(image, ImageContent())
        content.conversations.append(self._intern(Conversation(interned, task or "vqa", language or None)))
        return content

    def _intern(self, value: Interned) -> Interned:
        """Return the value itself or an equal one that was seen before."""
        if len(self._interned) >= _MAX_INTERNED:
            self._interned.clear()
        return self._interned.setdefault(value, value)

    def set_property(self, place: str, image: Path, property: str, value: str) -> None:
        """Set the `group` or `split` of an image. InputError if an earlier place stated another value."""
        full_place = f"{self._file.name}, {place}"
        known, first = self._properties.setdefault((image, property), (self._intern(value), full_place))
        if known != value:
            raise InputError(f"{image.name} is of {property} {value!r}, but of {known!r} in {first}")

    def finish_file(self) -> None:
        duplicates = 0
        for image, content in self._contents.items():
            conversations = tuple(dict.fromkeys(content.conversations))
            duplicates += len(content.conversations) - len(conversations)
            annotation = Annotation(
                self._file,
                image.name,
                shapes=tuple(content.shapes),
                labels=tuple(content.labels),
                conversations=conversations,
            )
            self._pairs.append((image, annotation))
        if duplicates:
            self.notes.append(f"{self._file}: {duplicates} conversation(s) that are there twice kept once")
        if self._problem_count > MAX_PROBLEMS:
            self.problems.append(f"{self._file}: {self._problem_count - MAX_PROBLEMS} more like these")
        self._contents = {}

    def make_source(self, format: str) -> AnnotatedSource:
        source = make_source(self.folder, format, self._pairs, self.notes)
        for image in source.images:
            image.group = self._properties.get((image.file, "group"), (None, ""))[0]
            if split := self._properties.get((image.file, "split")):
                image.split = SPLIT_WORDS[split[0]]
        return source
