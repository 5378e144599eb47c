"""The scored questions as the report needs them: figures over all of them, and single ones in full."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eval.scoring.answers import AnswerFile, answer_error
from eval.scoring.boxes import frame_conversion, truth_box
from eval.scoring.metrics import Array
from eval.scoring.outcomes import Judged
from eval.scoring.probabilities import parse_probability
from eval.scoring.schema import Case, CaseAnswer, Corners
from eval.scoring.slices import SLICE_NAMES
from eval.scoring.tasks import ScoredTask
from llava.common.boxes import parse_boxes
from llava.common.records import IMAGE_PLACEHOLDER, Answer, Question, Truth


class Outline(NamedTuple):
    """What is looked at of every question, to choose those that are shown; `lost`: base was right, tuned is
    not. The rest is as in `Case`."""

    question_id: str
    task: str
    group: str
    label: str | None
    images: tuple[str, ...]
    question: str
    value: float
    right: bool
    lost: bool


@dataclass(frozen=True, slots=True)
class CardOutline:
    """The questions about one image, or about several asked about together, or one about none.

    `rows` are their numbers among all cases, `value` is the mean of how good tuned's answers are, `right`
    whether all are, `lost` how many answers base had right that tuned has wrong, `label` the commonest of the
    labels.
    """

    images: tuple[str, ...]
    rows: Sequence[int]
    value: float
    right: bool
    lost: int
    label: str


class Cases:
    """Tells of all scored questions together, and of one in full, which is read when it is asked for.

    `cards` are worst first; equals are ordered by how many answers base had right that tuned has wrong, then
    as in the file. `groups` is the number of groups, `wordings` how often each question of a task comes,
    without the placeholders of its images, and `asked_once` the tasks that ask about each image once.
    """

    def __init__(self, outlines: Iterable[Outline], load: Callable[[int], Case]) -> None:
        """Go through the outlines once; `load` returns a case by its number among them."""
        self.load = load
        self.wordings: dict[str, Counter[str]] = {}
        groups: set[str] = set()
        tasks: list[str] = []
        labels: list[str | None] = []
        values, right, lost = array("d"), bytearray(), bytearray()
        rows_of: dict[tuple[str | None, ...], array[int]] = {}
        for row, case in enumerate(outlines):
            self.wordings.setdefault(case.task, Counter())[display_text(case.question)] += 1
            groups.add(case.group)
            tasks.append(case.task)
            labels.append(case.label)
            values.append(case.value)
            right.append(case.right)
            lost.append(case.lost)
            rows_of.setdefault(case.images or (None, case.question_id), array("q")).append(row)
        self.groups = len(groups)
        self.cards: list[CardOutline] = []
        asked_again: set[str] = set()
        for key, rows in rows_of.items():
            images = tuple(name for name in key if name is not None) if key[0] is not None else ()
            asked = Counter(tasks[row] for row in rows)
            asked_again.update(task for task, times in asked.items() if times > 1 or not images)
            shown = Counter(label for row in rows if (label := labels[row]))
            self.cards.append(
                CardOutline(
                    images,
                    rows,
                    value=sum(values[row] for row in rows) / len(rows),
                    right=all(right[row] for row in rows),
                    lost=sum(lost[row] for row in rows),
                    label=shown.most_common(1)[0][0] if shown else "",
                )
            )
        self.cards.sort(key=lambda card: (card.value, -card.lost))
        self.asked_once = self.wordings.keys() - asked_again

    @property
    def images(self) -> set[str]:
        """The names of all images."""
        return {name for card in self.cards for name in card.images}


def make_cases(
    scored: Sequence[ScoredTask], files: Sequence[AnswerFile], questions: Mapping[str, Question]
) -> Cases:
    """Return the scored questions that `questions` holds, in the order of the tasks.

    `files` are those that were scored: tuned, and base if there is one.
    """
    slices = [{by: names(task.columns) for by, names in SLICE_NAMES.items()} for task in scored]
    task_of, index_of = array("q"), array("q")  # of each case

    def outlines() -> Iterator[Outline]:
        for number, task in enumerate(scored):
            for index, question_id in enumerate(task.columns.ids):
                if (question := questions.get(question_id)) is not None:
                    task_of.append(number)
                    index_of.append(index)
                    yield _outline(task, index, question)

    def load(row: int) -> Case:
        task, index = scored[task_of[row]], index_of[row]
        in_slices: dict[str, str] = {
            by: name for by, names in slices[task_of[row]].items() if (name := names[index]) is not None
        }
        return _case(task, index, files, questions[task.columns.ids[index]], in_slices)

    return Cases(outlines(), load)


def _outline(task: ScoredTask, index: int, question: Question) -> Outline:
    columns = task.columns
    right = [bool(judged.right[index]) for judged in task.outcomes]
    return Outline(
        question_id=columns.ids[index],
        task=task.score.task,
        group=columns.group_names[columns.groups[index]],
        label=columns.labels[index],
        images=tuple(question.images),
        question=question.text,
        value=round(float(task.outcomes[0].value[index]), 4),
        right=right[0],
        lost=right == [False, True],
    )


def display_text(question: str) -> str:
    """Return a question without the placeholders of its images."""
    lines = question.replace(IMAGE_PLACEHOLDER, " ").split("\n")
    return "\n".join(line for line in map(str.strip, lines) if line)


def _case(
    task: ScoredTask, index: int, files: Sequence[AnswerFile], question: Question, slices: dict[str, str]
) -> Case:
    """Return the case of one question.

    Args:
        task: The task that it belongs to.
        index: Its place among the task's questions.
        files: The answers of tuned, and of base if there is one.
        question: What was asked.
        slices: The name of the slice that it is in, by criterion.
    """
    truth = task.truths[index]
    answers = [
        _answer(file.answers.get(str(truth.question_id)), judged, index)
        for file, judged in zip(files, task.outcomes, strict=True)
    ]
    return Case(
        question_id=str(truth.question_id),
        task=task.score.task,
        type=truth.type,
        group=truth.group,
        label=truth.label,
        images=question.images,
        names=_photo_names(question, truth),
        question=question.text,
        truth=truth.answer,
        tuned=answers[0],
        base=answers[1] if len(answers) == 2 else None,
        truth_box=truth_box(truth),
        asked_box=_asked_box(truth, question),
        slices=slices,
    )


def _photo_names(question: Question, truth: Truth) -> list[str]:
    """Return the photos' own names as far as they are known: that of a question about one, or, in files of
    earlier versions, of its truth."""
    own = question.source or truth.meta.get("source")
    return [own] if isinstance(own, str) and len(question.images) == 1 else question.images


def _answer(answer: Answer | None, judged: Judged, index: int) -> CaseAnswer:
    return CaseAnswer(
        text=None if answer is None else answer.text,
        parsed=bool(judged.parsed[index]),
        right=bool(judged.right[index]),
        value=round(float(judged.value[index]), 4),
        choices=None if answer is None else _probabilities(answer.metadata.get("choices")),
        box=None if judged.boxes is None else _corners(judged.boxes[index]),
        error=None if answer is None else answer_error(answer),
    )


def _probabilities(choices: object) -> dict[str, float] | None:
    """Return the probabilities that the answer holds, where they are numbers."""
    if not isinstance(choices, Mapping):
        return None
    values = {str(name): parse_probability(value) for name, value in choices.items()}
    return {name: value for name, value in values.items() if value is not None} or None


def _corners(box: Array) -> Corners | None:
    x1, y1, x2, y2 = box.tolist()
    return None if math.isnan(x1) else (x1, y1, x2, y2)


def _asked_box(truth: Truth, question: Question) -> Corners | None:
    """Return the one box that a question names, where the truth states its frame."""
    boxes = parse_boxes(question.text)
    if truth.type == "box" or len(boxes) != 1 or not {"frame", "width", "height"} <= truth.meta.keys():
        return None
    return frame_conversion(truth.task, truth)(boxes[0])
