"""Questions with answers, and the lines that they become: training record, test question, truth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.images.units import Unit
from data_prep.recipe.families import LETTERS, FamilyName
from data_prep.recipe.schema import Recipe
from llava.common.boxes import area
from llava.common.records import IMAGE_PLACEHOLDER, YES_NO, Question, Record, TaskType, Truth, Turn

# Families whose sentences may hold words of direction or boxes that refer to the image.
_MENTION_PLACES: tuple[FamilyName, ...] = ("where", "region", "describe", "report")


@dataclass(frozen=True, slots=True)  # a table may make a million
class QuestionAnswer:
    """A chosen question with its answer, or a conversation of the source (`turns` follow the first).

    `language` is the one it is asked in; `number` tells apart conversations with the same first question.
    """

    unit: Unit
    task: str
    type: TaskType
    family: FamilyName
    language: str
    about: str
    question: str
    answer: str
    yes: bool = False
    label: str = ""
    options: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    number: int = 0

    @property
    def id(self) -> str:
        """A hash of the image's name, the task and the question, which tells nothing of the answer."""
        text = "\n".join(
            (self.unit.image, self.task, self.question, *([str(self.number)] if self.number else []))
        )
        return hashlib.sha1(text.encode()).hexdigest()[:16]


def answer_classes(qa: QuestionAnswer, recipe: Recipe) -> list[str] | None:
    """Return the closed list of answers, None where the answers are open."""
    if qa.type == "yesno":
        return list(recipe.yes_no(qa.language) or YES_NO)
    if qa.options:
        return list(LETTERS[: len(qa.options)])
    if qa.type not in ("class", "box"):
        return None
    in_language = recipe.in_language(qa.language)
    if qa.family == "where":
        absent = [in_language.absent_word] if in_language.active_families[qa.task].negatives else []
        return [*in_language.places, *absent] if qa.type == "class" else absent or None
    return in_language.kind_answers


def to_record(qa: QuestionAnswer, recipe: Recipe, group: str) -> Record:
    return Record(
        id=qa.id,
        image=qa.unit.image,
        conversations=_conversation(((qa.question, qa.answer), *qa.turns)),
        meta={
            "source": qa.unit.source,
            "group": group,
            "task": qa.task,
            "type": qa.type,
            "language": qa.language,
            **_question_meta(qa, recipe),
            "flip": qa.family in _MENTION_PLACES,
            **_origin_meta(qa.unit),
        },
    )


def to_dialogue(questions: Sequence[QuestionAnswer], recipe: Recipe, group: str) -> Record:
    """Make one record of several questions about an image, as its turns; the image comes with the first."""
    return Record(
        id=hashlib.sha1("\n".join(qa.id for qa in questions).encode()).hexdigest()[:16],
        image=questions[0].unit.image,
        conversations=_conversation([(qa.question, qa.answer) for qa in questions]),
        meta={
            "source": questions[0].unit.source,
            "group": group,
            "task": "dialogue",
            "language": questions[0].language,
            "flip": any(qa.family in _MENTION_PLACES for qa in questions),
            **_origin_meta(questions[0].unit),
        },
    )


def _origin_meta(unit: Unit) -> dict[str, Any]:
    return {} if unit.origin is None else unit.origin.meta()


def _conversation(turns: Sequence[tuple[str, str]]) -> list[Turn]:
    answers = [(who, text) for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    answers[0] = ("human", f"{IMAGE_PLACEHOLDER}\n{answers[0][1]}")
    return [Turn.model_validate({"from": who, "value": text}) for who, text in answers]


def to_question(qa: QuestionAnswer, recipe: Recipe) -> Question:
    family = recipe.active_families.get(qa.task)
    closed = qa.type in ("yesno", "class") and family is not None and family.choices
    choices = answer_classes(qa, recipe) if closed else None
    return Question(
        question_id=qa.id,
        image=qa.unit.image,
        text=qa.question,
        category=qa.task,
        choices=choices if choices and len(choices) > 1 else None,
        source=qa.unit.name or None,
    )


def to_truth(qa: QuestionAnswer, recipe: Recipe, group: str, blind: str | None = None) -> Truth:
    """Return the truth of a test question; `blind` is what a guess without looking answers."""
    candidates = _question_meta(qa, recipe)
    classes = answer_classes(qa, recipe)
    return Truth(
        question_id=qa.id,
        answer=qa.answer,
        task=qa.task,
        type=qa.type,
        group=group,
        classes=None if classes == list(YES_NO) else classes,
        label=(label := candidates.pop("label")),
        language=qa.language,
        meta={
            "source": qa.unit.source,
            **candidates,
            **_area_meta(qa, label),
            **({} if blind is None else {"blind": blind}),
        },
    )


def _area_meta(qa: QuestionAnswer, label: str) -> dict[str, float]:
    """Return `area`, the share of the image that the largest box of what is asked about covers (for any
    defect: of the kind that `label` names); nothing where there is no such box."""
    unit = qa.unit
    name = label if qa.about == "defect" else qa.about
    found = [area(shape.box) for shape in (*unit.components, *unit.defects) if shape.name == name]
    share = max(found, default=0.0) / (unit.size[0] * unit.size[1])
    return {"area": float(f"{min(share, 1.0):.4g}")} if share > 0 else {}


def _question_meta(qa: QuestionAnswer, recipe: Recipe) -> dict[str, Any]:
    """Describe what the unit shows. A question about a kind by name is sliced by that kind if it is there."""
    unit = qa.unit
    label = qa.label or (qa.about if qa.about in unit.kinds else unit.label)
    candidates: dict[str, Any] = {"label": label, "kinds": unit.kinds, "about": qa.about}
    if qa.options:
        candidates["options"] = list(qa.options)
    if qa.type == "box" or qa.family == "region":
        candidates |= {
            "frame": recipe.boxes.frame,
            "decimals": recipe.boxes.decimals,
            "width": unit.size[0],
            "height": unit.size[1],
        }
    return candidates
