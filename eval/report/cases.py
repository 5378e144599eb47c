"""One question with its answers, for the report's gallery."""

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
    """A case for every scored question that `questions` holds, in the order of the tasks. `files` are those
    that were scored: tuned, and base if there is one."""
    cases = []
    for task in scored:
        names = {by: name(task.truths) for by, name in SLICE_NAMES.items()}
        for index, truth in enumerate(task.truths):
            question = questions.get(str(truth.question_id))
            if question is None:
                continue
            answers = [
                _answer(file, outcome, str(truth.question_id), index)
                for file, outcome in zip(files, task.outcomes, strict=True)
            ]
            cases.append(
                Case(
                    question_id=str(truth.question_id),
                    task=task.score.task,
                    type=truth.type,
                    group=truth.group,
                    label=truth.label,
                    images=question.images,
                    question=question.text,
                    truth=truth.answer,
                    tuned=answers[0],
                    base=answers[1] if len(answers) == 2 else None,
                    truth_box=truth_box(truth),
                    asked_box=_asked_box(truth, question),
                    slices={by: name for by, boxes in names.items() if (name := boxes[index]) is not None},
                )
            )
    return cases


def _answer(file: AnswerFile, outcome: Outcomes, question: str, index: int) -> CaseAnswer:
    return CaseAnswer(
        text=file.text(question),
        parsed=bool(outcome.parsed[index]),
        right=bool(outcome.right[index]),
        value=round(float(outcome.value[index]), 4),
        choices=_chances(file.choices(question)),
        box=None if outcome.boxes is None else _corners(outcome.boxes[index]),
        error=file.error(question),
    )


def _chances(boxes: object) -> dict[str, float] | None:
    """The probabilities as they stand in the answer, where they are numbers."""
    if not isinstance(boxes, Mapping):
        return None
    values = {str(name): parse_probability(value) for name, value in boxes.items()}
    return {name: value for name, value in values.items() if value is not None} or None


def _corners(box: Array) -> Corners | None:
    x1, y1, x2, y2 = box.tolist()
    return None if math.isnan(x1) else (x1, y1, x2, y2)


def _asked_box(truth: Truth, question: Question) -> Corners | None:
    """The one box that a question speaks of, where the truth states its frame."""
    boxes = parse_boxes(question.text)
    if truth.type == "box" or len(boxes) != 1 or not {"frame", "width", "height"} <= truth.meta.keys():
        return None
    return frame_conversion(truth.task, truth)(boxes[0])
