"""Scores of one task: the metrics of each answers file with intervals, and how the two files differ."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from eval.scoring.answers import AnswerFile, answer_error
from eval.scoring.boxes import BoxFamily
from eval.scoring.choices import add_choice_scores, find_choices
from eval.scoring.columns import TruthColumns, read_columns
from eval.scoring.comparison import SMALL, comparison_outcome, describe_difference, groups_needed
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.intervals import (
    bootstrap,
    bootstrap_estimates,
    defined_values,
    paired_differences,
    rounded_or_none,
    rounded_values,
    wilson_estimate,
)
from eval.scoring.metrics import Array, GroupSums, Metrics, class_counts
from eval.scoring.options import ScoringOptions
from eval.scoring.outcomes import Judged, Outcomes, TaskFamily, baseline_values
from eval.scoring.probabilities import class_probabilities
from eval.scoring.schema import ClassScore, Estimate, Slice, SystemScore, TaskScore
from eval.scoring.slices import SLICE_NAMES, SliceCriterion, make_slices, truth_slices
from llava.common.jsonl import Chosen
from llava.common.records import Truth


@dataclass(frozen=True)
class ScoredTask:
    """Holds a task's score with the truths and outcomes behind it (tuned, then base if there is one)."""

    score: TaskScore
    truths: Sequence[Truth]
    columns: TruthColumns
    outcomes: Sequence[Judged]


@dataclass(frozen=True)
class ReadAnswers:
    """Holds how one answers file did on a task's n questions: how many answers are missing and how many
    questions could not be answered (`unreadable`); of closed answers the `probabilities` of the classes
    (n, k), a row of NaN where an answer has none."""

    outcomes: Outcomes
    missing: int
    unreadable: int
    probabilities: Array


@dataclass(frozen=True)
class _SystemEstimates:
    """Holds what one answers file scores: sums per group, estimates, metrics of resamples."""

    sums: GroupSums
    estimates: dict[str, Estimate]
    draws: Metrics


def group_by_task(truths: Sequence[Truth]) -> dict[str, Sequence[Truth]]:
    """Return the truths by task, in the order in which tasks come first; they stay where they are.

    Where there are several languages, each task and language is a task of its own.
    """
    tasks: dict[str, dict[str, array[int]]] = {}
    for row, truth in enumerate(truths):
        tasks.setdefault(truth.task, {}).setdefault(truth.language, array("q")).append(row)
    several = len({language for languages in tasks.values() for language in languages}) > 1
    return {
        f"{task} ({language})" if several else task: Chosen(truths, rows)
        for task, languages in tasks.items()
        for language, rows in sorted(languages.items())
    }


def score_task(
    task: str, truths: Sequence[Truth], files: Sequence[AnswerFile], options: ScoringOptions
) -> ScoredTask:
    """Score the answers to one task's questions.

    Args:
        task: Name of the task.
        truths: Its questions' truths, one or more, all of one type.
        files: The answers of tuned, and of base if there is one.
        options: Resamples, seed and miss rate.

    Raises:
        InputError: The truths do not belong to one task.
    """
    family = family_of(task, truths)
    columns = read_columns(truths)
    answers = [read_task_answers(file, family, columns.ids) for file in files]
    outcomes = [read.outcomes for read in answers]
    # A seed per task: adding a task to the truth leaves the others' intervals as they are.
    seed = [options.seed, zlib.crc32(task.encode())]
    choices = None
    if isinstance(family, ClosedFamily):
        choices = find_choices([read.probabilities for read in answers], family, columns)
    groups = len(columns.group_names)
    sums = [outcome.rows.group_sums(columns.groups, groups) for outcome in outcomes]
    statistics = [partial(_metrics_of_sums, family, of_file) for of_file in sums]
    draws = bootstrap(
        [*statistics, *(choices.statistics(groups) if choices else [])], groups, options.resamples, seed
    )
    systems = [_estimate_system(family, *of_file) for of_file in zip(sums, draws, strict=False)]
    scores = [_score_system(family, read, system) for read, system in zip(answers, systems, strict=True)]
    same = len(files) == 2 and bool((outcomes[0].rows.compared == outcomes[1].rows.compared).all())
    differences = _compare_systems(systems, same)
    decisive = None if differences is None else differences[family.headline]
    majority, random = rounded_values(family.majority_baseline()), rounded_values(family.random_baseline())
    blind = rounded_values(_blind_baseline(family, columns.blind))
    best = max(baseline[family.headline] for baseline in (majority, random, blind) if baseline)
    sees = _beats_blind_guessing(systems[0].estimates[family.headline], best)
    outcome = comparison_outcome(decisive, same, sees)
    needed = groups_needed(decisive, groups) if outcome == "undecided" else None
    result = TaskScore(
        task=task,
        type=truths[0].type,
        n=len(truths),
        groups=groups,
        small=groups < SMALL,
        headline=family.headline,
        classes=list(family.classes) if isinstance(family, ClosedFamily) else None,
        tuned=scores[0],
        base=scores[1] if len(scores) == 2 else None,
        majority=majority,
        random=random,
        blind=blind,
        difference=differences,
        ceiling=rounded_values(family.ceiling() or {}) or None if isinstance(family, BoxFamily) else None,
        verdict=describe_difference(outcome, decisive, best, needed),
        outcome=outcome,
        needed_groups=needed,
        sees=sees,
        about=columns.about,
        slices=[*truth_slices(columns, outcomes), *_other_slices(columns, outcomes, options)],
    )
    if isinstance(family, ClosedFamily) and choices:
        add_choice_scores(result, family, choices, draws[len(files) :], options, seed)
    return ScoredTask(result, truths, columns, [outcome.judged for outcome in outcomes])


def read_task_answers(file: AnswerFile, family: TaskFamily, ids: Sequence[str]) -> ReadAnswers:
    """Read the answers to a task's questions, each once, and compare them with the truth."""
    classes = family.classes if isinstance(family, ClosedFamily) else ()
    probabilities = np.full((len(ids), len(classes)), np.nan)
    missing = unreadable = 0

    def texts() -> Iterator[str | None]:
        nonlocal missing, unreadable
        for row, question in enumerate(ids):
            answer = file.answers.get(question)
            if answer is None:
                missing += 1
                yield None
                continue
            unreadable += answer_error(answer) is not None
            if isinstance(family, ClosedFamily):
                found = class_probabilities(answer.metadata.get("choices"), classes, family.reader)
                if found is not None:
                    probabilities[row] = found
            yield answer.text

    outcomes = family.evaluate(texts())
    return ReadAnswers(outcomes, missing, unreadable, probabilities)


def _metrics_of_sums(family: TaskFamily, sums: GroupSums, drawn: Array) -> Metrics:
    """Return the metrics of resamples in which each group is drawn so often (r, groups)."""
    return family.metrics(sums.resample(drawn))


def _estimate_system(family: TaskFamily, sums: GroupSums, draws: Metrics) -> _SystemEstimates:
    """Return the estimates of an answers file; `draws` are the metrics of resamples."""
    values = defined_values(family.metrics(sums.total()))
    estimates = bootstrap_estimates(values, draws, family.wilson_intervals(values, sums))
    return _SystemEstimates(sums, estimates, draws)


def _compare_systems(systems: Sequence[_SystemEstimates], same: bool) -> dict[str, Estimate] | None:
    """Return tuned minus base, None without base; `same`: both are right and wrong alike."""
    if len(systems) < 2:
        return None
    tuned, base = systems
    return paired_differences([tuned.estimates, base.estimates], [tuned.draws, base.draws], same)


def _beats_blind_guessing(headline: Estimate, blind: float) -> bool | None:
    """Return whether the interval lies above `blind` (True), not above it at all (False), or neither."""
    if headline.low is None or headline.high is None:
        return None
    return True if headline.low > blind else False if headline.high <= blind else None


def _blind_baseline(family: TaskFamily, guesses: Sequence[str | None]) -> dict[str, float]:
    """Return what the guesses in the truths' meta score; nothing where a truth has none."""
    if None in guesses:
        return {}
    values = baseline_values(family.metrics(family.evaluate(guesses).rows.total()))
    return {name: values[name] for name in family.majority_baseline()}


def _other_slices(columns: TruthColumns, outcomes: Sequence[Judged], options: ScoringOptions) -> list[Slice]:
    """Return slices by size and source; the languages of a task are tasks of their own."""
    values = [outcome.value for outcome in outcomes]
    criteria: tuple[SliceCriterion, ...] = ("size", "source")
    return [
        part
        for criterion in criteria
        for part in make_slices(
            criterion,
            SLICE_NAMES[criterion](columns),
            columns.groups,
            values,
            options.resamples,
            options.seed,
        )
    ]


def _score_system(family: TaskFamily, read: ReadAnswers, system: _SystemEstimates) -> SystemScore:
    score = SystemScore(
        missing=read.missing,
        unreadable=read.unreadable,
        unparsed=int((~read.outcomes.parsed).sum()) - read.missing,
        metrics=system.estimates,
    )
    if isinstance(family, ClosedFamily):
        _add_class_scores(score, family, system.sums)
    return score


def _add_class_scores(score: SystemScore, family: ClosedFamily, sums: GroupSums) -> None:
    """Add the confusion matrix and each class's rates, their intervals with groups for trials."""
    confusion = family.confusion(sums.total())
    trials = family.trials(sums)
    counts = class_counts(confusion)
    score.confusion = confusion.astype(int).tolist()
    if family.yes_no:  # with the intervals of the recalls, which are one minus these
        over_call = confusion[1, 0] / counts.support[1] if counts.support[1] else float("nan")
        rates = {"miss": (1 - counts.recall[0], trials[0]), "over_call": (over_call, trials[1])}
        for name, (value, groups) in rates.items():
            if (estimate := wilson_estimate(float(value), int(groups))) is not None:
                score.metrics[name] = estimate
    score.per_class = [
        ClassScore(
            name=name,
            support=int(counts.support[index]),
            answered=int(counts.answered[index]),
            recall=wilson_estimate(counts.recall[index], int(trials[index])),
            precision=rounded_or_none(counts.precision[index]),
            f1=rounded_or_none(counts.f1[index]),
        )
        for index, name in enumerate(family.classes)
    ]
