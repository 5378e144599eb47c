"""Scores of the choices' probabilities in one task: of each answers file, and how the two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.scoring.columns import TruthColumns
from eval.scoring.families import ClosedFamily
from eval.scoring.intervals import (
    Statistic,
    bootstrap_estimates,
    bootstrap_sums,
    defined_values,
    paired_differences,
    wilson_interval,
)
from eval.scoring.metrics import Array, Bools, Metrics, NumberRows
from eval.scoring.options import ScoringOptions
from eval.scoring.probabilities import (
    ChoiceProbabilities,
    choose_threshold,
    cross_fitted_thresholds,
    probability_metrics,
    reliability,
    resampled_metrics,
    roc_curves,
    threshold_metrics,
    threshold_rows,
)
from eval.scoring.schema import ChoiceScore, Estimate, TaskScore, Threshold


@dataclass(frozen=True)
class KnownChoices:
    """Holds the probabilities of one file's answers: those that it has (`has`, (n,)), and of them those that
    both files have (`paired`; `own` itself where that is all of them)."""

    has: Bools
    own: ChoiceProbabilities
    paired: ChoiceProbabilities

    @property
    def parts(self) -> list[ChoiceProbabilities]:
        """What is to be resampled."""
        return [self.own] if self.paired is self.own else [self.own, self.paired]


@dataclass(frozen=True)
class TaskChoices:
    """Holds a task's probabilities: those of each file, None where it has none, and whether the two files
    have the same, question by question, on those that both have (None where they have none in common)."""

    files: Sequence[KnownChoices | None]
    same: bool | None

    def statistics(self, groups: int) -> list[Statistic]:
        """Return what is to be computed of every resample of the task's groups."""
        return [resampled_metrics(part, groups) for found in self.files if found for part in found.parts]


def find_choices(values: Sequence[Array], family: ClosedFamily, columns: TruthColumns) -> TaskChoices:
    """Sort out which questions have probabilities.

    Args:
        values: The probabilities of the classes (n, k) in tuned, and in base if there is one; a row of NaN
            where an answer has none.
        family: The task's classes.
        columns: The task's questions.
    """
    known = [~np.isnan(of_file[:, 0]) for of_file in values]
    in_both = np.logical_and.reduce(known)
    files: list[KnownChoices | None] = []
    for of_file, has in zip(values, known, strict=True):
        if not has.any():
            files.append(None)
            continue
        every = ChoiceProbabilities(of_file, family.truth, columns.groups, family.yes_no)
        own = every.subset(has)
        fewer = in_both.any() and (has != in_both).any()
        files.append(KnownChoices(has, own, every.subset(in_both) if fewer else own))
    if len(values) < 2 or not in_both.any():
        return TaskChoices(files, None)
    return TaskChoices(files, bool((values[0][in_both] == values[1][in_both]).all()))


def add_choice_scores(
    result: TaskScore,
    family: ClosedFamily,
    choices: TaskChoices,
    draws: Sequence[Metrics],
    options: ScoringOptions,
    seed: Sequence[int],
) -> None:
    """Add the metrics of the choices' probabilities, where a file has any, and their paired difference.

    The difference is computed on the questions that have probabilities in both files.

    Args:
        result: The task's score, which is added to.
        family: The task's classes.
        choices: The probabilities.
        draws: What became of `choices.statistics` in the resamples.
        options: Resamples, seed and miss rate.
        seed: Seed of this task's resamples.
    """
    drawn = iter(draws)
    pair: list[tuple[dict[str, Estimate], Metrics]] = []
    for system, found in zip((result.tuned, result.base), choices.files, strict=False):
        if system is None or found is None:
            continue
        # Of all that the file has, then of what both have.
        estimated = [(_estimate(part, metrics := next(drawn)), metrics) for part in found.parts]
        system.choices = _choice_score(found, family, estimated[0][0], options, seed)
        pair.append(estimated[-1])
    if choices.same is not None:
        result.choices_difference = paired_differences(
            [estimates for estimates, _ in pair], [metrics for _, metrics in pair], choices.same
        )


def _choice_score(
    found: KnownChoices,
    family: ClosedFamily,
    estimates: dict[str, Estimate],
    options: ScoringOptions,
    seed: Sequence[int],
) -> ChoiceScore:
    """Return a file's score on the questions that have probabilities."""
    known = found.own
    return ChoiceScore(
        n=int(found.has.sum()),
        without=int((~found.has).sum()),
        metrics=estimates,
        roc=roc_curves(known, family.classes),
        reliability=reliability(known),
        threshold=_score_threshold(known, options, seed) if family.yes_no else None,
    )


def _estimate(probabilities: ChoiceProbabilities, draws: Metrics) -> dict[str, Estimate]:
    """Return the metrics with their intervals; `draws` are those of the resamples."""
    values = defined_values({name: value[0] for name, value in probability_metrics(probabilities).items()})
    return bootstrap_estimates(values, draws, _ranking_intervals(probabilities, values))


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
    # In the order of the numbers as text: which groups a resample holds depends on it.
    present, numbers = np.unique(probabilities.groups.astype(str), return_inverse=True)
    sums = NumberRows(rows).group_sums(numbers, len(present)).values
    draws = threshold_metrics(bootstrap_sums(sums, options.resamples, seed))
    trials = (sums > 0).sum(axis=0)
    values = defined_values(threshold_metrics(sums.sum(axis=0)))
    intervals = {
        "miss": wilson_interval(values["miss"], int(trials[0])),
        "over_call": wilson_interval(values["over_call"], int(trials[2])),
    }
    estimates = bootstrap_estimates(values, draws, intervals)
    result.cross_miss, result.cross_over_call = estimates["miss"], estimates["over_call"]
