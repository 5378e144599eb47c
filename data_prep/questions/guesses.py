"""What can be guessed of a conversion's questions without looking: a note on train, and guesses for test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from data_prep.questions.blind import AskedQuestion, blind_tests, guess_blindly, without_kinds
from data_prep.questions.records import QuestionAnswer


def guess_test(train: Sequence[QuestionAnswer], test: Sequence[QuestionAnswer]) -> dict[str, str]:
    """Return by id what a guess without looking, learned from train, answers to the closed test questions."""
    known = _by_task(train)
    guessed: dict[str, str] = {}
    for task, qas in _by_task(test).items():
        if task in known:
            pairs = [(qa.question, qa.answer) for qa in known[task]]
            # Counts are scored by their share of right answers, others by the average over the answers.
            guesses = guess_blindly(pairs, [qa.question for qa in qas], common=qas[0].type == "count")
            guessed |= {qa.id: guess for qa, guess in zip(qas, guesses, strict=True)}
    return guessed


def notes_of_guesses(train: Sequence[QuestionAnswer], group_of: Mapping[str, str]) -> list[str]:
    """Return a note on the training questions that can be guessed without looking, if there are any."""
    asked = {
        task: [(AskedQuestion(qa.question, qa.answer, group_of[qa.unit.image]), qa.label) for qa in qas]
        for task, qas in _by_task(train).items()
    }
    tests = blind_tests({task: [question for question, _ in pairs] for task, pairs in asked.items()})
    if not tests:
        return []
    faults = blind_tests({task: [without_kinds(*pair) for pair in asked[task]] for task in tests})
    listed = "; ".join(
        f"{task} {test}" + ("" if task in faults else ", as the kinds differ in shape or place")
        for task, test in tests.items()
    )
    return [
        "some answers can be told without looking at a picture, from a question's words and boxes alone; "
        f"such a guess is right, on average over the answers: {listed}. A score says something only above "
        "that; eval.score shows it as the blind guess"
    ]


def _by_task(qas: Iterable[QuestionAnswer]) -> dict[str, list[QuestionAnswer]]:
    """Return single questions with closed answers by task, each language apart."""
    found: dict[str, list[QuestionAnswer]] = {}
    languages = {qa.language for qa in qas}
    for qa in qas:
        if qa.type in ("yesno", "class", "count") and not qa.turns:
            found.setdefault(f"{qa.task} ({qa.language})" if len(languages) > 1 else qa.task, []).append(qa)
    return found
