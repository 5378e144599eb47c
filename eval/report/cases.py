"""Cases for the report's gallery: a question with its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eval.scoring.answers import AnswerFile
from eval.scoring.boxes import frame_conversion, truth_box
from eval.scoring.metrics import Array
from eval.scoring.outcomes import Outcomes
from eval.scoring.probabilities import parse_probability
from eval.scoring.schema import Case, CaseAnswer, Corners
from eval.scoring.slices import SLICE_NAMES
from eval.scoring.tasks import ScoredTask
from llava.common.boxes import parse_boxes
from llava.common.records import Question, Truth


def make_cases(
    scored: Sequence[ScoredTask], files: Sequence[AnswerFile], questions: Mapping[str, Question]
) -> list[Case]:
    """Return a case for every scored question that `questions` holds, in the order of the tasks.

    `files` are those that were scored: tuned, and base if there is one.
    """
    cases = []
    for task in scored:
        slices = {by: names(task.truths) for by, names in SLICE_NAMES.items()}
        for index, truth in enumerate(task.truths):
            question = questions.get(str(truth.question_id))
            if question is not None:
                in_slices: dict[str, str] = {
                    by: name for by, names in slices.items() if (name := names[index]) is not None
                }
                cases.append(_case(task, index, files, question, in_slices))
    return cases


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
        _answer(file, outcomes, str(truth.question_id), index)
        for file, outcomes in zip(files, task.outcomes, strict=True)
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


def _answer(file: AnswerFile, outcomes: Outcomes, question: str, index: int) -> CaseAnswer:
    return CaseAnswer(
        text=file.text(question),
        parsed=bool(outcomes.parsed[index]),
        right=bool(outcomes.right[index]),
        value=round(float(outcomes.value[index]), 4),
        choices=_probabilities(file.choices(question)),
        box=None if outcomes.boxes is None else _corners(outcomes.boxes[index]),
        error=file.error(question),
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
