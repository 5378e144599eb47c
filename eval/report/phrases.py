"""Figures in plain words: whole percents, intervals, plurals."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from math import floor, log10

from eval.scoring.schema import Estimate, TaskScore


def percent(value: float) -> str:
    """Return whole percents; 0% and 100% only where the value is exactly that."""
    shown = f"{100 * value:.0f}%"
    if shown == "0%" and value > 0:
        return "under 1%"
    return "over 99%" if shown == "100%" and value < 1 else shown


def probability(value: float) -> str:
    """Return a probability to three figures of its distance from 0 or 1, whichever is nearer: `0.338`,
    `0.00412`, `0.99987`. Rounded down: what a threshold lets through it still lets through as it is shown."""
    distance = min(value, 1 - value)
    if distance <= 0:
        return f"{value:.0f}"
    last = Decimal(1).scaleb(floor(log10(distance)) - 2)
    return f"{Decimal(repr(value)).quantize(last, ROUND_FLOOR):f}"


def counted(number: int, noun: str) -> str:
    """Return `1 picture` or `1,234 pictures`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def with_article(noun: str) -> str:
    """Return `a defect` or `an inclusion`, by the first letter: wrong for a few words only."""
    return f"{'an' if noun[:1].casefold() in 'aeiou' else 'a'} {noun}"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def times_in(number: int, of: int) -> str:
    return f"{number:,} {'time' if number == 1 else 'times'} in {of:,}"


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def interval_clause(estimate: Estimate | None) -> str:
    """Return ` (could be 81% to 92%)`, or nothing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f" (could be {percent(estimate.low)} to {percent(estimate.high)})"


def percent_in_brackets(estimate: Estimate | None) -> str:
    """Return `(86%; could be 81% to 92%)`."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"({percent(estimate.value)})"
    return f"({percent(estimate.value)}; could be {percent(estimate.low)} to {percent(estimate.high)})"


def percent_with_interval(estimate: Estimate) -> str:
    """Return `86% (could be 81% to 92%)`."""
    return f"{percent(estimate.value)}{interval_clause(estimate)}"


def percentage_points(value: float) -> str:
    """Return percentage points with their sign."""
    shown = f"{100 * value:+.0f}".replace("-", "−")
    return "0" if shown[1:] == "0" else shown


def independent_groups(task: TaskScore) -> str:
    """Return the number of independent trials: questions about one image or near-duplicates are one."""
    return f"{task.groups:,} independent " + (
        ("picture" if task.groups == 1 else "pictures")
        if task.groups == task.n
        else ("group of pictures" if task.groups == 1 else "groups of pictures")
    )


def to_two_figures(number: int) -> str:
    """Return a number to two significant figures: more would pretend to know."""
    digits = max(0, len(str(number)) - 2)
    return f"{round(number, -digits):,}"
