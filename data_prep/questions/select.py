"""Units become questions with answers, as the recipe's families say; docs/recipes.md states the rules."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from data_prep.images.units import Unit
from data_prep.questions.candidates import Asker, Candidate, Rounds
from data_prep.questions.records import Item
from data_prep.recipe.families import LETTERS, Family
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import Split
from llava.common.errors import InputError
from llava.common.records import YES_NO, TaskType

BALANCED_AWAY = "pictures that the balance of answers leaves without a question"


def ask(units: Sequence[Unit], recipe: Recipe, split: Split, seed: int) -> tuple[list[Item], Counter[str]]:
    """All questions of a split: pictures in shuffled order, each picture's questions together and shuffled.

    Also returns how often something was not asked, as `what: why`, and how many units lost all their
    questions to the balance. Only train is balanced; test asks every family of every unit, in its first
    wording and every language. Depends on `seed` and the units, not on their order. InputError where a
    conversation of the source has the name of a family's task.
    """
    skipped: Counter[str] = Counter()
    before_balance: set[str] = set()
    items: dict[str, list[Item]] = {}
    ordered = sorted(units, key=lambda unit: unit.image)
    random.Random(f"{seed}/{split}").shuffle(ordered)
    first = next(iter(recipe.voices))
    for language, share in recipe.voices.items():
        voice = recipe.spoken(language)
        heard = ordered if split == "test" else _sample(ordered, share, f"{seed}/{split}/{language}")
        reasons: Counter[str] = Counter()
        for task, family in voice.asked.items():
            # The conversations of the source are in one language, whatever the recipe's are.
            if family.family == "talk" and language != first:
                continue
            asked = ordered if family.family == "talk" else heard
            facts = Asker(task, family, voice, split, seed, reasons).facts(asked)
            before_balance.update(fact.unit.image for fact in facts)
            for item in _items(facts, task, family, voice, split, seed):
                items.setdefault(item.unit.image, []).append(item)
        for reason, number in reasons.items():
            what, _, why = reason.partition(": ")
            skipped[reason if language == first else f"{what} in {language}: {why}"] += number
    silent = sum(bool(unit.conversations) for unit in units)
    if silent and not any(family.family == "talk" for family in recipe.asked.values()):
        skipped["conversations of the source: the recipe has no talk family"] += silent
    if silenced := len(before_balance - items.keys()):
        skipped[BALANCED_AWAY] += silenced
    for image, asked_of in items.items():
        random.Random(f"{seed}/{image}/order").shuffle(asked_of)
    return [item for unit in ordered for item in items.get(unit.image, [])], skipped


def _sample(units: Sequence[Unit], share: float, seed: str) -> list[Unit]:
    """`share` of the units, in their order."""
    if share == 1:
        return list(units)
    chosen = random.Random(seed).sample(range(len(units)), round(share * len(units)))
    return [units[index] for index in sorted(chosen)]


def _items(
    facts: list[Candidate], task: str, family: Family, recipe: Recipe, split: Split, seed: int
) -> list[Item]:
    """Facts with their wordings chosen, balanced in train, as items."""
    for fact in facts if split != "test" else []:
        random.Random(f"{seed}/{fact.unit.image}/{task}/{fact.about}/words").shuffle(fact.wordings)
    if split == "train" and family.balance is not None and family.type == "yesno":
        _even_out(facts, family.balance, random.Random(f"{seed}/{task}/balance"))
    if split == "train" and family.cap is not None:
        _cap(facts, family.cap, random.Random(f"{seed}/{task}/cap"))
    if family.family == "talk":
        return _talk_items(facts, recipe)
    letters = Rounds(f"{seed}/{split}/{task}/letters")
    return [
        _item(fact, question, family, recipe, letters, seed)
        for fact in facts
        for question in fact.wordings[: fact.asked]
    ]


def _item(fact: Candidate, question: str, family: Family, recipe: Recipe, letters: Rounds, seed: int) -> Item:
    answer, options = fact.answer, tuple[str, ...]()
    if family.family == "choice":
        number = family.options or len(recipe.kind_answers)
        place = letters.draw(fact.answer, number)
        options = _options(recipe.kind_answers, answer, number, place, f"{seed}/{fact.unit.image}/{question}")
        shown = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
        question, answer = question.replace("{options}", shown), LETTERS[place]
    return Item(
        unit=fact.unit,
        task=fact.task,
        type=fact.type,
        family=fact.family,
        language=recipe.language,
        about=fact.about,
        question=question,
        answer=answer,
        yes=fact.yes,
        label=fact.label,
        options=options,
    )


def _options(answers: Sequence[str], right: str, number: int, place: int, seed: str) -> tuple[str, ...]:
    """`number` of the `answers` in random order, the right one at `place`."""
    others = random.Random(seed).sample([answer for answer in answers if answer != right], number - 1)
    return (*others[:place], right, *others[place:])


def _talk_items(facts: Sequence[Candidate], recipe: Recipe) -> list[Item]:
    """The source's own conversations. A task in which every answer is yes or no is a yes/no task; a
    conversation of several turns is text."""
    own = {task for task, family in recipe.asked.items() if family.family != "talk"}
    if taken := own & {fact.task for fact in facts}:
        raise InputError(
            f"the source holds conversations of task {min(taken)!r}, and the recipe has a family of that "
            "name; give the family another key"
        )
    languages = [fact.language or recipe.language for fact in facts]
    types: dict[tuple[str, str], TaskType] = {}
    said: list[str | None] = []
    for fact, language in zip(facts, languages, strict=True):
        said.append(None if fact.turns else _yes_or_no(fact.answer, recipe.yes_no(language)))
        known = types.get((fact.task, language), "yesno")
        types[fact.task, language] = "text" if said[-1] is None else known
    image, seen = "", Counter[tuple[str, str]]()
    items = []
    for fact, language, word in zip(facts, languages, said, strict=True):
        if fact.unit.image != image:
            image, seen = fact.unit.image, Counter()
        question = fact.wordings[0]
        key = (fact.task, question)
        items.append(
            Item(
                unit=fact.unit,
                task=fact.task,
                type=types[fact.task, language],
                family="talk",
                language=language,
                about=fact.about,
                question=question,
                answer=fact.answer,
                yes=word == "yes",
                turns=fact.turns,
                number=seen[key],
            )
        )
        seen[key] += 1
    return items


def _yes_or_no(answer: str, words: tuple[str, str] | None) -> str | None:
    plain = answer.strip(" .!").casefold()
    spoken = [word.casefold() for word in words or ()]
    return YES_NO[spoken.index(plain)] if plain in spoken else None


def dialogues(items: Sequence[Item], recipe: Recipe, seed: int) -> list[list[Item]]:
    """`recipe.dialogues` conversations a picture and language, of two or three of its `items` of different
    families; none where all are of one family. The source's own conversations stay as they are."""
    conversations: list[list[Item]] = []
    for (image, language), group in _by_image_and_language(items):
        by_task: dict[str, list[Item]] = {}
        for item in group:
            by_task.setdefault(item.task, []).append(item)
        name = image if language == recipe.language else f"{image}/{language}"
        rng = random.Random(f"{seed}/{name}/dialogues")
        for _ in range(recipe.dialogues if len(by_task) > 1 else 0):
            tasks = rng.sample(sorted(by_task), min(len(by_task), rng.choice((2, 3))))
            talk = [rng.choice(by_task[task]) for task in tasks]
            if talk not in conversations[-recipe.dialogues :]:
                conversations.append(talk)
    return conversations


def _by_image_and_language(items: Sequence[Item]) -> list[tuple[tuple[str, str], list[Item]]]:
    groups: list[tuple[tuple[str, str], list[Item]]] = []
    for image, group in groupby(items, key=lambda item: item.unit.image):
        by_language: dict[str, list[Item]] = {}
        for item in group:
            if item.family != "talk":
                by_language.setdefault(item.language, []).append(item)
        groups += [((image, language), found) for language, found in sorted(by_language.items())]
    return groups


def _even_out(facts: Sequence[Candidate], more: int, rng: random.Random) -> None:
    """As many yes as no for each thing asked about: the rarer is asked in up to `more` other wordings, then
    what the commoner has in excess is left out at random."""
    for about in sorted({fact.about for fact in facts}):
        sides = [[fact for fact in facts if fact.about == about and fact.yes is yes] for yes in (True, False)]
        rare, common = sorted(sides, key=lambda side: sum(fact.asked for fact in side))
        excess = sum(fact.asked for fact in common) - sum(fact.asked for fact in rare)
        for _ in range(more):
            for fact in rng.sample(rare, len(rare)):
                if excess > 0 and fact.asked < len(fact.wordings):
                    fact.asked += 1
                    excess -= 1
        _leave_out(common, excess, rng)


def _cap(facts: Sequence[Candidate], most: float, rng: random.Random) -> None:
    """No answer more than `most` times as often as the median answer (the lower of two in the middle)."""
    counts: Counter[str] = Counter()
    for fact in facts:
        counts[fact.answer] += fact.asked
    if not counts:
        return
    limit = int(most * statistics.median_low(counts.values()))
    for answer in sorted(counts):
        _leave_out([fact for fact in facts if fact.answer == answer], counts[answer] - limit, rng)


def _leave_out(facts: Sequence[Candidate], excess: int, rng: random.Random) -> None:
    """`excess` questions less, spread over the facts at random."""
    while excess > 0:
        for fact in rng.sample(facts, min(excess, len(facts))):
            if fact.asked:
                fact.asked -= 1
                excess -= 1
