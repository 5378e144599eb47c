"""Units become questions with answers, as the recipe's families say."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from data_prep.annotations import Shape, Split
from data_prep.pictures import Unit
from data_prep.recipe import Family, Recipe
from llava.boxes import Box, area, format_box, to_frame
from llava.records import IMAGE_PLACEHOLDER, Question, Record, TaskType, Truth, Turn

YES, NO = "yes", "no"


@dataclass
class Fact:
    """One thing to ask of a unit. `about` is what it is asked about; `wordings` are questions in the order
    in which they are used, the first `asked` of them are."""

    unit: Unit
    about: str
    answer: str
    wordings: list[str]
    asked: int = 1


@dataclass(frozen=True)
class Item:
    """One question with its answer."""

    unit: Unit
    task: str
    type: TaskType
    about: str
    question: str
    answer: str

    @property
    def id(self) -> str:
        """Says nothing of the answer: a hash of the picture's name, the task and the question."""
        text = "\n".join((self.unit.image, self.task, self.question))
        return hashlib.sha1(text.encode()).hexdigest()[:16]


def ask(units: Sequence[Unit], recipe: Recipe, split: Split, seed: int) -> tuple[list[Item], Counter[str]]:
    """All questions of a split: pictures in shuffled order, each picture's questions together and shuffled.

    Also returns how many units a family asked nothing of, by reason. Only train is balanced; test asks
    every family of every unit, in its first wording. Depends on `seed` and the units, not on their order.
    """
    skipped: Counter[str] = Counter()
    items: dict[str, list[Item]] = {}
    ordered = sorted(units, key=lambda unit: unit.image)
    random.Random(f"{seed}/{split}").shuffle(ordered)
    for task, family in recipe.asked.items():
        facts: list[Fact] = []
        for unit in ordered:
            rng = random.Random(f"{seed}/{unit.image}/{task}")
            facts.extend(_facts(unit, task, family, recipe, rng, skipped))
        for fact in facts:
            if split == "test":
                continue
            random.Random(f"{seed}/{fact.unit.image}/{task}/{fact.about}/words").shuffle(fact.wordings)
            if split == "train":
                fact.asked = min(family.times, len(fact.wordings))
        if split == "train" and family.balance is not None and family.type == "yesno":
            _even_out(facts, family.balance, random.Random(f"{seed}/{task}/balance"))
        assert family.type is not None
        for fact in facts:
            for question in fact.wordings[: fact.asked]:
                item = Item(fact.unit, task, family.type, fact.about, question, fact.answer)
                items.setdefault(fact.unit.image, []).append(item)
    for image, asked in items.items():
        random.Random(f"{seed}/{image}/order").shuffle(asked)
    return [item for unit in ordered for item in items.get(unit.image, [])], skipped


def dialogues(items: Sequence[Item], recipe: Recipe, seed: int) -> list[list[Item]]:
    """`recipe.dialogues` conversations a picture, of two or three of its `items` of different families; none
    where all are of one family."""
    talks: list[list[Item]] = []
    for image, group in groupby(items, key=lambda item: item.unit.image):
        by_task: dict[str, list[Item]] = {}
        for item in group:
            by_task.setdefault(item.task, []).append(item)
        rng = random.Random(f"{seed}/{image}/dialogues")
        for _ in range(recipe.dialogues if len(by_task) > 1 else 0):
            tasks = rng.sample(sorted(by_task), min(len(by_task), rng.choice((2, 3))))
            talk = [rng.choice(by_task[task]) for task in tasks]
            if talk not in talks[-recipe.dialogues :]:
                talks.append(talk)
    return talks


def _even_out(facts: Sequence[Fact], more: int, rng: random.Random) -> None:
    """As many yes as no for each thing asked about: the rarer is asked in up to `more` other wordings, then
    what the commoner has in excess is left out at random."""
    for about in sorted({fact.about for fact in facts}):
        sides = [
            [fact for fact in facts if fact.about == about and fact.answer == word] for word in (YES, NO)
        ]
        rare, common = sorted(sides, key=lambda side: sum(fact.asked for fact in side))
        excess = sum(fact.asked for fact in common) - sum(fact.asked for fact in rare)
        for _ in range(more):
            for fact in rng.sample(rare, len(rare)):
                if excess > 0 and fact.asked < len(fact.wordings):
                    fact.asked += 1
                    excess -= 1
        while excess > 0:
            for fact in rng.sample(common, min(excess, len(common))):
                if fact.asked:
                    fact.asked -= 1
                    excess -= 1


def _facts(
    unit: Unit, task: str, family: Family, recipe: Recipe, rng: random.Random, skipped: Counter[str]
) -> list[Fact]:
    def fact(about: str, answer: str) -> Fact:
        phrases = {"defect": "a defect"} | {kind.name: kind.phrase for kind in _all_kinds(recipe)}
        fields = {"kind": about, "phrase": phrases[about], "choices": _listed(recipe.kind_answers, "or")}
        return Fact(unit, about, answer, [text.format(**fields) for text in family.questions])

    if family.family == "presence":
        if family.of != "each":
            there = unit.kinds if family.of == "defect" else _shapes(unit, family.of)
            return [fact(family.of, YES if there else NO)]
        absent = [name for name in recipe.kind_names if name not in unit.kinds]
        asked = rng.sample(absent, min(family.absent, len(absent)))
        return [*(fact(name, YES) for name in unit.kinds), *(fact(name, NO) for name in asked)]

    if family.family == "kind":
        if len(unit.kinds) > 1 and recipe.several == "skip":
            skipped[f"{task}: several kinds of defect"] += 1
            return []
        answer = unit.kinds[0] if unit.kinds else recipe.none_word
        return [] if answer is None else [fact("defect", answer)]

    if family.family == "count":
        if unit.labels:
            skipped[f"{task}: defects without boxes"] += 1
            return []
        return [fact(family.of, str(len(_shapes(unit, family.of))))]

    if family.family == "where":
        facts = []
        for about in unit.kinds if family.of == "each" else [family.of]:
            shapes = _shapes(unit, about)
            if len(shapes) > 1:  # "the defect" would be ambiguous
                skipped[f"{task}: several boxes of what is asked for"] += 1
            for shape in shapes if len(shapes) == 1 else []:
                facts.append(fact(about, _where(shape.box, unit, family, recipe)))
        return facts

    sentence = rng.choice(family.answers if unit.kinds else family.whole)
    if unit.labels and "{places}" in sentence:
        skipped[f"{task}: defects without boxes"] += 1
        return []
    return [fact("defect", _described(sentence, unit, recipe))]


def _all_kinds(recipe: Recipe) -> list[Any]:
    return [*recipe.components, *recipe.defects]


def _shapes(unit: Unit, about: str) -> list[Shape]:
    if about == "defect":
        return list(unit.defects)
    return [shape for shape in (*unit.components, *unit.defects) if shape.name == about]


def _where(box: Box, unit: Unit, family: Family, recipe: Recipe) -> str:
    if family.type == "box":
        return format_box(to_frame(box, *unit.size, recipe.boxes.frame), recipe.boxes.decimals)
    return place_of(box, unit.size, recipe.places)


def place_of(box: Box, size: tuple[int, int], places: Sequence[str]) -> str:
    """Which of the nine `places` of a 3x3 grid over a picture of `size` the centre of `box` lies in."""
    column = min(2, int((box[0] + box[2]) / 2 * 3 / size[0]))
    row = min(2, int((box[1] + box[3]) / 2 * 3 / size[1]))
    return places[3 * row + column]


def _described(sentence: str, unit: Unit, recipe: Recipe) -> str:
    """`sentence` with the kinds of defect, each once, at its largest box, in the recipe's order."""
    kinds = [kind.phrase for kind in recipe.defects if kind.name in unit.kinds]
    places = []
    for kind in recipe.defects:
        if boxes := [shape.box for shape in unit.defects if shape.name == kind.name]:
            places.append(f"{kind.phrase} at the {place_of(max(boxes, key=area), unit.size, recipe.places)}")
    text = sentence.format(kinds=_listed(kinds, "and"), places=_listed(places, "and"))
    return text[0].upper() + text[1:]


def _listed(words: Sequence[str], joiner: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joiner} {words[-1]}" if words else ""


def classes_of(item: Item, recipe: Recipe) -> list[str] | None:
    """The closed list of answers, None where the answers are open."""
    if item.type == "yesno":
        return [YES, NO]
    if item.type == "class":
        return recipe.kind_answers if recipe.asked[item.task].family == "kind" else recipe.places
    return None


def to_record(item: Item, recipe: Recipe, group: str) -> Record:
    return Record(
        id=item.id,
        image=item.unit.image,
        conversations=[
            Turn.model_validate({"from": "human", "value": f"{IMAGE_PLACEHOLDER}\n{item.question}"}),
            Turn.model_validate({"from": "gpt", "value": item.answer}),
        ],
        meta={
            "source": item.unit.source,
            "group": group,
            "task": item.task,
            "type": item.type,
            "language": recipe.language,
            **_facts_of(item, recipe),
            "flip": _speaks_of_places(item, recipe),
        },
    )


def to_dialogue(talk: Sequence[Item], recipe: Recipe, group: str) -> Record:
    """Several questions on one picture as the turns of one record; the picture comes with the first."""
    turns = [
        ("human", f"{IMAGE_PLACEHOLDER}\n{talk[0].question}"),
        ("gpt", talk[0].answer),
        *(turn for item in talk[1:] for turn in (("human", item.question), ("gpt", item.answer))),
    ]
    return Record(
        id=hashlib.sha1("\n".join(item.id for item in talk).encode()).hexdigest()[:16],
        image=talk[0].unit.image,
        conversations=[Turn.model_validate({"from": who, "value": text}) for who, text in turns],
        meta={
            "source": talk[0].unit.source,
            "group": group,
            "task": "dialogue",
            "language": recipe.language,
            "flip": any(_speaks_of_places(item, recipe) for item in talk),
        },
    )


def _speaks_of_places(item: Item, recipe: Recipe) -> bool:
    """Words of direction in its answer speak of the picture: the trainer may turn them with it."""
    return recipe.asked[item.task].family in ("where", "describe")


def to_question(item: Item, recipe: Recipe) -> Question:
    choices = classes_of(item, recipe) if recipe.asked[item.task].choices else None
    return Question(
        question_id=item.id, image=item.unit.image, text=item.question, category=item.task, choices=choices
    )


def to_truth(item: Item, recipe: Recipe, group: str) -> Truth:
    facts = _facts_of(item, recipe)
    return Truth(
        question_id=item.id,
        answer=item.answer,
        task=item.task,
        type=item.type,
        group=group,
        classes=classes_of(item, recipe) if item.type == "class" else None,
        label=facts.pop("label"),
        language=recipe.language,
        meta={"source": item.unit.source, **facts},
    )


def _facts_of(item: Item, recipe: Recipe) -> dict[str, Any]:
    """What the unit really shows. A question about one kind by name is sliced by that kind if it is there."""
    unit = item.unit
    label = item.about if item.about in unit.kinds else unit.label
    facts: dict[str, Any] = {"label": label, "kinds": unit.kinds, "about": item.about}
    if item.type == "box":
        facts |= {
            "frame": recipe.boxes.frame,
            "decimals": recipe.boxes.decimals,
            "width": unit.size[0],
            "height": unit.size[1],
        }
    return facts
