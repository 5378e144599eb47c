"""The verdict on each task, in plain words for readers without statistics: may one rely on the model?

A task's standing is one of four, by the RULES that the report prints. No sentence claims more than the
intervals allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eval.report.per_class import HALF, class_tallies, tally_text, weak_classes
from eval.report.phrases import (
    independent_groups,
    interval_clause,
    percent,
    percent_with_interval,
    with_article,
)
from eval.report.sentences import describe_task
from eval.scoring.schema import Estimate, Scores, SystemScore, TaskScore

RELY = 0.9  # right at least 9 times in 10, by the lower end of the interval
EACH = 0.8  # and each true answer at least 8 times in 10
CARE = 2 / 3  # wrong more than one time in three is no help; for boxes, an overlap of less than HALF

Standing = Literal["rely", "care", "unclear", "not"]
STANDINGS: dict[Standing, str] = {
    "rely": "Rely on it for",
    "care": "Use with care for",
    "unclear": "Cannot be told from this test",
    "not": "Do not rely on it for",
}
RULES: dict[Standing, str] = {
    "rely": f"right at least {percent(RELY)} of the time, and at least {percent(EACH)} for each true answer, "
    "by the lower ends of the ranges that the test leaves open; and no kind of defect missed one time in "
    "three. Free text never: words in common do not make it true.",
    "care": "above any guess without looking by the whole range that the test leaves open, but not that "
    "good, or not shown to be on so few pictures.",
    "unclear": "too few pictures, or only one answer is ever right in this test.",
    "not": "not shown to be above a guess without looking; or wrong more than one time in three (boxes: an "
    "overlap of less than half); or, asked for yes or no, wrong on most of the true yes or of the true no.",
}
# How each headline reads as a share: what 90% of it means.
HEADLINES = {
    "balanced_accuracy": "right, on average over the possible answers",
    "accuracy": "right",
    "exact": "counted exactly",
    "mean_iou": "overlap with the true box, on average",
    "token_f1": "of the words as in the true text",
    "field_accuracy": "of the fields are right",
}


@dataclass(frozen=True)
class Verdict:
    """Holds the standing of a task, a clause that gives the reason, and whole sentences with figures."""

    task: str
    standing: Standing
    reason: str
    lines: tuple[str, ...]


def make_verdict(task: TaskScore, unit: str = "question") -> Verdict:
    """Return a task's verdict; `unit` is what its questions are counted as, "picture" or "question"."""
    standing, reason = _standing(task)
    return Verdict(task.task, standing, reason, tuple(describe_task(task, unit)))


def summarise_standings(scores: Scores) -> str:
    """Return in one sentence or a few which tasks have which standing."""
    parts = []
    for standing, words in STANDINGS.items():
        tasks = [task.task for task in scores.tasks if _standing(task)[0] == standing]
        if tasks:
            parts.append(f"{words}: {', '.join(tasks)}.")
    return " ".join(parts)


# --- the standing ------------------------------------------------------------------------------------


def _standing(task: TaskScore) -> tuple[Standing, str]:
    tuned = task.tuned
    if tuned.unparsed + tuned.missing >= task.n:
        return "not", "none of its answers could be understood"
    if tuned.per_class and sum(row.support > 0 for row in tuned.per_class) == 1:
        return "unclear", "only one answer is ever right in this test: a model that never looks could give it"
    if (constant := _constant(tuned)) is not None:
        return "not", f"it answers “{constant}” to everything, whatever the picture shows"
    headline = tuned.metrics[task.headline]
    if task.sees is not True:
        return _no_better_than_blind(task, headline)
    rows = [row for row in tuned.per_class or [] if row.recall]
    if task.type == "yesno" and (weak := [row for row in rows if row.recall and row.recall.value < HALF]):
        return "not", _one_sided(task, weak[0].name)
    if headline.value < (HALF if task.headline == "mean_iou" else CARE):
        return "not", f"it looks, but is wrong too often: {_figures(task)}"
    if task.small:
        return "unclear", f"{independent_groups(task)} are too few to say: {_figures(task)}"
    if weakest := weak_classes(class_tallies(task), CARE):
        least = "weakest" if task.type in ("yesno", "class", "count") else "wholly right least often"
        return "care", f"{_figures(task)}; {least}: {tally_text(weakest)}"
    if task.type == "text":
        return "care", f"{_figures(task)}; whether a text is true, shared words do not tell"
    each = [row.recall.low or 0.0 for row in rows if row.recall]
    if (headline.low or 0.0) >= RELY and min(each, default=1.0) >= EACH:
        return "rely", _figures(task)
    if headline.value >= RELY and all(row.recall.value >= EACH for row in rows if row.recall):
        return "care", f"it did well, but on too few pictures to promise that: {_figures(task)}"
    return "care", _figures(task)


def _no_better_than_blind(task: TaskScore, headline: Estimate) -> tuple[Standing, str]:
    blind = task.best_guess
    figures = f"{percent(headline.value)}{interval_clause(headline)} against {percent(blind)}"
    if task.sees is None and task.small and headline.value > blind:
        return "unclear", f"{independent_groups(task)} are too few to tell it from a blind guess: {figures}"
    if task.sees is None and headline.value > blind:
        return "not", f"it is not shown to be better than a guess without looking: {figures}"
    # Where the interval reaches above the guess, only what was seen may be said.
    did = "did" if task.sees is None else "is"
    return "not", f"it {did} no better than a guess without looking: {figures}"


def _figures(task: TaskScore) -> str:
    """Return the task's figures in a clause."""
    metrics = task.tuned.metrics
    if task.type == "yesno" and "miss" in metrics and "over_call" in metrics:
        rows = task.tuned.per_class
        recall = rows[0].recall if rows and rows[0].recall else Estimate(value=1 - metrics["miss"].value)
        true, untrue = (
            (f"those with {with_article(task.about)}", "those without")
            if task.about
            else ("the true yes", "the true no")
        )
        alarms = percent_with_interval(metrics["over_call"])
        return f"finds {percent_with_interval(recall)} of {true}; false alarms on {alarms} of {untrue}"
    headline = metrics[task.headline]
    return f"{percent(headline.value)} {HEADLINES[task.headline]}{interval_clause(headline)}"


def _constant(system: SystemScore) -> str | None:
    """Return the only answer that the system gives, None where it gives several."""
    rows = system.per_class or []
    given = [row.name for row in rows if row.answered]
    return given[0] if len(given) == 1 and len(rows) > 1 else None


def _one_sided(task: TaskScore, weak: str) -> str:
    yes = (task.classes or ["yes"])[0]
    what = "it missed more than it found" if weak == yes else "it raised a false alarm more often than not"
    return f"{what}: {_figures(task)}"
