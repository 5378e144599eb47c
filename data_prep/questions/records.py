"""A question with its answer, and the lines that it becomes: training record, test question, truth."""

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

# Families whose sentences may hold words of direction or boxes that speak of the picture.
_SPEAK_OF_PLACES: tuple[FamilyName, ...] = ("where", "region", "describe", "report")


@dataclass(frozen=True, slots=True)  # a table may make a million
class Item:
    """One question with its answer, or a whole conversation of the source (`turns` follow the first).

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
        """Says nothing of the answer: a hash of the picture's name, the task and the question."""
        text = "\n".join(
            (self.unit.image, self.task, self.question, *([str(self.number)] if self.number else []))
        )
        return hashlib.sha1(text.encode()).hexdigest()[:16]


def classes_of(item: Item, recipe: Recipe) -> list[str] | None:
    """The closed list of answers, None where the answers are open."""
    if item.type == "yesno":
        return list(recipe.yes_no(item.language) or YES_NO)
    if item.options:
        return list(LETTERS[: len(item.options)])
    if item.type not in ("class", "box"):
        return None
    spoken = recipe.spoken(item.language)
    if item.family == "where":
        absent = [spoken.absent_word] if spoken.asked[item.task].negatives else []
        return [*spoken.places, *absent] if item.type == "class" else absent or None
    return spoken.kind_answers


def to_record(item: Item, recipe: Recipe, group: str) -> Record:
    return Record(
        id=item.id,
        image=item.unit.image,
        conversations=_conversation(((item.question, item.answer), *item.turns)),
        meta={
            "source": item.unit.source,
            "group": group,
            "task": item.task,
            "type": item.type,
            "language": item.language,
            **_facts_of(item, recipe),
            "flip": item.family in _SPEAK_OF_PLACES,
        },
    )


def to_dialogue(talk: Sequence[Item], recipe: Recipe, group: str) -> Record:
    """Several questions on one picture as the turns of one record; the picture comes with the first."""
    return Record(
        id=hashlib.sha1("\n".join(item.id for item in talk).encode()).hexdigest()[:16],
        image=talk[0].unit.image,
        conversations=_conversation([(item.question, item.answer) for item in talk]),
        meta={
            "source": talk[0].unit.source,
            "group": group,
            "task": "dialogue",
            "language": talk[0].language,
            "flip": any(item.family in _SPEAK_OF_PLACES for item in talk),
        },
    )


def _conversation(turns: Sequence[tuple[str, str]]) -> list[Turn]:
    said = [(who, text) for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    said[0] = ("human", f"{IMAGE_PLACEHOLDER}\n{said[0][1]}")
    return [Turn.model_validate({"from": who, "value": text}) for who, text in said]


def to_question(item: Item, recipe: Recipe) -> Question:
    family = recipe.asked.get(item.task)
    closed = item.type in ("yesno", "class") and family is not None and family.choices
    choices = classes_of(item, recipe) if closed else None
    return Question(
        question_id=item.id,
        image=item.unit.image,
        text=item.question,
        category=item.task,
        choices=choices if choices and len(choices) > 1 else None,
    )


def to_truth(item: Item, recipe: Recipe, group: str) -> Truth:
    facts = _facts_of(item, recipe)
    classes = classes_of(item, recipe)
    return Truth(
        question_id=item.id,
        answer=item.answer,
        task=item.task,
        type=item.type,
        group=group,
        classes=None if classes == list(YES_NO) else classes,
        label=(label := facts.pop("label")),
        language=item.language,
        meta={"source": item.unit.source, **facts, **_area_of(item, label)},
    )


def _area_of(item: Item, label: str) -> dict[str, float]:
    """`area`: the share of the picture that the largest box of what is asked about covers (any defect: of the
    kind that `label` names). Nothing where there is no such box."""
    unit = item.unit
    name = label if item.about == "defect" else item.about
    found = [area(shape.box) for shape in (*unit.components, *unit.defects) if shape.name == name]
    share = max(found, default=0.0) / (unit.size[0] * unit.size[1])
    return {"area": float(f"{min(share, 1.0):.4g}")} if share > 0 else {}


def _facts_of(item: Item, recipe: Recipe) -> dict[str, Any]:
    """What the unit really shows. A question about one kind by name is sliced by that kind if it is there."""
    unit = item.unit
    label = item.label or (item.about if item.about in unit.kinds else unit.label)
    facts: dict[str, Any] = {"label": label, "kinds": unit.kinds, "about": item.about}
    if item.options:
        facts["options"] = list(item.options)
    if item.type == "box" or item.family == "region":
        facts |= {
            "frame": recipe.boxes.frame,
            "decimals": recipe.boxes.decimals,
            "width": unit.size[0],
            "height": unit.size[1],
        }
    return facts
