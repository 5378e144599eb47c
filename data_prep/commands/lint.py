"""Find what is wrong with LLaVA conversation JSON, whatever tool made it; `check` is the command.

Records are checked one by one as plain JSON, so that a bad one hides nothing of the others. A few numbers are
kept of each: texts are compared by their hash. Of each task a sample of single questions is kept.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from data_prep.commands.made_records import MadeRecords
from data_prep.questions.blind import MOST, AskedQuestion, blind_tests, without_kinds
from data_prep.source_folder import IMAGE_SUFFIXES
from llava.common.boxes import Box, area, from_frame, holds_centre, intersection, parse_boxes
from llava.common.records import IMAGE_PLACEHOLDER, unread_content

# Code of a finding -> what is counted.
FINDINGS = {
    "not-a-record": "records without conversations, or with fields that are no text",
    "unread": "records with a video, a system prompt or the like, which training does not read and refuses",
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
    "blind": "tasks whose answers a question's words and boxes tell, without the picture",
    "absent-picture": "pictures that are not in the image folder",
    "damaged-picture": "pictures that cannot be decoded whole",
    "shared-name": "pictures that several files name",
    "shared-picture": "pictures whose pixels another file has under another name",
    "made-held-out": "records of made pictures (meta.synthetic) in a file whose name says validation or test",
    "made-akin": "records of pictures that were made of photos of a group (meta.group) in such a file",
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
class RecordLocation:
    """Where a record is: its file, its index there (from 0) and its id."""

    file: Path
    index: int
    id: str = ""


@dataclass(frozen=True)
class Example:
    location: RecordLocation
    detail: str


@dataclass
class Finding:
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class _AnswerTally:
    """Counts how often each answer is given to each question."""

    def __init__(self) -> None:
        self._question_counts: dict[int, int] = defaultdict(int)
        self._answer_counts: dict[int, int] = defaultdict(int)
        self._highest_counts: dict[int, int] = defaultdict(int)
        self._texts: dict[
            int, tuple[str, str, RecordLocation]
        ] = {}  # of frequent questions: the commonest answer

    def add(self, question: str, answer: str, location: RecordLocation) -> None:
        question_key, answer_key = hash(question), hash((question, answer))
        self._question_counts[question_key] += 1
        self._answer_counts[answer_key] += 1
        if self._answer_counts[answer_key] > self._highest_counts[question_key]:
            self._highest_counts[question_key] = self._answer_counts[answer_key]
            if self._highest_counts[question_key] * 2 >= ONE_SIDED_FROM:
                self._texts[question_key] = question, answer, location

    def one_sided(self, mixed: set[str]) -> Iterator[tuple[str, str, float, int, RecordLocation]]:
        """Yield the questions with nearly always one answer.

        `mixed` are questions whose answers another file mixes, and gets those of this one. Of them, only one
        with a single answer is one-sided: val and test may be as rarely defective as photos are.

        Each as (question, commonest answer, its share, number of answers, location of a record with it).
        """
        for key, (question, answer, location) in self._texts.items():
            share, count = self._highest_counts[key] / self._question_counts[key], self._question_counts[key]
            if count < ONE_SIDED_FROM:
                continue
            if share <= ONE_SIDED_SHARE:
                mixed.add(question)
            elif share == 1 or question not in mixed:
                yield question, answer, share, count, location


class _TaskSample:
    """Holds up to MOST questions of a task, drawn evenly from all, and the location of the first."""

    def __init__(self, location: RecordLocation) -> None:
        self.location, self.questions, self.count = location, list[AskedQuestion](), 0
        self._rng = random.Random(0)

    def add(self, question: AskedQuestion) -> None:
        self.count += 1
        if len(self.questions) < MOST:
            self.questions.append(question)
        elif (place := self._rng.randrange(self.count)) < MOST:
            self.questions[place] = question


class Linter:
    """Collects findings. For each file call `start_file`, `check_record` for each record, `finish_file`; then
    `finish`.

    `images` are all images that records name: the location of the first record and the files that name it.

    Args:
        tokens: Counts (or estimates) the tokens of a text.
        max_length: The length in tokens from which a record is too long.
        image_tokens: The tokens that an image takes.
        size_of: Returns the (width, height) of a named image, None if it has none.
    """

    def __init__(
        self,
        tokens: Callable[[str], int],
        max_length: int,
        image_tokens: int,
        size_of: Callable[[str], Size | None],
    ) -> None:
        self.findings: dict[str, Finding] = {}
        self.images: dict[str, tuple[RecordLocation, set[Path]]] = {}
        self.records = 0
        self._mixed: set[str] = set()  # questions whose answers a file mixes
        self._tokens, self._max_length, self._image_tokens = tokens, max_length, image_tokens
        self._size_of = size_of
        self._ids: set[int] = set()
        self._answers: dict[int, int] = {}
        self._wordings = _AnswerTally()
        self._tasks = _AnswerTally()
        self._made = MadeRecords[RecordLocation]()
        self._samples: dict[str, dict[str, _TaskSample]] = {}  # by task and file

    def add_finding(self, kind: str, location: RecordLocation, detail: str) -> None:
        assert kind in FINDINGS
        finding = self.findings.setdefault(kind, Finding())
        finding.count += 1
        if len(finding.examples) < SHOWN_EXAMPLES:
            finding.examples.append(Example(location, detail))

    def start_file(self) -> None:
        self._wordings, self._tasks = _AnswerTally(), _AnswerTally()

    def finish_file(self) -> None:
        """Add the findings about the file as a whole."""
        for count_answers in (self._tasks, self._wordings):
            for question, answer, share, count, location in count_answers.one_sided(self._mixed):
                detail = f"{_shortened(question)}: {share:.0%} of {count} answers are {_shortened(answer)}"
                self.add_finding("one-sided", location, detail)

    def finish(self) -> None:
        """Add the findings about all files: made pictures of held-out photos, and blind tasks.

        Each task is judged in the file that asks most of it, which is the one to train on.
        """
        for location, group in self._made.akin():
            self.add_finding("made-akin", location, f"made of a photo of group {_shortened(group)}")
        most = {
            task: max(by_file.values(), key=lambda sample: sample.count)
            for task, by_file in self._samples.items()
        }
        tests = blind_tests({task: sample.questions for task, sample in most.items()})
        for task, test in tests.items():
            detail = f"{task}: a guess is right, on average over the answers, {test}"
            self.add_finding("blind", most[task].location, detail)

    def check_record(self, file: Path, index: int, value: Any) -> None:
        """Check record `index` of a file, a JSON value."""
        self.records += 1
        name = value.get("id") if isinstance(value, dict) else None
        location = RecordLocation(file, index, str(name)[:80] if isinstance(name, str | int) else "")
        images, turns = _images(value), _turns(value)
        if images is None or turns is None:
            self.add_finding("not-a-record", location, "`image`" if turns is not None else "`conversations`")
            return
        self._check_id(location, name)
        if reason := unread_content(value):
            self.add_finding("unread", location, reason)
        for image in images:
            self.images.setdefault(image, (location, set()))[1].add(file)
        self._check_turns(location, images, turns)
        meta = value.get("meta")
        if not isinstance(meta, dict):
            meta = {}
        if self._made.add(file, location, meta):
            self.add_finding("made-held-out", location, ", ".join(images))
        if meta.get("frame") == "padded" and len(images) == 1:
            self._check_padding(location, images[0], turns, meta)
        self._check_answers(location, images, turns, meta.get("task"))
        if len(turns) == 2 and images:
            self._sample_question(location, images, turns, meta)

    def _check_id(self, location: RecordLocation, name: object) -> None:
        if not isinstance(name, str) or not name:
            self.add_finding("no-id", location, f"the id is {_shortened(name)}")
        elif hash(name) in self._ids:
            self.add_finding("id-twice", location, f"id {_shortened(name)}")
        else:
            self._ids.add(hash(name))

    def _check_turns(
        self, location: RecordLocation, images: Sequence[str], turns: Sequence[tuple[str, str]]
    ) -> None:
        for position, (role, _) in enumerate(turns):
            if role != _ROLES[position % 2]:
                self.add_finding("roles", location, f"turn {position} is by {_shortened(role)}")
                break
        else:
            if len(turns) % 2:
                self.add_finding("roles", location, "the last turn is by human")
        marks = sum(text.count(IMAGE_PLACEHOLDER) for role, text in turns if role == "human")
        stray = sum(text.count(IMAGE_PLACEHOLDER) for role, text in turns if role != "human")
        if marks != len(images) or stray:
            more = f" and {stray} in answers" if stray else ""
            self.add_finding("image-marks", location, f"{len(images)} picture(s), {marks} mark(s){more}")
        length = sum(self._tokens(text) for _, text in turns) + self._image_tokens * len(images)
        if length > self._max_length:
            self.add_finding("too-long", location, f"about {length} tokens")
        for role, text in turns:
            if role == "human" and (leak := _named_file(text, images)):
                self.add_finding("file-name", location, f"{_shortened(leak)} in {_shortened(text)}")
            if role == "gpt":
                for box in parse_boxes(text):
                    if min(box) < 0 or max(box) > 1:
                        self.add_finding(
                            "box-outside", location, f"[{', '.join(f'{value:g}' for value in box)}]"
                        )

    def _check_padding(
        self, location: RecordLocation, image: str, turns: Sequence[tuple[str, str]], meta: dict[str, Any]
    ) -> None:
        """Check for boxes in the padding. `meta` may state the image's size, else the file does."""
        boxes = [box for _, text in turns for box in parse_boxes(text)]
        size = (_stated_size(meta) or self._size_of(image)) if boxes else None
        decimals = meta.get("decimals")
        rounding = 10.0 ** -(decimals if isinstance(decimals, int) and 0 < decimals < 10 else 2)
        for box in boxes:
            # One that leaves the frame is a `box-outside` finding already.
            if size and min(box) >= 0 and max(box) <= 1 and _in_padding(box, size, rounding):
                coordinates = ", ".join(f"{value:g}" for value in box)
                self.add_finding(
                    "box-in-padding", location, f"[{coordinates}] of a {size[0]:g} x {size[1]:g} picture"
                )

    def _check_answers(
        self, location: RecordLocation, images: Sequence[str], turns: Sequence[tuple[str, str]], task: object
    ) -> None:
        for position in range(len(turns) - 1):
            (first_role, question_text), (second_role, text) = turns[position : position + 2]
            if first_role != "human" or second_role != "gpt":
                continue
            question = " ".join(question_text.replace(IMAGE_PLACEHOLDER, " ").split())
            answer = " ".join(text.split()).casefold().rstrip(".")
            if not answer:
                self.add_finding("empty-answer", location, f"to {_shortened(question)}")
                continue
            if len(turns) == 2:  # the questions of a longer conversation may depend on the image
                self._wordings.add(question, answer, location)
            if len(turns) == 2 and answer in ("yes", "no"):
                self._tasks.add(f"yes/no of task {task}" if task else "all yes/no", answer, location)
            if position == 0 and images:  # later questions depend on the turns before
                known = self._answers.setdefault(hash((tuple(images), question)), hash(answer))
                if known != hash(answer):
                    self.add_finding(
                        "contradiction", location, f"{_shortened(question)} -> {_shortened(text)}"
                    )

    def _sample_question(
        self,
        location: RecordLocation,
        images: Sequence[str],
        turns: Sequence[tuple[str, str]],
        meta: dict[str, Any],
    ) -> None:
        """Keep a question for the blind test. Of records that name no task, those with a yes or no and those
        with a letter for an answer are a task each."""
        question, answer = turns[0][1], " ".join(turns[1][1].split())
        plain = answer.casefold().rstrip(".")
        if task := meta.get("task"):
            name = f"{task} ({language})" if (language := meta.get("language")) else str(task)
        elif plain in ("yes", "no"):
            name, answer = "all yes/no", plain
        elif len(plain) == 1 and plain.isalpha():
            name, answer = "all multiple choice", plain.upper()
        else:
            return
        group = meta.get("group")
        group = group if isinstance(group, str) else "\n".join(images)
        by_file = self._samples.setdefault(name, {})
        sample = by_file.setdefault(str(location.file), _TaskSample(location))
        label = meta.get("label")
        asked = AskedQuestion(question, answer, group)
        sample.add(without_kinds(asked, label if isinstance(label, str) else ""))


def _stated_size(meta: dict[str, Any]) -> Size | None:
    width, height = meta.get("width"), meta.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float):
        return (width, height) if 1 <= min(width, height) <= max(width, height) < 1e9 else None
    return None


def _in_padding(box: Box, size: Size, rounding: float) -> bool:
    """Return whether less than half of the box lies on the image.

    The image is enlarged by what rounding may move a box off it: the last decimal of the padded frame is
    `rounding` of the square's side.
    """
    width, height = size
    margin = rounding * max(size)
    image = (-margin, -margin, width + margin, height + margin)
    placed = from_frame(box, width, height, "padded")
    if not area(placed):
        return not holds_centre(image, placed)
    return intersection(placed, image) < area(placed) / 2


def _images(record: Any) -> list[str] | None:
    """Return the names of a record's images, None where they are not text."""
    if not isinstance(record, dict):
        return None
    images = record.get("image")
    if images is None:
        return []
    listed = images if isinstance(images, list) else [images]
    return listed if all(isinstance(name, str) and _is_text(name) for name in listed) else None


def _turns(record: Any) -> list[tuple[str, str]] | None:
    """Return (role, text) pairs, None where there are none or they are not text."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    pairs = [(turn.get("from"), turn.get("value")) for turn in turns]
    fit = all(isinstance(part, str) and _is_text(part) for pair in pairs for part in pair)
    return pairs if fit else None


def _is_text(value: str) -> bool:
    """Return whether a text is without lone surrogates, which JSON can hold and no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named_file(text: str, images: Sequence[str]) -> str | None:
    """Return what in a question names an image file: any name with an image suffix, or the image's own name
    without it, if that has a digit (else it may be a word)."""
    if match := _FILE_NAME.search(text):
        return match.group()
    for name in images:
        stem = PureWindowsPath(name).stem
        if len(stem) > 3 and re.search(r"\d", stem) and re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", text):
            return stem
    return None


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
