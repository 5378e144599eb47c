"""Deals the options of multiple-choice questions so that none is likelier to be right than another."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence


def deal_options(
    rights: Sequence[str], answers: Sequence[str], number: int, rng: random.Random
) -> list[list[str] | None]:
    """Choose the options of each question of a split, in no particular order.

    Questions are put into sets of `number` with different right answers, and these are what every question
    of the set shows: each option is right in one of `number` questions that show it, whatever else they
    show. Only the few questions that make no whole set are filled up with other answers.

    Args:
        rights: The right answer to each question.
        answers: All possible answers.
        number: How many options a question shows.
        rng: Draws what goes together.

    Returns:
        The options of each question; None for one that is left out, because an answer that is right in more
        than one of `number` questions is the best guess wherever it is shown.
    """
    counts, number = Counter(rights), min(number, len(answers))
    limit = _highest_count(list(counts.values()), number)
    left = {answer: rng.sample(_places(rights, answer), min(counts[answer], limit)) for answer in answers}
    options: list[list[str] | None] = [None] * len(rights)
    sets = max(-(-sum(map(len, left.values())) // number), *map(len, left.values()))
    for remaining in range(sets, 0, -1):
        wanted = -(-sum(map(len, left.values())) // remaining)
        chosen = [answer for answer in answers if len(left[answer]) == remaining]
        while len(chosen) < wanted:
            others = [answer for answer in answers if left[answer] and answer not in chosen]
            chosen += rng.choices(others, [len(left[answer]) for answer in others])
        shown = chosen + rng.sample([a for a in answers if a not in chosen], number - len(chosen))
        for answer in chosen:
            options[left[answer].pop()] = rng.sample(shown, number)
    return options


def _places(rights: Sequence[str], answer: str) -> list[int]:
    return [index for index, right in enumerate(rights) if right == answer]


def _highest_count(counts: Sequence[int], number: int) -> int:
    """Return how often an answer may be right: as often as lets sets of `number` be made of all questions,
    but no fewer than the median of `counts`: one rare answer shall not cost most of the questions."""
    fits = (high for high in range(max(counts, default=0), 0, -1) if _fits(counts, high, number))
    return max(next(fits, 0), statistics.median_low(counts) if counts else 0)


def _fits(counts: Sequence[int], high: int, number: int) -> bool:
    return sum(min(count, high) for count in counts) >= number * high
