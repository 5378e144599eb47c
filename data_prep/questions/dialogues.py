"""Makes conversations of several turns from the questions about one image."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from data_prep.questions.records import QuestionAnswer
from data_prep.recipe.schema import Recipe

_TRIES = 20  # of a sound picture, few orders leave something to ask


def make_dialogues(qas: Sequence[QuestionAnswer], recipe: Recipe, seed: int) -> list[list[QuestionAnswer]]:
    """Draw `recipe.dialogues` dialogues for each image and language, each of two or three of its questions of
    different families; none where all are of one family. No turn asks what those before it tell already. The
    source's own conversations are not used."""
    conversations: list[list[QuestionAnswer]] = []
    for (image, language), group in _group_by_image_and_language(qas):
        by_task: dict[str, list[QuestionAnswer]] = {}
        for qa in group:
            by_task.setdefault(qa.task, []).append(qa)
        name = image if language == recipe.language else f"{image}/{language}"
        rng = random.Random(f"{seed}/{name}/dialogues")
        for _ in range(recipe.dialogues if len(by_task) > 1 else 0):
            drawn = (_draw(by_task, recipe, rng) for _ in range(_TRIES))
            dialogue = next((turns for turns in drawn if len(turns) > 1), [])
            if dialogue and dialogue not in conversations[-recipe.dialogues :]:
                conversations.append(dialogue)
    return conversations


def _draw(
    by_task: dict[str, list[QuestionAnswer]], recipe: Recipe, rng: random.Random
) -> list[QuestionAnswer]:
    """Draw up to two or three questions of different tasks, none of which is answered by those before it."""
    wanted = rng.choice((2, 3))
    turns: list[QuestionAnswer] = []
    known: set[str] = set()
    for task in rng.sample(sorted(by_task), len(by_task)):
        qa = rng.choice(by_task[task])
        asked, told = _facts(qa, recipe)
        if len(turns) < wanted and not asked <= known:
            turns.append(qa)
            known |= told
    return turns


def _facts(qa: QuestionAnswer, recipe: Recipe) -> tuple[set[str], set[str]]:
    """Return the facts that a question asks for, and those that are known once it is answered.

    "any" is whether there is a defect; of a kind, "is" is whether it is there, "at" in which part, "box"
    where exactly.
    """
    kinds, about = qa.unit.kinds, qa.about
    is_each = {f"is {kind}" for kind in recipe.kind_names}
    if qa.family == "region":
        shown = [qa.label] if qa.label in kinds else []
        return {f"region {qa.question}"} if kinds else {"any"}, _seen(qa, shown, "is", "at", "box")
    if about == "defect" and not kinds:
        return {"any"}, {"any"} | is_each
    if about == "defect" and qa.family == "presence":
        return {"any"}, {"any"}
    if qa.family == "count":
        return {f"count {about}"}, {f"count {about}"} | _seen(qa, [about], "is")
    if qa.family in ("kind", "choice"):
        return _facts_of(kinds, "is"), {"any"} | (is_each if len(kinds) == 1 else _facts_of(kinds[:1], "is"))
    if qa.family == "report":
        return {"report"}, _seen(qa, kinds, "at") | is_each
    is_there = about in kinds or any(shape.name == about for shape in qa.unit.components)
    if qa.family == "where" and (is_there or about == "defect"):
        told = ["at", "box"] if qa.type == "box" else ["at"]
        if about == "defect":  # the only one, of whatever kind
            return _facts_of(kinds, told[-1]), _seen(qa, kinds, *told)
        return _facts_of([about], told[-1]), _seen(qa, [about], "is", *told)
    if qa.family == "describe" and (is_there or about == "defect"):
        places = recipe.in_language(qa.language).places
        told = ["is", "at"] if any(place in qa.answer for place in places) else ["is"]
        named = kinds if about == "defect" else [about]
        return _facts_of(named, *told), _seen(qa, named, *told) | (is_each if about == "defect" else set())
    return {f"is {about}"}, _seen(qa, [about], "is") if is_there else {f"is {about}"}


def _facts_of(kinds: Sequence[str], *facts: str) -> set[str]:
    return {f"{fact} {kind}" for fact in facts for kind in kinds}


def _seen(qa: QuestionAnswer, kinds: Sequence[str], *facts: str) -> set[str]:
    """Return the facts of kinds that are there; a defect among them is any."""
    return _facts_of(kinds, *facts) | ({"any"} if {"defect", *qa.unit.kinds}.intersection(kinds) else set())


def _group_by_image_and_language(
    qas: Sequence[QuestionAnswer],
) -> list[tuple[tuple[str, str], list[QuestionAnswer]]]:
    groups: list[tuple[tuple[str, str], list[QuestionAnswer]]] = []
    for image, group in groupby(qas, key=lambda qa: qa.unit.image):
        by_language: dict[str, list[QuestionAnswer]] = {}
        for qa in group:
            if qa.family != "talk":
                by_language.setdefault(qa.language, []).append(qa)
        groups += [((image, language), found) for language, found in sorted(by_language.items())]
    return groups
