"""The kinds of question, and for each: how answers are read, what a row of sums holds, what guessing earns.

See eval/scoring/metrics.py for the arithmetic and eval/scoring/parse.py for the reading.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scoring import metrics as m
from eval.scoring import parse
from eval.scoring.boxes import box_family
from eval.scoring.outcomes import Family, Outcome, Texts, floats, shares
from eval.scoring.texts import TextFamily
from llava.common.errors import InputError
from llava.common.records import YES_NO, Truth, report_entries

Entries = Sequence[dict[str, str]]

MOST_ENTRIES = 100  # of an answered report that are looked at


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
        return _outcome(rows, answers, self.truth)

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
        found = shares(point, len(sums)) | {"balanced_accuracy": mean}
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
        return _outcome(rows, answers, self.truth)

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.count_metrics(sums)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return shares(point, len(sums))

    def _always(self, number: int) -> dict[str, float]:
        rows = m.count_rows(self.truth, np.full_like(self.truth, number))
        return floats(m.count_metrics(rows.sum(axis=0)))

    def majority(self) -> dict[str, float]:
        return self._always(int(np.bincount(self.truth).argmax()))

    def random(self) -> dict[str, float]:
        """A uniform guess among the numbers that occur in the truth."""
        guesses = [self._always(int(number)) for number in np.unique(self.truth)]
        return {name: float(np.mean([guess[name] for guess in guesses])) for name in guesses[0]}


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
                fields[index, column] = sum(right) / max(sum(has), len(answer or []), 1), any(has)
        parsed = [answer is not None for answer in said]
        whole = fields[..., 0].sum(axis=1) == fields[..., 1].sum(axis=1)
        exact = (whole & np.array(parsed)).tolist()
        rows = m.report_rows(exact, parsed, fields.reshape(len(fields), -1))
        value = fields[..., 0].sum(axis=1) / fields[..., 1].sum(axis=1)
        return Outcome(rows=rows, right=np.array(exact), parsed=np.array(parsed), value=value)

    def metrics(self, sums: m.Array) -> m.Metrics:
        return m.report_metrics(sums, self.keys)

    def spread(self, point: dict[str, float], sums: m.Array) -> dict[str, tuple[float, float]]:
        return shares(point, len(sums))

    def majority(self) -> dict[str, float]:
        """Always the most frequent report (the first of equals)."""
        texts = [json.dumps(entries) for entries in self.truth]
        most = Counter(texts).most_common(1)[0][0]
        return floats(self.metrics(self.read([most] * len(texts)).rows.sum(axis=0)))

    def random(self) -> dict[str, float]:
        return {}


def _outcome(rows: m.Array, answers: m.Ints, truth: m.Ints) -> Outcome:
    right = answers == truth
    return Outcome(rows=rows, right=right, parsed=answers >= 0, value=right.astype(np.float64))


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
        return box_family(task, truths)
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
    try:
        read("", classes)
    except InputError as error:  # classes that no answer can tell apart
        raise InputError(f"task {task!r}: {error}; name them otherwise in the truth file") from None
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
