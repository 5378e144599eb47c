"""Chooses the question families that a source can support: those whose answers differ often enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.annotations import AnnotatedImage, Annotation
from data_prep.images.units import Unit, cut_units, whole_unit
from data_prep.questions.candidates import CandidateFinder
from data_prep.recipe.english import is_plural
from data_prep.recipe.schema import Recipe
from data_prep.report.model import View
from data_prep.starter.classes import FoundClasses
from llava.common.settings import validate_settings

FEWEST = 3  # units with another answer than the commonest: one for each split
_UNEVEN = 3  # times the median answer, from which the commonest is capped


@dataclass(frozen=True)
class Wordings:
    """A family of a recipe: its task, a line on what it asks, its settings and its wordings."""

    task: str
    about: str
    settings: Mapping[str, Any]
    questions: Sequence[str]

    @property
    def values(self) -> dict[str, Any]:
        return {**self.settings, "questions": list(self.questions)}


def possible_families(classes: FoundClasses) -> list[Wordings]:
    """Return every family that a first recipe may have, in wordings that fit the classes, whether they are
    counted, plural or neither."""
    thing = "object" if classes.objects else "defect"
    parts = [found.word for found in classes.components if found.word.replace(" ", "").isalpha()]
    of_part = f" with the {parts[0]}" if len(parts) == 1 else ""
    what = "What does the picture show?" if classes.objects else f"What is wrong{of_part}?"
    wrong = f"Do you see {'any object' if classes.objects else 'any damage'}?"
    if not classes.objects and of_part:
        wrong = f"Is anything wrong{of_part}?"
    plural = any(is_plural(found.word) for found in classes.defects)
    article = "an" if classes.objects else "a"
    places = (
        ["Where do you see {phrase}?", "In which part of the picture do you see {phrase}?"]
        if plural
        else [
            "Where is the {kind}?",
            "In which part of the picture is the {kind}?",
            "Where do you see {phrase}?",
        ]
    )
    return [
        Wordings(
            "presence",
            "yes or no",
            {"times": 2, "balance": 2},
            [f"Is there {article} {thing}?", wrong, f"Do you see {article} {thing}?"],
        ),
        Wordings(
            "presence_of",
            "yes or no, for each kind by its name",
            {"family": "presence", "of": "each", "absent": 2, "balance": 1},
            ["Do you see {phrase}?", "Can you see {phrase}?", "Does the picture show {phrase}?"],
        ),
        Wordings(
            "kind",
            "which kind it is",
            {"times": 2},
            [what, f"Which {thing} do you see?", f"Name the {thing}.", f"What kind of {thing} is it?"],
        ),
        Wordings(
            "choice",
            "the same with letters to choose from",
            {},
            [
                f"{what}\n{{options}}\nAnswer with the letter.",
                f"Which {thing} do you see?\n{{options}}\nAnswer with the letter.",
            ],
        ),
        Wordings(
            "count",
            "a number",
            {},
            [f"How many {thing}s are there?", f"How many {thing}s do you see?", f"Count the {thing}s."],
        ),
        Wordings(
            "where",
            "a part of the picture in words, such as top left",
            {"of": "each"},
            places,
        ),
        Wordings(
            "box",
            "a box in numbers, [x1, y1, x2, y2] between 0 and 1",
            {"family": "where", "type": "box", "of": "each"},
            ["Give the box of the {kind}.", "What is the bounding box of the {kind}?"],
        ),
        Wordings("talk", "the conversations that the source itself holds", {}, []),
    ]


@dataclass(frozen=True)
class ChosenFamilies:
    """The families that a source supports, the reasons for those that it does not, by task, and whether some
    units show no defect (and so "none" is an answer), or several kinds in one."""

    families: list[Wordings]
    left_out: dict[str, str]
    some_sound: bool
    some_several: bool


def choose_families(
    views: Sequence[View], classes: FoundClasses, values: Mapping[str, Any]
) -> ChosenFamilies:
    """Choose the families of a recipe that has the classes and the unit in `values`.

    All questions are made. A family stays if answers other than the commonest are given at least `FEWEST`
    times; counts must be above 1 as often, or they would ask what presence asks.
    """
    talk = [family for family in possible_families(classes) if family.task == "talk"]
    families = [family for family in possible_families(classes) if family.task != "talk"]
    has_talk = any(view.conversations for view in views)
    if not classes.defects:
        return ChosenFamilies(talk if has_talk else [], {}, False, False)
    units = cut_views(views, {**values, "families": {"presence": families[0].values}})
    some_sound = sum(not unit.kinds for unit in units) >= FEWEST
    several = sum(len(unit.kinds) > 1 for unit in units)
    chosen, left_out = [], {}
    for family in families:
        if family.task in ("kind", "choice") and len(classes.defects) + some_sound < 2:
            left_out[family.task] = "there is one kind only"
        elif family.task in ("kind", "choice", "presence_of") and len(classes.defects) < 2:
            left_out[family.task] = "there is one kind only, so presence asks the same"
        else:
            counts = _answers(units, family, {**values, "none_word": "none" if some_sound else None})
            others = counts.total() - max(counts.values(), default=0)
            if family.task == "count":
                others = min(others, counts.total() - counts["0"] - counts["1"])
            if others < FEWEST:
                left_out[family.task] = _why_not(family.task, units, counts)
            else:
                chosen.append(_capped(family, counts))
    return ChosenFamilies([*chosen, *(talk if has_talk else [])], left_out, some_sound, several > 0)


def cut_views(views: Sequence[View], values: Mapping[str, Any]) -> list[Unit]:
    """Cut views to the units of a recipe, as `convert` will cut their images."""
    recipe = validate_settings(Recipe, dict(values), "the recipe")
    names = recipe.known_names()
    units = []
    for view in views:
        image = AnnotatedImage(view.file, view.name, [Annotation(view.file, labels=view.labels)])
        size = (round(view.size[0]), round(view.size[1]))
        units += cut_units(whole_unit(image, size, list(view.shapes), recipe, names), recipe, {})
    return units


def _answers(units: Sequence[Unit], family: Wordings, values: Mapping[str, Any]) -> Counter[str]:
    recipe = validate_settings(Recipe, {**values, "families": {family.task: family.values}}, "the recipe")
    finder = CandidateFinder(family.task, recipe.active_families[family.task], recipe, "test", 0, Counter())
    return Counter(candidate.answer for candidate in finder.find(units))


def _capped(family: Wordings, counts: Counter[str]) -> Wordings:
    """Return the family with a `cap` where one answer is far more frequent than others."""
    ordered = sorted(counts.values())
    if family.task not in ("kind", "count") or ordered[-1] <= _UNEVEN * ordered[(len(ordered) - 1) // 2]:
        return family
    return Wordings(family.task, family.about, {**family.settings, "cap": _UNEVEN}, family.questions)


def _why_not(task: str, units: Sequence[Unit], counts: Counter[str]) -> str:
    if task == "presence":
        sound = sum(not unit.kinds for unit in units)
        few = "none" if sound in (0, len(units)) else "fewer than " + str(FEWEST)
        return f"{few} {'is without a defect' if sound < len(units) / 2 else 'has a defect'}"
    if not any(unit.defects for unit in units):
        return "no box says where something is"
    if task == "count":
        return "nearly all have the same number, or one at most"
    if not counts:
        return "no question has one answer only"
    return f"nearly every answer would be {counts.most_common(1)[0][0]!r}"
