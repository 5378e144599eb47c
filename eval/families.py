"""The kinds of question, and for each: how answers are read, what a row of sums holds, what guessing earns.

See eval/metrics.py for the arithmetic and eval/parse.py for the reading.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt

from eval import metrics as m
from eval import parse
from llava.boxes import Box, Frame, from_frame
from llava.errors import InputError
from llava.records import YES_NO, Truth, report_entries

Bools = npt.NDArray[np.bool_]
Texts = Sequence[str | None]
Entries = Sequence[dict[str, str]]

MOST_ENTRIES = 100  # of an answered report that are looked at


@dataclass(frozen=True)
class Outcome:
    """What one answers file says to the n questions of a task: `rows` (n, columns) for the metrics,
    `right` and `parsed` (n,)."""

    rows: m.Array
    right: Bools
    parsed: Bools


class Family(Protocol):
    """The questions of one task. `headline` is the metric that base and tuned are compared by."""

    @property
    def headline(self) -> str: ...

    def read(self, texts: Texts) -> Outcome:
        """The outcome of the answers, in the order of the truths; None is a missing answer."""

    def metrics(self, sums: m.Array) -> m.Metrics: ...

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        """Intervals for where the bootstrap says nothing: Wilson's, with groups (g, columns) for trials."""

    def majority(self) -> dict[str, float]: ...

    def random(self) -> dict[str, float]: ...


def _shares(point: dict[str, float], trials: int) -> dict[str, tuple[float, float]]:
    """Wilson intervals of the values that are means of numbers in 0..1."""
    return {
        name: m.wilson(value, trials)
        for name, value in point.items()
        if name != "mean_abs_error" and value == value
    }


@dataclass(frozen=True)
class ClosedFamily:
    """Yes/no questions and questions with a closed list of answers."""

    classes: tuple[str, ...]
    truth: m.Ints
    reader: Callable[[str], str | None]
    yes_no: bool
    headline: str = "balanced_accuracy"

    def read(self, texts: Texts) -> Outcome:
        number = {name: index for index, name in enumerate(self.classes)}
        said = [None if text is None else self.reader(text) for text in texts]
        answers = np.array([-1 if name is None else number[name] for name in said], dtype=np.int64)
        rows = m.confusion_rows(self.truth, answers, len(self.classes))
        return Outcome(rows=rows, right=answers == self.truth, parsed=answers >= 0)

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.yes_no_metrics(sums) if self.yes_no else m.class_metrics(sums, len(self.classes))

    def confusion(self, sums: m.Array) -> m.Array:
        return sums.reshape(len(self.classes), len(self.classes) + 1)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        per_group = sums.reshape(len(sums), len(self.classes), -1)
        trials = (per_group.sum(axis=2) > 0).sum(axis=0)
        recall = m.class_counts(per_group.sum(axis=0)).recall
        intervals = [m.wilson(float(r), int(n)) for r, n in zip(recall, trials, strict=True) if n]
        mean = (
            float(np.mean([low for low, _ in intervals])),
            float(np.mean([high for _, high in intervals])),
        )
        found = _shares(point, len(sums)) | {"balanced_accuracy": mean}
        if point["macro_f1"] in (0.0, 1.0):
            found["macro_f1"] = mean
        else:
            del found["macro_f1"]
        for name, row in (("over_call", 1), ("miss", 0)):
            if name in found:
                found[name] = m.wilson(point[name], int(trials[row]))
        return found

    def _support(self) -> m.Array:
        return np.bincount(self.truth, minlength=len(self.classes)).astype(np.float64)

    def majority(self) -> dict[str, float]:
        return m.majority_of_classes(self._support())

    def random(self) -> dict[str, float]:
        return m.random_of_classes(self._support())


@dataclass(frozen=True)
class CountFamily:
    truth: m.Ints
    headline: str = "exact"

    def read(self, texts: Texts) -> Outcome:
        said = [None if text is None else parse.parse_count(text) for text in texts]
        answers = np.array([-1 if number is None else number for number in said], dtype=np.int64)
        rows = m.count_rows(self.truth, answers)
        return Outcome(rows=rows, right=answers == self.truth, parsed=answers >= 0)

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.count_metrics(sums)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return _shares(point, len(sums))

    def _always(self, number: int) -> dict[str, float]:
        rows = m.count_rows(self.truth, np.full_like(self.truth, number))
        return _floats(m.count_metrics(rows.sum(axis=0)))

    def majority(self) -> dict[str, float]:
        return self._always(int(np.bincount(self.truth).argmax()))

    def random(self) -> dict[str, float]:
        """A uniform guess among the numbers that occur in the truth."""
        guesses = [self._always(int(number)) for number in np.unique(self.truth)]
        return {name: float(np.mean([guess[name] for guess in guesses])) for name in guesses[0]}


@dataclass(frozen=True)
class BoxFamily:
    """One box per question; `truth` (n, 4) and the answers are compared in the picture's own frame.

    `absent` are answers that say that there is no box. Where the truth is one of them (a row of NaN), such an
    answer is worth an IoU of 1, and a box 0; where it is a box, such an answer is worth 0.
    """

    truth: m.Array
    to_picture: Sequence[Callable[[Box], Box | None]] = field(repr=False)
    absent: tuple[str, ...] = ()
    headline: str = "mean_iou"

    def read(self, texts: Texts) -> Outcome:
        boxes = np.full_like(self.truth, np.nan)
        for index, (text, convert) in enumerate(zip(texts, self.to_picture, strict=True)):
            box = None if text is None else parse.parse_box(text)
            if box is not None:
                # A box that lies in the padding alone was read, and meets nothing: its IoU is 0.
                boxes[index] = convert(box) or (0.0, 0.0, 0.0, 0.0)
        overlap = self._overlap(boxes)
        for index, text in enumerate(texts):
            if self.absent and text is not None and parse.parse_class(text, self.absent) is not None:
                overlap[index] = float(np.isnan(self.truth[index, 0]))
        rows = m.box_rows(overlap)
        return Outcome(rows=rows, right=rows[:, 3] > 0, parsed=rows[:, 1] > 0)

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.box_metrics(sums)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return _shares(point, len(sums))

    def majority(self) -> dict[str, float]:
        """Always the median box of the truth."""
        median = np.zeros(4) if np.isnan(self.truth).all() else np.nanmedian(self.truth, axis=0)
        rows = m.box_rows(self._overlap(np.broadcast_to(median, self.truth.shape)))
        return _floats(m.box_metrics(rows.sum(axis=0)))

    def _overlap(self, boxes: m.Array) -> m.Array:
        """IoU with the truth: 0 for a box where there is none, NaN for no box."""
        return np.where(np.isnan(boxes[:, 0]), np.nan, np.nan_to_num(m.iou(boxes, self.truth)))

    def random(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class TextFamily:
    truth: Sequence[str]
    headline: str = "token_f1"

    def read(self, texts: Texts) -> Outcome:
        exact = [
            text is not None and parse.same_text(text, t) for text, t in zip(texts, self.truth, strict=True)
        ]
        f1 = [parse.token_f1(text or "", t) for text, t in zip(texts, self.truth, strict=True)]
        parsed = [bool(text and text.strip()) for text in texts]
        return Outcome(rows=m.text_rows(exact, f1, parsed), right=np.array(exact), parsed=np.array(parsed))

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.text_metrics(sums)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return _shares(point, len(sums))

    def majority(self) -> dict[str, float]:
        """Always the most frequent text (the first of equals)."""
        most = Counter(self.truth).most_common(1)[0][0]
        return _floats(m.text_metrics(self.read([most] * len(self.truth)).rows.sum(axis=0)))

    def random(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class ReportFamily:
    """JSON reports; `truth` are their entries. Entries of the answer are matched with those of the truth, the
    likest first; entries too many or too few count as wrong in every field."""

    truth: Sequence[list[dict[str, str]]]
    headline: str = "field_accuracy"

    @property
    def keys(self) -> list[str]:
        """The fields of all true reports, in the order in which they come."""
        return list(dict.fromkeys(key for entries in self.truth for entry in entries for key in entry))

    def read(self, texts: Texts) -> Outcome:
        keys = self.keys
        fields = np.zeros((len(self.truth), len(keys), 2))
        said = [None if text is None else parse.parse_report(text) for text in texts]
        for index, (truth, answer) in enumerate(zip(self.truth, said, strict=True)):
            pairs = _matched(truth, answer or [])
            for column, key in enumerate(keys):
                has = [key in entry for entry in truth]
                right = [_same(entry, other, key) for entry, other in pairs if key in entry]
                fields[index, column] = sum(right) / max(sum(has), len(answer or [])), any(has)
        parsed = [answer is not None for answer in said]
        whole = fields[..., 0].sum(axis=1) == fields[..., 1].sum(axis=1)
        exact = (whole & np.array(parsed)).tolist()
        rows = m.report_rows(exact, parsed, fields.reshape(len(fields), -1))
        return Outcome(rows=rows, right=np.array(exact), parsed=np.array(parsed))

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.report_metrics(sums, self.keys)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return _shares(point, len(sums))

    def majority(self) -> dict[str, float]:
        """Always the most frequent report (the first of equals)."""
        texts = [json.dumps(entries) for entries in self.truth]
        most = Counter(texts).most_common(1)[0][0]
        return _floats(self.metrics(self.read([most] * len(texts)).rows.sum(axis=0)))

    def random(self) -> dict[str, float]:
        return {}


def _matched(truth: Entries, answer: Entries) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Pairs of entries, the likest first, each in one pair at most."""
    likeness = [
        (-sum(_same(entry, other, key) for key in entry), i, j)
        for i, entry in enumerate(truth)
        for j, other in enumerate(answer[:MOST_ENTRIES])
    ]
    used_i: set[int] = set()
    used_j: set[int] = set()
    pairs: list[tuple[dict[str, str], dict[str, str]]] = []
    for _, i, j in sorted(likeness):
        if i not in used_i and j not in used_j:
            used_i.add(i)
            used_j.add(j)
            pairs.append((truth[i], answer[j]))
    return pairs


def _same(entry: dict[str, str], other: dict[str, str], key: str) -> bool:
    return key in other and parse.same_text(entry[key], other[key])


def _floats(values: m.Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if name != "parsed"}


def family_of(task: str, truths: Sequence[Truth]) -> Family:
    """The family of a task's truths (one or more); InputError where they do not belong together."""
    kinds = sorted({truth.type for truth in truths})
    if len(kinds) > 1:
        raise InputError(f"task {task!r} mixes the types {' and '.join(kinds)}; name the tasks apart")
    kind = kinds[0]
    if kind == "yesno":
        return _yes_no_family(task, truths)
    if kind == "class":
        return _class_family(task, truths)
    if kind == "count":
        return CountFamily(np.array([int(truth.answer) for truth in truths], dtype=np.int64))
    if kind == "box":
        return _box_family(task, truths)
    if kind == "json":
        return ReportFamily([report_entries(truth.answer) for truth in truths])
    return TextFamily([truth.answer for truth in truths])


def _yes_no_family(task: str, truths: Sequence[Truth]) -> ClosedFamily:
    """Its classes are the words for yes and no that the truth states, the English ones where it does not."""
    yes, no = truths[0].classes or YES_NO
    plain = [word.casefold() for word in (yes, no)]
    answers = []
    for truth in truths:
        if [word.casefold() for word in truth.classes or YES_NO] != plain:
            raise InputError(
                f"task {task!r}: question {truth.question_id!r} has other words for yes and no than question "
                f"{truths[0].question_id!r}; write its `language` where that is another one"
            )
        answers.append(plain.index(truth.answer.strip(" .!").casefold()))

    def read(text: str) -> str | None:
        said = parse.parse_yes_no(text, (yes, no))
        return None if said is None else (yes, no)[YES_NO.index(said)]

    return ClosedFamily((yes, no), np.array(answers, dtype=np.int64), read, yes_no=True)


def _class_family(task: str, truths: Sequence[Truth]) -> ClosedFamily:
    classes = tuple(truths[0].classes or ())
    letters = set(classes) <= set(string.ascii_uppercase)
    read = parse.parse_letter if letters else parse.parse_class
    answers = []
    for truth in truths:
        if set(truth.classes or ()) != set(classes):
            raise InputError(
                f"task {task!r}: question {truth.question_id!r} lists other classes than question "
                f"{truths[0].question_id!r}; one task has one list of classes"
            )
        name = read(truth.answer, classes)
        if name is None:
            raise InputError(
                f"task {task!r}: the answer {truth.answer!r} of question {truth.question_id!r} is none of "
                f"its classes ({', '.join(classes)})"
            )
        answers.append(classes.index(name))
    return ClosedFamily(
        classes,
        np.array(answers, dtype=np.int64),
        lambda text: read(text, classes),
        yes_no=False,
    )


def _box_family(task: str, truths: Sequence[Truth]) -> BoxFamily:
    boxes: list[tuple[float, ...]] = []
    absent = tuple(dict.fromkeys(name for truth in truths for name in truth.classes or ()))
    readers = [_to_picture(task, truth) for truth in truths]
    for truth, to_picture in zip(truths, readers, strict=True):
        if truth.answer in absent:
            boxes.append((np.nan,) * 4)
            continue
        box = parse.parse_box(truth.answer)
        box = None if box is None else to_picture(box)
        if box is None:
            raise InputError(
                f"task {task!r}: the answer {truth.answer!r} of question {truth.question_id!r} is no box "
                "[x1, y1, x2, y2] in 0..1 that meets the picture"
            )
        boxes.append(box)
    return BoxFamily(np.array(boxes), readers, absent)


def _to_picture(task: str, truth: Truth) -> Callable[[Box], Box | None]:
    """From the frame that `meta` names (`frame`, with `width` and `height` in pixels) to 0..1 of the picture,
    clipped to it; None for a box in the padding alone.

    Without `frame` boxes are compared as they are written: IoU is the same in every frame, save for what of
    a box lies in the padding.
    """
    frame = truth.meta.get("frame")
    if frame is None:
        return lambda box: box
    try:
        width, height = float(truth.meta["width"]), float(truth.meta["height"])
    except (KeyError, TypeError, ValueError):
        width = height = 0.0
    if frame not in get_args(Frame) or width <= 0 or height <= 0:
        raise InputError(
            f"task {task!r}, question {truth.question_id!r}: a box needs meta `frame` "
            f"({' or '.join(get_args(Frame))}), `width` and `height` in pixels"
        )

    def to_picture(box: Box) -> Box | None:
        x1, y1, x2, y2 = from_frame(box, width, height, frame)
        clipped = max(x1 / width, 0.0), max(y1 / height, 0.0), min(x2 / width, 1.0), min(y2 / height, 1.0)
        return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None

    return to_picture
