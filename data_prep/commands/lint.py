"""What can be wrong with LLaVA conversation JSON, whatever tool made it; `check` is the command.

Records are looked at one by one as plain JSON, so that a bad one hides nothing of the others. What is kept of
each is a few numbers: texts are compared by their hash.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from data_prep.source_folder import IMAGE_SUFFIXES
from llava.common.boxes import Box, area, from_frame, holds_centre, intersection, parse_boxes
from llava.common.records import IMAGE_PLACEHOLDER

# Kind of finding -> what is counted.
KINDS = {
    "not-a-record": "records without conversations, or with fields that are no text",
    "no-id": "records without an id that is text",
    "id-twice": "records with an id that an earlier one has",
    "roles": "records with turns not by human and gpt in turn, ending with gpt",
    "image-marks": f"records with other than one {IMAGE_PLACEHOLDER} in the questions for each picture",
    "empty-answer": "answers without text",
    "too-long": "records longer than --max-length",
    "box-outside": "boxes with a coordinate below 0 or above 1",
    "box-in-padding": "boxes of a padded frame that lie mostly beside the picture, in its padding",
    "file-name": "questions that name the picture's file, which may give the answer away",
    "contradiction": "opening questions asked before of the same picture and answered otherwise",
    "one-sided": "wordings, and yes/no tasks, of single questions with nearly always one answer",
    "absent-picture": "pictures that are not in the image folder",
    "damaged-picture": "pictures that cannot be decoded whole",
    "shared-name": "pictures that several files name",
    "shared-picture": "pictures whose pixels another file has under another name",
}
ONE_SIDED_SHARE = 0.9
ONE_SIDED_FROM = 20  # answers; fewer prove nothing
SHOWN_EXAMPLES = 5
_ROLES = ("human", "gpt")
Size = tuple[float, float]
_FILE_NAME = re.compile(
    rf"[\w./\\-]*\w(?:{'|'.join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))})\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Place:
    """A record: its file, its index there (from 0) and its id."""

    file: Path
    index: int
    id: str = ""


@dataclass(frozen=True)
class Example:
    place: Place
    detail: str


@dataclass
class Finding:
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class _Tally:
    """How often each answer is given to a question."""

    def __init__(self) -> None:
        self._asked: dict[int, int] = defaultdict(int)
        self._answered: dict[int, int] = defaultdict(int)
        self._most: dict[int, int] = defaultdict(int)
        self._texts: dict[int, tuple[str, str, Place]] = {}  # of questions asked often: its commonest answer

    def add(self, question: str, answer: str, place: Place) -> None:
        asked, answered = hash(question), hash((question, answer))
        self._asked[asked] += 1
        self._answered[answered] += 1
        if self._answered[answered] > self._most[asked]:
            self._most[asked] = self._answered[answered]
            if self._most[asked] * 2 >= ONE_SIDED_FROM:
                self._texts[asked] = question, answer, place

    def one_sided(self) -> Iterator[tuple[str, str, float, int, Place]]:
        """(question, its commonest answer, that one's share, answers in all, a record)."""
        for key, (question, answer, place) in self._texts.items():
            share, count = self._most[key] / self._asked[key], self._asked[key]
            if count >= ONE_SIDED_FROM and share > ONE_SIDED_SHARE:
                yield question, answer, share, count, place


class Linter:
    """Gathers findings. Per file: `begin`, `record` for each, `end`.

    `tokens` counts (or estimates) the tokens of a text; a picture counts as `picture_tokens`. `size_of` gives
    the (width, height) of a named picture, None if it has none. `pictures` are all that were named: the first
    record that does, and the files (by number) that do.
    """

    def __init__(
        self,
        tokens: Callable[[str], int],
        max_length: int,
        image_tokens: int,
        size_of: Callable[[str], Size | None],
    ) -> None:
        self.findings: dict[str, Finding] = {}
        self.images: dict[str, tuple[Place, set[Path]]] = {}
        self.records = 0
        self._tokens, self._max_length, self._image_tokens = tokens, max_length, image_tokens
        self._size_of = size_of
        self._ids: set[int] = set()
        self._answers: dict[int, int] = {}
        self._wordings = _Tally()
        self._tasks = _Tally()

    def found(self, kind: str, place: Place, detail: str) -> None:
        assert kind in KINDS
        finding = self.findings.setdefault(kind, Finding())
        finding.count += 1
        if len(finding.examples) < SHOWN_EXAMPLES:
            finding.examples.append(Example(place, detail))

    def begin(self) -> None:
        self._wordings, self._tasks = _Tally(), _Tally()

    def end(self) -> None:
        for tally in (self._tasks, self._wordings):
            for question, answer, share, count, place in tally.one_sided():
                detail = f"{_short(question)}: {share:.0%} of {count} answers are {_short(answer)}"
                self.found("one-sided", place, detail)

    def record(self, file: Path, index: int, value: Any) -> None:
        self.records += 1
        name = value.get("id") if isinstance(value, dict) else None
        place = Place(file, index, str(name)[:80] if isinstance(name, str | int) else "")
        images, turns = _images(value), _turns(value)
        if images is None or turns is None:
            self.found("not-a-record", place, "`image`" if turns is not None else "`conversations`")
            return
        self._check_id(place, name)
        for image in images:
            self.images.setdefault(image, (place, set()))[1].add(file)
        self._check_turns(place, images, turns)
        meta = value.get("meta")
        if not isinstance(meta, dict):
            meta = {}
        if meta.get("frame") == "padded" and len(images) == 1:
            self._check_padding(place, images[0], turns, meta)
        self._check_answers(place, images, turns, meta.get("task"))

    def _check_id(self, place: Place, name: object) -> None:
        if not isinstance(name, str) or not name:
            self.found("no-id", place, f"the id is {_short(name)}")
        elif hash(name) in self._ids:
            self.found("id-twice", place, f"id {_short(name)}")
        else:
            self._ids.add(hash(name))

    def _check_turns(self, place: Place, images: Sequence[str], turns: Sequence[tuple[str, str]]) -> None:
        for position, (role, _) in enumerate(turns):
            if role != _ROLES[position % 2]:
                self.found("roles", place, f"turn {position} is by {_short(role)}")
                break
        else:
            if len(turns) % 2:
                self.found("roles", place, "the last turn is by human")
        marks = sum(text.count(IMAGE_PLACEHOLDER) for role, text in turns if role == "human")
        stray = sum(text.count(IMAGE_PLACEHOLDER) for role, text in turns if role != "human")
        if marks != len(images) or stray:
            more = f" and {stray} in answers" if stray else ""
            self.found("image-marks", place, f"{len(images)} picture(s), {marks} mark(s){more}")
        length = sum(self._tokens(text) for _, text in turns) + self._image_tokens * len(images)
        if length > self._max_length:
            self.found("too-long", place, f"about {length} tokens")
        for role, text in turns:
            if role == "human" and (leak := _named_file(text, images)):
                self.found("file-name", place, f"{_short(leak)} in {_short(text)}")
            if role == "gpt":
                for box in parse_boxes(text):
                    if min(box) < 0 or max(box) > 1:
                        self.found("box-outside", place, f"[{', '.join(f'{value:g}' for value in box)}]")

    def _check_padding(
        self, place: Place, image: str, turns: Sequence[tuple[str, str]], meta: dict[str, Any]
    ) -> None:
        """`meta` may state the picture's size; else the picture does."""
        boxes = [box for _, text in turns for box in parse_boxes(text)]
        size = (_stated_size(meta) or self._size_of(image)) if boxes else None
        decimals = meta.get("decimals")
        rounding = 10.0 ** -(decimals if isinstance(decimals, int) and 0 < decimals < 10 else 2)
        for box in boxes:
            # One that leaves the frame is `box-outside` already.
            if size and min(box) >= 0 and max(box) <= 1 and _in_padding(box, size, rounding):
                said = ", ".join(f"{value:g}" for value in box)
                self.found("box-in-padding", place, f"[{said}] of a {size[0]:g} x {size[1]:g} picture")

    def _check_answers(
        self, place: Place, images: Sequence[str], turns: Sequence[tuple[str, str]], task: object
    ) -> None:
        for position in range(len(turns) - 1):
            (asker, asked), (speaker, text) = turns[position : position + 2]
            if asker != "human" or speaker != "gpt":
                continue
            question = " ".join(asked.replace(IMAGE_PLACEHOLDER, " ").split())
            answer = " ".join(text.split()).casefold().rstrip(".")
            if not answer:
                self.found("empty-answer", place, f"to {_short(question)}")
                continue
            if len(turns) == 2:  # which questions a longer conversation asks may depend on what is there
                self._wordings.add(question, answer, place)
            if len(turns) == 2 and answer in ("yes", "no"):
                self._tasks.add(f"yes/no of task {task}" if task else "all yes/no", answer, place)
            if position == 0 and images:  # later questions depend on what was said before
                known = self._answers.setdefault(hash((tuple(images), question)), hash(answer))
                if known != hash(answer):
                    self.found("contradiction", place, f"{_short(question)} -> {_short(text)}")


def _stated_size(meta: dict[str, Any]) -> Size | None:
    width, height = meta.get("width"), meta.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float):
        return (width, height) if 1 <= min(width, height) <= max(width, height) < 1e9 else None
    return None


def _in_padding(box: Box, size: Size, rounding: float) -> bool:
    """Whether less than half of the box lies on the picture, or on what rounding may have moved off it: the
    last decimal of the padded frame is `rounding` of the square's side."""
    width, height = size
    margin = rounding * max(size)
    image = (-margin, -margin, width + margin, height + margin)
    placed = from_frame(box, width, height, "padded")
    if not area(placed):
        return not holds_centre(image, placed)
    return intersection(placed, image) < area(placed) / 2


def _images(record: Any) -> list[str] | None:
    """The names of a record's pictures, None where they are no text."""
    if not isinstance(record, dict):
        return None
    images = record.get("image")
    if images is None:
        return []
    listed = images if isinstance(images, list) else [images]
    return listed if all(isinstance(name, str) and _is_text(name) for name in listed) else None


def _turns(record: Any) -> list[tuple[str, str]] | None:
    """(role, text) pairs, None where there are none or they are no text."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    pairs = [(turn.get("from"), turn.get("value")) for turn in turns]
    fit = all(isinstance(part, str) and _is_text(part) for pair in pairs for part in pair)
    return pairs if fit else None


def _is_text(value: str) -> bool:
    """Without half a surrogate pair, which JSON can hold and no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named_file(text: str, images: Sequence[str]) -> str | None:
    """What in a question names a picture's file: any name with a picture's suffix, or the picture's own name
    without it, if that has a digit (else it may be a word)."""
    if match := _FILE_NAME.search(text):
        return match.group()
    for name in images:
        stem = PureWindowsPath(name).stem
        if len(stem) > 3 and re.search(r"\d", stem) and re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", text):
            return stem
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
