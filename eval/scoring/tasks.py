"""Scores of one task: the metrics of each answers file with intervals, and how the two files differ."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from eval.scoring.answers import AnswerFile
from eval.scoring.boxes import BoxFamily
from eval.scoring.comparison import SMALL, comparison_outcome, describe_difference, groups_needed
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.intervals import (
    bootstrap_estimates,
    bootstrap_sums,
    defined_values,
    group_index,
    group_sums,
    paired_differences,
    rounded_or_none,
    rounded_values,
    wilson_estimate,
    wilson_interval,
)
from eval.scoring.metrics import Array, Bools, Metrics, class_counts
from eval.scoring.outcomes import Outcomes, TaskFamily, baseline_values
from eval.scoring.probabilities import (
    ChoiceProbabilities,
    bootstrap_metrics,
    choose_threshold,
    class_probabilities,
    cross_fitted_thresholds,
    probability_metrics,
    reliability,
    roc_curves,
    threshold_metrics,
    threshold_rows,
)
from eval.scoring.schema import ChoiceScore, ClassScore, Estimate, Slice, SystemScore, TaskScore, Threshold
from eval.scoring.slices import SLICE_NAMES, SliceCriterion, make_slices, truth_slices
from llava.common.records import Truth


@dataclass(frozen=True)
class ScoringOptions:
    """Holds the number of resamples, their seed, and the miss rate that thresholds are chosen for."""

    resamples: int = 1000
    seed: int = 0
    miss_rate: float = 0.05


@dataclass(frozen=True)
class ScoredTask:
    """Holds a task's score with the truths and outcomes behind it (tuned, then base if there is one)."""

    score: TaskScore
    truths: Sequence[Truth]
    outcomes: Sequence[Outcomes]


@dataclass(frozen=True)
class _SystemEstimates:
    """Holds what one answers file scores: sums per group (g, columns), estimates, metrics of resamples."""

    outcomes: Outcomes
    sums: Array
    estimates: dict[str, Estimate]
    draws: Metrics


def group_by_task(truths: Sequence[Truth]) -> dict[str, list[Truth]]:
    """Return the truths by task, in the order in which tasks come first.

    Where there are several languages, each task and language is a task of its own.
    """
    several = len({truth.language for truth in truths}) > 1
    tasks: dict[str, dict[str, list[Truth]]] = {}
    for truth in truths:
        tasks.setdefault(truth.task, {}).setdefault(truth.language, []).append(truth)
    return {
        f"{task} ({language})" if several else task: rows
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
    # A seed per task: adding a task to the truth leaves the others' intervals as they are.
    seed = [options.seed, zlib.crc32(task.encode())]
    systems = _estimate_systems(family, truths, files, options.resamples, seed)
    outcomes = [system.outcomes for system in systems]
    scores = [
        _score_system(file, family, truths, system) for file, system in zip(files, systems, strict=True)
    ]
    differences, same = _compare_systems(systems)
    decisive = None if differences is None else differences[family.headline]
    majority, random = rounded_values(family.majority_baseline()), rounded_values(family.random_baseline())
    blind = rounded_values(_blind_baseline(family, truths))
    best = max(baseline[family.headline] for baseline in (majority, random, blind) if baseline)
    sees = _beats_blind_guessing(systems[0].estimates[family.headline], best)
    outcome = comparison_outcome(decisive, same, sees)
    groups = len(systems[0].sums)
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
        about=common_subject(truths),
        slices=[*truth_slices(truths, outcomes), *_other_slices(truths, outcomes, options)],
    )
    if isinstance(family, ClosedFamily):
        _add_choice_scores(result, family, truths, files, options, seed)
    return ScoredTask(result, truths, outcomes)


def _estimate_systems(
    family: TaskFamily,
    truths: Sequence[Truth],
    files: Sequence[AnswerFile],
    resamples: int,
    seed: Sequence[int],
) -> list[_SystemEstimates]:
    """Evaluate each file; one resample holds the same groups for all files."""
    groups = [truth.group for truth in truths]
    ids = [str(truth.question_id) for truth in truths]
    outcomes = [family.evaluate([file.text(question) for question in ids]) for file in files]
    sums = [group_sums(outcome.rows, groups) for outcome in outcomes]
    drawn = np.split(bootstrap_sums(np.hstack(sums), resamples, seed), len(sums), axis=1)
    systems = []
    for outcome, file_sums, file_drawn in zip(outcomes, sums, drawn, strict=True):
        draws = family.metrics(file_drawn)
        values = defined_values(family.metrics(file_sums.sum(axis=0)))
        estimates = bootstrap_estimates(values, draws, family.wilson_intervals(values, file_sums))
        systems.append(_SystemEstimates(outcome, file_sums, estimates, draws))
    return systems


def _compare_systems(systems: Sequence[_SystemEstimates]) -> tuple[dict[str, Estimate] | None, bool]:
    """Return tuned minus base (None without base), and whether both are right and wrong alike."""
    if len(systems) < 2:
        return None, False
    tuned, base = systems
    same = bool((tuned.outcomes.rows == base.outcomes.rows).all())
    return paired_differences([tuned.estimates, base.estimates], [tuned.draws, base.draws], same), same


def _beats_blind_guessing(headline: Estimate, blind: float) -> bool | None:
    """Return whether the interval lies above `blind` (True), not above it at all (False), or neither."""
    if headline.low is None or headline.high is None:
        return None
    return True if headline.low > blind else False if headline.high <= blind else None


def _blind_baseline(family: TaskFamily, truths: Sequence[Truth]) -> dict[str, float]:
    """Return what the guesses in the truths' meta score; nothing where a truth has none."""
    guesses = [truth.meta.get("blind") for truth in truths]
    texts = [guess for guess in guesses if isinstance(guess, str)]
    if len(texts) < len(guesses):
        return {}
    values = baseline_values(family.metrics(family.evaluate(texts).rows.sum(axis=0)))
    return {name: values[name] for name in family.majority_baseline()}


def common_subject(truths: Sequence[Truth]) -> str | None:
    """Return what all questions ask for (meta `about`), where it is one thing."""
    subjects = {truth.meta.get("about") for truth in truths}
    subject = subjects.pop() if len(subjects) == 1 else None
    return subject if isinstance(subject, str) else None


def _other_slices(
    truths: Sequence[Truth], outcomes: Sequence[Outcomes], options: ScoringOptions
) -> list[Slice]:
    """Return slices by size and source; the languages of a task are tasks of their own."""
    values = [outcome.value for outcome in outcomes]
    criteria: tuple[SliceCriterion, ...] = ("size", "source")
    return [
        part
        for criterion in criteria
        for part in make_slices(
            criterion, SLICE_NAMES[criterion](truths), truths, values, options.resamples, options.seed
        )
    ]


def _score_system(
    file: AnswerFile, family: TaskFamily, truths: Sequence[Truth], system: _SystemEstimates
) -> SystemScore:
    ids = [str(truth.question_id) for truth in truths]
    missing = sum(question not in file.answers for question in ids)
    score = SystemScore(
        missing=missing,
        unreadable=sum(file.error(question) is not None for question in ids),
        unparsed=int((~system.outcomes.parsed).sum()) - missing,
        metrics=system.estimates,
    )
    if isinstance(family, ClosedFamily):
        _add_class_scores(score, family, system.sums)
    return score


def _add_class_scores(score: SystemScore, family: ClosedFamily, sums: Array) -> None:
    """Add the confusion matrix and each class's rates, their intervals with groups for trials."""
    confusion = family.confusion(sums.sum(axis=0))
    trials = (sums.reshape(len(sums), len(family.classes), -1).sum(axis=2) > 0).sum(axis=0)
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


# --- probabilities of the choices --------------------------------------------------------------------


def _add_choice_scores(
    result: TaskScore,
    family: ClosedFamily,
    truths: Sequence[Truth],
    files: Sequence[AnswerFile],
    options: ScoringOptions,
    seed: Sequence[int],
) -> None:
    """Add the metrics of the choices' probabilities, where a file has any, and their paired difference.

    The difference is computed on the questions that have probabilities in both files.

    Args:
        result: The task's score, which is added to.
        family: The task's classes.
        truths: The task's questions.
        files: The answers of tuned, and of base if there is one.
        options: Resamples, seed and miss rate.
        seed: Seed of this task's resamples.
    """
    groups = group_index([truth.group for truth in truths])
    systems = [result.tuned, *([result.base] if result.base else [])]
    values = [read_probabilities(file, family, truths) for file in files]
    known = [~np.isnan(file_values[:, 0]) for file_values in values]
    in_both = np.logical_and.reduce(known)
    pair: list[tuple[dict[str, Estimate], Metrics]] = []
    for system, file_values, has in zip(systems, values, known, strict=True):
        if not has.any():
            continue
        probabilities = ChoiceProbabilities(file_values, family.truth, groups, family.yes_no)
        estimates, draws = _probability_estimates(probabilities.subset(has), result.groups, options, seed)
        system.choices = _choice_score(probabilities, has, family, estimates, options, seed)
        if len(files) == 2 and in_both.any() and (has != in_both).any():
            estimates, draws = _probability_estimates(
                probabilities.subset(in_both), result.groups, options, seed
            )
        pair.append((estimates, draws))
    if len(pair) == 2 and in_both.any():
        same = bool((values[0][in_both] == values[1][in_both]).all())
        result.choices_difference = paired_differences(
            [estimates for estimates, _ in pair], [draws for _, draws in pair], same
        )


def read_probabilities(file: AnswerFile, family: ClosedFamily, truths: Sequence[Truth]) -> Array:
    """Return (n, k), a row of NaN where the answer has no probabilities of the task's classes."""
    nothing = [float("nan")] * len(family.classes)
    reader = cache(family.reader)  # the same few choices on every line
    rows = [
        class_probabilities(file.choices(str(truth.question_id)), family.classes, reader) for truth in truths
    ]
    return np.array([row or nothing for row in rows])


def _choice_score(
    probabilities: ChoiceProbabilities,
    has: Bools,
    family: ClosedFamily,
    estimates: dict[str, Estimate],
    options: ScoringOptions,
    seed: Sequence[int],
) -> ChoiceScore:
    """Return a file's score on the questions that have probabilities (`has`, (n,))."""
    known = probabilities.subset(has)
    return ChoiceScore(
        n=int(has.sum()),
        without=int((~has).sum()),
        metrics=estimates,
        roc=roc_curves(known, family.classes),
        reliability=reliability(known),
        threshold=_score_threshold(known, options, seed) if family.yes_no else None,
    )


def _probability_estimates(
    probabilities: ChoiceProbabilities, groups: int, options: ScoringOptions, seed: Sequence[int]
) -> tuple[dict[str, Estimate], Metrics]:
    """Return the metrics with their intervals, and the metrics of every resample."""
    draws = bootstrap_metrics(probabilities, groups, options.resamples, seed)
    values = defined_values({name: value[0] for name, value in probability_metrics(probabilities).items()})
    return bootstrap_estimates(values, draws, _ranking_intervals(probabilities, values)), draws


def _ranking_intervals(
    probabilities: ChoiceProbabilities, values: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return Wilson's intervals for where every resample ranks alike (all perfectly, usually).

    Trials are the groups of the rarest ranked class, or of all the others if these are fewer.
    """
    truth, groups = probabilities.truth, probabilities.groups
    sides = [groups[truth == k] for k in probabilities.ranked_classes]
    sides += [groups[truth != k] for k in probabilities.ranked_classes]
    trials = min((len(np.unique(side)) for side in sides), default=0)
    return {
        name: wilson_interval(values[name], trials)
        for name in ("auroc", "average_precision")
        if name in values and trials
    }


def _score_threshold(
    probabilities: ChoiceProbabilities, options: ScoringOptions, seed: Sequence[int]
) -> Threshold | None:
    """Choose where to call yes, and score it; None where the truth has no yes, or no "no"."""
    positive = probabilities.truth == 0
    if not positive.any():
        return None
    p_yes = probabilities.values[:, 0]
    threshold = choose_threshold(p_yes, positive, options.miss_rate)
    values = threshold_metrics(threshold_rows(p_yes, positive, threshold).sum(axis=0))
    if np.isnan(values["over_call"]):
        return None
    result = Threshold(
        miss_rate=options.miss_rate,
        threshold=threshold,
        miss=round(float(values["miss"]), 6),
        over_call=round(float(values["over_call"]), 6),
    )
    _add_cross_fitted_rates(result, probabilities, options, seed)
    return result


def _add_cross_fitted_rates(
    result: Threshold, probabilities: ChoiceProbabilities, options: ScoringOptions, seed: Sequence[int]
) -> None:
    """Add what to expect on new images: each fold is scored by the threshold that the others choose."""
    cross_fitted = cross_fitted_thresholds(probabilities, options.miss_rate, options.seed)
    if cross_fitted is None:
        return
    thresholds, result.folds = cross_fitted
    rows = threshold_rows(probabilities.values[:, 0], probabilities.truth == 0, thresholds)
    sums = group_sums(rows, [str(group) for group in probabilities.groups])
    draws = threshold_metrics(bootstrap_sums(sums, options.resamples, seed))
    trials = (sums > 0).sum(axis=0)
    values = defined_values(threshold_metrics(sums.sum(axis=0)))
    intervals = {
        "miss": wilson_interval(values["miss"], int(trials[0])),
        "over_call": wilson_interval(values["over_call"], int(trials[2])),
    }
    estimates = bootstrap_estimates(values, draws, intervals)
    result.cross_miss, result.cross_over_call = estimates["miss"], estimates["over_call"]
