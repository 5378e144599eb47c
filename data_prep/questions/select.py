"""Chooses questions with answers from the candidates, as the recipe says; docs/recipes.md has the rules."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from textwrap import shorten

from data_prep.images.units import Unit
from data_prep.questions.blind import NONE
from data_prep.questions.candidates import UNPLACED, Candidate, CandidateFinder, EvenSampler
from data_prep.questions.options import deal_options
from data_prep.questions.records import QuestionAnswer
from data_prep.recipe.families import LETTERS, QuestionFamily
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import QUESTIONED, Split
from llava.common.errors import InputError
from llava.common.records import YES_NO, TaskType

BALANCED_AWAY = "pictures that the balance of answers leaves without a question"
ENOUGH = 10  # training questions that all have one answer are no chance from here on
COMMON_OPTION = "its answer is right so often that it would be the best guess wherever it is shown"


def make_questions(
    units: Sequence[Unit], recipe: Recipe, split: Split, seed: int
) -> tuple[list[QuestionAnswer], Counter[str]]:
    """Make all questions of a split: images in shuffled order, each image's questions together and shuffled.

    Only train is balanced; calibration and test ask every family of every unit, in its first wording and
    every language. The
    result depends on `seed` and the units, not on their order.

    Args:
        units: What to ask about.
        recipe: Which families to ask, in which words.
        split: The split of the units.
        seed: Of order, wordings and balance.

    Returns:
        The questions with their answers; and how often something was not asked, by `what: why`, with the
        number of units that lost all their questions to the balance.

    Raises:
        InputError: A conversation of the source has the name of a family's task.
    """
    skipped: Counter[str] = Counter()
    before_balance: set[str] = set()
    by_image: dict[str, list[QuestionAnswer]] = {}
    ordered = sorted(units, key=lambda unit: unit.image)
    random.Random(f"{seed}/{split}").shuffle(ordered)
    first = next(iter(recipe.language_shares))
    for language, share in recipe.language_shares.items():
        translated = recipe.in_language(language)
        sampled = (
            ordered if split in QUESTIONED else _sample_units(ordered, share, f"{seed}/{split}/{language}")
        )
        reasons: Counter[str] = Counter()
        for task, family in translated.active_families.items():
            # The conversations of the source are in one language, whatever the recipe's are.
            if family.family == "talk" and language != first:
                continue
            among = ordered if family.family == "talk" else sampled
            finder = CandidateFinder(task, family, translated, split, seed, reasons)
            candidates = _find_candidates(finder, among)
            before_balance.update(candidate.unit.image for candidate in candidates)
            qas = _choose_wordings(candidates, task, family, translated, split, seed)
            if family.family == "choice":
                possible = len(qas)
                qas = _with_options(qas, family, translated, f"{seed}/{split}/{task}")
                if possible > len(qas):
                    reasons[f"{task}: {COMMON_OPTION}"] += possible - len(qas)
            for qa in qas:
                by_image.setdefault(qa.unit.image, []).append(qa)
        for reason, number in reasons.items():
            what, _, why = reason.partition(": ")
            skipped[reason if language == first else f"{what} in {language}: {why}"] += number
    unasked = sum(bool(unit.conversations) for unit in units)
    if unasked and not any(family.family == "talk" for family in recipe.active_families.values()):
        skipped["conversations of the source: the recipe has no talk family"] += unasked
    if balanced_away := len(before_balance - by_image.keys()):
        skipped[BALANCED_AWAY] += balanced_away
    for image, image_questions in by_image.items():
        random.Random(f"{seed}/{image}/order").shuffle(image_questions)
    return [qa for unit in ordered for qa in by_image.get(unit.image, [])], skipped


def _find_candidates(finder: CandidateFinder, units: Sequence[Unit]) -> list[Candidate]:
    """Find a family's candidates; none where all have one answer, which would be known without looking."""
    family, train = finder.family, finder.split == "train"
    found = finder.find(units)
    if train and family.cap is not None:  # what is not there is asked for as often as what is then left
        _cap_answers(found, family.cap, random.Random(f"{finder.seed}/{finder.task}/cap"))
    found += finder.find_absent(units, found)
    answers = {NONE if candidate.says_nothing else candidate.answer for candidate in found}
    others = finder.skipped[f"{finder.task}: {UNPLACED}"]
    if family.family != "talk" and len(answers) == 1 and (others or (train and len(found) >= ENOUGH)):
        why = ", as no defect has a box" if others else ""
        said = shorten(found[0].answer, 60, placeholder=" ...")
        finder.skipped[f"{finder.task}: every answer would be {said!r}{why}"] += len(found)
        return []
    return found


def _sample_units(units: Sequence[Unit], share: float, seed: str) -> list[Unit]:
    """Draw `share` of the units; they keep their order."""
    if share == 1:
        return list(units)
    chosen = random.Random(seed).sample(range(len(units)), round(share * len(units)))
    return [units[index] for index in sorted(chosen)]


def _choose_wordings(
    candidates: list[Candidate], task: str, family: QuestionFamily, recipe: Recipe, split: Split, seed: int
) -> list[QuestionAnswer]:
    """Choose the wordings of one task's candidates; in train, balance their answers first."""
    for candidate in candidates if split not in QUESTIONED else []:
        random.Random(f"{seed}/{candidate.unit.image}/{task}/{candidate.about}/words").shuffle(
            candidate.wordings
        )
    if split == "train" and family.balance is not None and family.type == "yesno":
        _balance_yes_no(candidates, family.balance, random.Random(f"{seed}/{task}/balance"))
    if split == "train" and family.cap is not None:
        _cap_answers(candidates, family.cap, random.Random(f"{seed}/{task}/cap"))
    if family.family == "talk":
        return _source_conversations(candidates, recipe)
    return [
        QuestionAnswer(
            unit=candidate.unit,
            task=candidate.task,
            type=candidate.type,
            family=candidate.family,
            language=recipe.language,
            about=candidate.about,
            question=question,
            answer=candidate.answer,
            yes=candidate.yes,
            label=candidate.label,
        )
        for candidate in candidates
        for question in candidate.wordings[: candidate.times_asked]
    ]


def _with_options(
    qas: Sequence[QuestionAnswer], family: QuestionFamily, recipe: Recipe, seed: str
) -> list[QuestionAnswer]:
    """Write the options into multiple-choice questions; the answer becomes the letter of the right one, whose
    place is dealt evenly for each answer. Questions whose answer is right too often are left out."""
    number = family.options or len(recipe.kind_answers)
    dealt = deal_options(
        [qa.answer for qa in qas], recipe.kind_answers, number, random.Random(f"{seed}/options")
    )
    letters = EvenSampler(f"{seed}/letters")
    found = []
    for qa, options in zip(qas, dealt, strict=True):
        if options is None:
            continue
        place = letters.draw(qa.answer, number)
        others = [option for option in options if option != qa.answer]
        shown = (*others[:place], qa.answer, *others[place:])
        lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, shown, strict=False))
        # On lines of their own, however the wording was written.
        parts = (part.strip() for part in qa.question.split("{options}"))
        question = f"\n{lines}\n".join(parts).strip()
        found.append(replace(qa, question=question, answer=LETTERS[place], options=shown))
    return found


def _source_conversations(candidates: Sequence[Candidate], recipe: Recipe) -> list[QuestionAnswer]:
    """Turn the source's own conversations into questions. A task in which every answer is yes or no is a
    yes/no task; a conversation of several turns is text."""
    own = {task for task, family in recipe.active_families.items() if family.family != "talk"}
    if taken := own & {candidate.task for candidate in candidates}:
        raise InputError(
            f"the source holds conversations of task {min(taken)!r}, and the recipe has a family of that "
            "name; give the family another key"
        )
    languages = [candidate.language or recipe.language for candidate in candidates]
    types: dict[tuple[str, str], TaskType] = {}
    yes_no: list[str | None] = []
    for candidate, language in zip(candidates, languages, strict=True):
        yes_no.append(None if candidate.turns else _yes_or_no(candidate.answer, recipe.yes_no(language)))
        known = types.get((candidate.task, language), "yesno")
        types[candidate.task, language] = "text" if yes_no[-1] is None else known
    image, repeats = "", Counter[tuple[str, str]]()
    qas = []
    for candidate, language, word in zip(candidates, languages, yes_no, strict=True):
        if candidate.unit.image != image:
            image, repeats = candidate.unit.image, Counter()
        question = candidate.wordings[0]
        key = (candidate.task, question)
        qas.append(
            QuestionAnswer(
                unit=candidate.unit,
                task=candidate.task,
                type=types[candidate.task, language],
                family="talk",
                language=language,
                about=candidate.about,
                question=question,
                answer=candidate.answer,
                yes=word == "yes",
                turns=candidate.turns,
                number=repeats[key],
            )
        )
        repeats[key] += 1
    return qas


def _yes_or_no(answer: str, words: tuple[str, str] | None) -> str | None:
    plain = answer.strip(" .!").casefold()
    yes_no = [word.casefold() for word in words or ()]
    return YES_NO[yes_no.index(plain)] if plain in yes_no else None


def _balance_yes_no(candidates: Sequence[Candidate], more: int, rng: random.Random) -> None:
    """Even out yes and no for each thing asked about: ask the rarer in up to `more` other wordings, then drop
    what the commoner has in excess at random."""
    for about in sorted({candidate.about for candidate in candidates}):
        sides = [
            [candidate for candidate in candidates if candidate.about == about and candidate.yes is yes]
            for yes in (True, False)
        ]
        rare, common = sorted(sides, key=lambda side: sum(candidate.times_asked for candidate in side))
        excess = sum(candidate.times_asked for candidate in common) - sum(
            candidate.times_asked for candidate in rare
        )
        for _ in range(more):
            for candidate in rng.sample(rare, len(rare)):
                if excess > 0 and candidate.times_asked < len(candidate.wordings):
                    candidate.times_asked += 1
                    excess -= 1
        _drop_questions(common, excess, rng)


def _cap_answers(candidates: Sequence[Candidate], limit_factor: float, rng: random.Random) -> None:
    """Ask no answer more than `limit_factor` times as often as the median answer (the lower of two)."""
    counts: Counter[str] = Counter()
    for candidate in candidates:
        counts[candidate.answer] += candidate.times_asked
    if not counts:
        return
    limit = int(limit_factor * statistics.median_low(counts.values()))
    for answer in sorted(counts):
        _drop_questions(
            [candidate for candidate in candidates if candidate.answer == answer], counts[answer] - limit, rng
        )


def _drop_questions(candidates: Sequence[Candidate], excess: int, rng: random.Random) -> None:
    """Drop `excess` questions, spread over the candidates at random."""
    while excess > 0:
        for candidate in rng.sample(candidates, min(excess, len(candidates))):
            if candidate.times_asked:
                candidate.times_asked -= 1
                excess -= 1
