"""Families of tasks: how answers are read, which row of numbers each becomes, and what guessing scores.

See eval/scoring/metrics.py for the arithmetic and eval/scoring/parse.py for the parsing. Boxes and free text
are in modules of their own.
"""

from __future__ import annotations

import json
import string
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import repeat

import numpy as np

from eval.scoring import parse
from eval.scoring.boxes import box_family
from eval.scoring.intervals import wilson_interval
from eval.scoring.metrics import (
    Array,
    CellSums,
    GroupSums,
    Ints,
    Metrics,
    NumberRows,
    Rows,
    class_counts,
    class_metrics,
    confusion_rows,
    count_metrics,
    count_rows,
    majority_class_metrics,
    random_guess_metrics,
    report_metrics,
    report_rows,
    yes_no_metrics,
)
from eval.scoring.outcomes import AnswerTexts, Outcomes, TaskFamily, baseline_values, mean_intervals
from eval.scoring.texts import TextFamily
from llava.common.errors import InputError
from llava.common.records import YES_NO, Truth, report_entries

Entries = Sequence[dict[str, str]]

MAX_ENTRIES = 100  # of an answered report that are compared
_KEPT = 10_000  # texts of a task whose reading is kept: most answers are the same few


@dataclass(frozen=True)
class ClosedFamily:
    """Scores yes/no questions and questions with a closed list of answers; `truth` (n,) are class numbers."""

    classes: tuple[str, ...]
    truth: Ints
    reader: Callable[[str], str | None]
    yes_no: bool
    headline: str = "balanced_accuracy"

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        index_of: dict[str | None, int] = {name: index for index, name in enumerate(self.classes)}
        index_of[None] = -1
        answers = np.fromiter(
            (-1 if text is None else index_of[self.reader(text)] for text in texts), np.int64
        )
        rows = confusion_rows(self.truth, answers, len(self.classes))
        return _exact_outcomes(rows, answers, self.truth)

    def metrics(self, sums: Array) -> Metrics:
        return yes_no_metrics(sums) if self.yes_no else class_metrics(sums, len(self.classes))

    def confusion(self, sums: Array) -> Array:
        """Return sums (columns,) as the confusion matrix (k, k + 1)."""
        return sums.reshape(len(self.classes), len(self.classes) + 1)

    def trials(self, sums: GroupSums) -> Ints:
        """Return how many groups hold each class (k,)."""
        assert isinstance(sums, CellSums)
        classes = len(self.classes)
        return sums.groups_with(np.repeat(np.arange(classes), classes + 1), classes)

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        trials = self.trials(sums)
        recall = class_counts(self.confusion(sums.total())).recall
        intervals = [wilson_interval(float(r), int(n)) for r, n in zip(recall, trials, strict=True) if n]
        mean = (
            float(np.mean([low for low, _ in intervals])),
            float(np.mean([high for _, high in intervals])),
        )
        intervals_by_name = mean_intervals(values, sums.groups) | {"balanced_accuracy": mean}
        if values["macro_f1"] in (0.0, 1.0):
            intervals_by_name["macro_f1"] = mean
        else:
            del intervals_by_name["macro_f1"]
        for name, row in (("over_call", 1), ("miss", 0)):
            if name in intervals_by_name:
                intervals_by_name[name] = wilson_interval(values[name], int(trials[row]))
        return intervals_by_name

    def _support(self) -> Array:
        return np.bincount(self.truth, minlength=len(self.classes)).astype(np.float64)

    def majority_baseline(self) -> dict[str, float]:
        return majority_class_metrics(self._support())

    def random_baseline(self) -> dict[str, float]:
        return random_guess_metrics(self._support())


@dataclass(frozen=True)
class CountFamily:
    """Scores questions whose answer is a number; `truth` (n,) are the true ones."""

    truth: Ints
    headline: str = "exact"

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        read = lru_cache(_KEPT)(parse.parse_count)
        counts = (None if text is None else read(text) for text in texts)
        answers = np.fromiter((-1 if count is None else count for count in counts), np.int64)
        return _exact_outcomes(NumberRows(count_rows(self.truth, answers)), answers, self.truth)

    def metrics(self, sums: Array) -> Metrics:
        return count_metrics(sums)

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        return mean_intervals(values, sums.groups)

    def _always(self, number: int) -> dict[str, float]:
        rows = count_rows(self.truth, np.full_like(self.truth, number))
        return baseline_values(count_metrics(rows.sum(axis=0)))

    def majority_baseline(self) -> dict[str, float]:
        return self._always(int(np.bincount(self.truth).argmax()))

    def random_baseline(self) -> dict[str, float]:
        """Return what a uniform guess among the numbers that occur in the truth scores on average."""
        guesses = [self._always(int(number)) for number in np.unique(self.truth)]
        return {name: float(np.mean([guess[name] for guess in guesses])) for name in guesses[0]}


@dataclass(frozen=True)
class ReportFamily:
    """Scores JSON reports; `truth` are these, as JSON.

    Entries of the answer are matched with those of the truth, the most similar first; entries too many or too
    few count as wrong in every field.
    """

    truth: Sequence[str]
    headline: str = "field_accuracy"

    @cached_property
    def keys(self) -> list[str]:
        """The fields of all true reports, in the order in which they come."""
        reports = map(report_entries, dict.fromkeys(self.truth))
        return list(dict.fromkeys(key for entries in reports for entry in entries for key in entry))

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        keys = self.keys
        fields = np.zeros((len(self.truth), len(keys), 2))
        parsed = np.zeros(len(fields), dtype=bool)
        compare = lru_cache(_KEPT)(partial(_compare_reports, keys))
        for index, (truth, text) in enumerate(zip(self.truth, texts, strict=True)):
            parsed[index], fields[index] = compare(truth, text)
        all_right = fields[..., 0].sum(axis=1) == fields[..., 1].sum(axis=1)
        exact = all_right & parsed
        rows = report_rows(exact, parsed, fields.reshape(len(fields), -1))
        value = fields[..., 0].sum(axis=1) / fields[..., 1].sum(axis=1)
        return Outcomes(rows=NumberRows(rows), right=exact, parsed=parsed, value=value)

    def metrics(self, sums: Array) -> Metrics:
        return report_metrics(sums, self.keys)

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        return mean_intervals(values, sums.groups)

    def majority_baseline(self) -> dict[str, float]:
        """Return what always giving the most frequent report (the first of equals) scores."""
        # Entries that are written in two ways are one report.
        written = lru_cache(_KEPT)(lambda text: json.dumps(report_entries(text)))
        commonest = Counter(map(written, self.truth)).most_common(1)[0][0]
        return baseline_values(self.metrics(self.evaluate(repeat(commonest, len(self.truth))).rows.total()))

    def random_baseline(self) -> dict[str, float]:
        return {}


def _compare_reports(keys: Sequence[str], truth: str, text: str | None) -> tuple[bool, Array]:
    """Return whether an answer is a report, and of each field (keys, 2) the fraction that is right, and 1 if
    the truth has it."""
    entries, answer = report_entries(truth), None if text is None else parse.parse_report(text)
    pairs = _match_entries(entries, answer or [])
    fields = np.zeros((len(keys), 2))
    for column, key in enumerate(keys):
        has = [key in entry for entry in entries]
        right = [_same(entry, other, key) for entry, other in pairs if key in entry]
        fields[column] = sum(right) / max(sum(has), len(answer or []), 1), any(has)
    return answer is not None, fields


def _exact_outcomes(rows: Rows, answers: Ints, truth: Ints) -> Outcomes:
    right = answers == truth
    return Outcomes(rows=rows, right=right, parsed=answers >= 0, value=right.astype(np.float64))


def _match_entries(truth: Entries, answer: Entries) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Return pairs of entries, the most similar first, each in one pair at most."""
    similarity = [
        (-sum(_same(entry, other, key) for key in entry), i, j)
        for i, entry in enumerate(truth)
        for j, other in enumerate(answer[:MAX_ENTRIES])
    ]
    used_i: set[int] = set()
    used_j: set[int] = set()
    pairs: list[tuple[dict[str, str], dict[str, str]]] = []
    for _, i, j in sorted(similarity):
        if i not in used_i and j not in used_j:
            used_i.add(i)
            used_j.add(j)
            pairs.append((truth[i], answer[j]))
    return pairs


def _same(entry: dict[str, str], other: dict[str, str], key: str) -> bool:
    return key in other and parse.same_text(entry[key], other[key])


def family_of(task: str, truths: Sequence[Truth]) -> TaskFamily:
    """Return the family of a task's truths (one or more); InputError where they do not belong together."""
    types = sorted({truth.type for truth in truths})
    if len(types) > 1:
        raise InputError(f"task {task!r} mixes the types {' and '.join(types)}; name the tasks apart")
    task_type = types[0]
    if task_type == "yesno":
        return _yes_no_family(task, truths)
    if task_type == "class":
        return _class_family(task, truths)
    if task_type == "count":
        return CountFamily(np.fromiter((int(truth.answer) for truth in truths), np.int64))
    if task_type == "box":
        return box_family(task, truths)
    if task_type == "json":
        return ReportFamily([sys.intern(truth.answer) for truth in truths])
    return TextFamily([sys.intern(truth.answer) for truth in truths])


def _yes_no_family(task: str, truths: Sequence[Truth]) -> ClosedFamily:
    """Return a family whose classes are the truth's words for yes and no, the English ones by default."""
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

    @lru_cache(_KEPT)
    def read(text: str) -> str | None:
        answer = parse.parse_yes_no(text, (yes, no))
        return None if answer is None else (yes, no)[YES_NO.index(answer)]

    return ClosedFamily((yes, no), np.array(answers, dtype=np.int64), read, yes_no=True)


def _class_family(task: str, truths: Sequence[Truth]) -> ClosedFamily:
    classes = tuple(truths[0].classes or ())
    letters = set(classes) <= set(string.ascii_uppercase)
    parse_answer = parse.parse_letter if letters else parse.parse_class

    @lru_cache(_KEPT)
    def read(text: str) -> str | None:
        return parse_answer(text, classes)

    try:
        read("")
    except InputError as error:  # classes that no answer can tell apart
        raise InputError(f"task {task!r}: {error}; name them otherwise in the truth file") from None
    answers = []
    for truth in truths:
        if set(truth.classes or ()) != set(classes):
            raise InputError(
                f"task {task!r}: question {truth.question_id!r} lists other classes than question "
                f"{truths[0].question_id!r}; one task has one list of classes"
            )
        name = read(truth.answer)
        if name is None:
            raise InputError(
                f"task {task!r}: the answer {truth.answer!r} of question {truth.question_id!r} is none of "
                f"its classes ({', '.join(classes)})"
            )
        answers.append(classes.index(name))
    return ClosedFamily(classes, np.array(answers, dtype=np.int64), read, yes_no=False)
