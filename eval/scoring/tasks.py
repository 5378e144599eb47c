"""Scores task by task: what each answers file earns, with intervals, and what differs between the two."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from eval.scoring import metrics as m
from eval.scoring import probabilities as c
from eval.scoring.answers import AnswerFile
from eval.scoring.boxes import BoxFamily
from eval.scoring.comparison import SMALL, groups_needed, outcome_of, verdict_of
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.intervals import differences, estimates, maybe, points, rounded, share
from eval.scoring.outcomes import Family, Outcome
from eval.scoring.schema import ChoiceScore, ClassScore, Estimate, Slice, SystemScore, TaskScore, Threshold
from eval.scoring.slices import NAMED, By, slices_by, truth_slices
from llava.common.records import Truth


@dataclass(frozen=True)
class Options:
    """How to score: resamples and their seed; `miss_rate` is the one that thresholds are chosen for."""

    resamples: int = 1000
    seed: int = 0
    miss_rate: float = 0.05


@dataclass(frozen=True)
class Scored:
    """A task's score, and the questions and answers that it is the score of: tuned, then base if there is
    one."""

    score: TaskScore
    truths: Sequence[Truth]
    outcomes: Sequence[Outcome]


def by_task(truths: Sequence[Truth]) -> dict[str, list[Truth]]:
    """The truths by the name of their task, in the order in which tasks come first; each language apart where
    there are several."""
    several = len({truth.language for truth in truths}) > 1
    tasks: dict[str, dict[str, list[Truth]]] = {}
    for truth in truths:
        tasks.setdefault(truth.task, {}).setdefault(truth.language, []).append(truth)
    return {
        f"{task} ({language})" if several else task: rows
        for task, languages in tasks.items()
        for language, rows in sorted(languages.items())
    }


def score_task(task: str, truths: Sequence[Truth], files: Sequence[AnswerFile], options: Options) -> Scored:
    """`files` are tuned, and base if there is one."""
    family = family_of(task, truths)
    groups = [truth.group for truth in truths]
    outcomes = [family.read([file.text(str(truth.question_id)) for truth in truths]) for file in files]

    sums = [m.group_sums(outcome.rows, groups) for outcome in outcomes]
    # A seed per task: adding a task to the truth leaves the others' intervals as they are.
    seed = [options.seed, zlib.crc32(task.encode())]
    drawn = m.bootstrap_sums(np.hstack(sums), options.resamples, seed)
    draws = [family.metrics(part) for part in np.split(drawn, len(sums), axis=1)]
    found = []
    for part, draw in zip(sums, draws, strict=True):
        values = points(family.metrics(part.sum(axis=0)))
        found.append(estimates(values, draw, family.spread(values, part)))
    systems = [
        _system(file, family, truths, outcome, part, metrics)
        for file, outcome, part, metrics in zip(files, outcomes, sums, found, strict=True)
    ]

    difference, same = None, False
    if len(files) == 2:
        same = bool((outcomes[0].rows == outcomes[1].rows).all())
        difference = differences(found, draws, same)
    decisive = None if difference is None else difference[family.headline]
    outcome = outcome_of(decisive, same)
    needed = groups_needed(decisive, len(sums[0])) if outcome == "undecided" else None
    majority, random = rounded(family.majority()), rounded(family.random())
    result = TaskScore(
        task=task,
        type=truths[0].type,
        n=len(truths),
        groups=len(sums[0]),
        small=len(sums[0]) < SMALL,
        headline=family.headline,
        classes=list(family.classes) if isinstance(family, ClosedFamily) else None,
        tuned=systems[0],
        base=systems[1] if len(systems) == 2 else None,
        majority=majority,
        random=random,
        difference=difference,
        ceiling=rounded(family.ceiling() or {}) or None if isinstance(family, BoxFamily) else None,
        verdict=verdict_of(decisive, same, needed),
        outcome=outcome,
        needed_groups=needed,
        sees=_sees(found[0][family.headline], [b[family.headline] for b in (majority, random) if b]),
        about=_about(truths),
        slices=[
            *truth_slices(truths, outcomes),
            *_other_slices(truths, [outcome.value for outcome in outcomes], options),
        ],
    )
    if isinstance(family, ClosedFamily):
        _add_choices(result, family, truths, files, options, seed)
    return Scored(result, truths, outcomes)


def _sees(headline: Estimate, blind: Sequence[float]) -> bool | None:
    """Whether the interval lies above the best of blind guessing, or not above it at all."""
    if headline.low is None or headline.high is None:
        return None
    best = max(blind)
    return True if headline.low > best else False if headline.high <= best else None


def _about(truths: Sequence[Truth]) -> str | None:
    found = {truth.meta.get("about") for truth in truths}
    about = found.pop() if len(found) == 1 else None
    return about if isinstance(about, str) else None


def _other_slices(truths: Sequence[Truth], values: Sequence[m.Array], options: Options) -> list[Slice]:
    """By size and source; the languages of a task are tasks of their own."""
    bys: tuple[By, ...] = ("size", "source")
    return [
        part
        for by in bys
        for part in slices_by(by, NAMED[by](truths), truths, values, options.resamples, options.seed)
    ]


def _system(
    file: AnswerFile,
    family: Family,
    truths: Sequence[Truth],
    outcome: Outcome,
    sums: m.Array,
    metrics: dict[str, Estimate],
) -> SystemScore:
    ids = [str(truth.question_id) for truth in truths]
    missing = sum(question not in file.answers for question in ids)
    result = SystemScore(
        missing=missing,
        unreadable=sum(file.error(question) is not None for question in ids),
        unparsed=int((~outcome.parsed).sum()) - missing,
        metrics=metrics,
    )
    if isinstance(family, ClosedFamily):
        confusion = family.confusion(sums.sum(axis=0))
        trials = (sums.reshape(len(sums), len(family.classes), -1).sum(axis=2) > 0).sum(axis=0)
        counts = m.class_counts(confusion)
        result.confusion = confusion.astype(int).tolist()
        if family.yes_no:  # as the recalls below, of which they are the other side
            over_call = confusion[1, 0] / counts.support[1] if counts.support[1] else float("nan")
            both = {"miss": (1 - counts.recall[0], trials[0]), "over_call": (over_call, trials[1])}
            for name, (value, groups) in both.items():
                if (found := share(float(value), int(groups))) is not None:
                    result.metrics[name] = found
        result.per_class = [
            ClassScore(
                name=name,
                support=int(counts.support[index]),
                answered=int(counts.answered[index]),
                recall=share(counts.recall[index], int(trials[index])),
                precision=maybe(counts.precision[index]),
                f1=maybe(counts.f1[index]),
            )
            for index, name in enumerate(family.classes)
        ]
    return result


# --- probabilities of the choices --------------------------------------------------------------------


def _add_choices(
    result: TaskScore,
    family: ClosedFamily,
    truths: Sequence[Truth],
    files: Sequence[AnswerFile],
    options: Options,
    seed: Sequence[int],
) -> None:
    """What the probabilities are worth, where a file has any; the difference on questions that have them in
    both."""
    groups = m.group_index([truth.group for truth in truths])
    systems = [result.tuned, *([result.base] if result.base else [])]
    read = [_probabilities(file, family, truths) for file in files]
    known = [~np.isnan(values[:, 0]) for values in read]
    both = np.logical_and.reduce(known)
    all_ = [c.Chances(values, family.truth, groups, family.yes_no) for values in read]
    pair: list[tuple[dict[str, Estimate], m.Metrics]] = []
    for system, chances, has in zip(systems, all_, known, strict=True):
        if not has.any():
            continue
        metrics, draws = _chance_estimates(chances.only(has), result.groups, options, seed)
        system.choices = ChoiceScore(
            n=int(has.sum()),
            without=int((~has).sum()),
            metrics=metrics,
            roc=c.roc_curves(chances.only(has), family.classes),
            reliability=c.reliability(chances.only(has)),
            threshold=_threshold(chances.only(has), options, seed) if family.yes_no else None,
        )
        if len(files) == 2 and both.any() and (has != both).any():
            metrics, draws = _chance_estimates(chances.only(both), result.groups, options, seed)
        pair.append((metrics, draws))
    if len(pair) == 2 and both.any():
        same = bool((read[0][both] == read[1][both]).all())
        result.choices_difference = differences([pair[0][0], pair[1][0]], [pair[0][1], pair[1][1]], same)


def _probabilities(file: AnswerFile, family: ClosedFamily, truths: Sequence[Truth]) -> m.Array:
    """(n, k), a row of NaN where the answer has no probabilities of the task's classes."""
    nothing = [float("nan")] * len(family.classes)
    reader = cache(family.reader)  # the same few choices on every line
    rows = [c.read_choices(file.choices(str(t.question_id)), family.classes, reader) for t in truths]
    return np.array([row or nothing for row in rows])


def _chance_estimates(
    chances: c.Chances, groups: int, options: Options, seed: Sequence[int]
) -> tuple[dict[str, Estimate], m.Metrics]:
    draws = c.resampled(chances, groups, options.resamples, seed)
    values = points({name: value[0] for name, value in c.chance_metrics(chances).items()})
    return estimates(values, draws, _chance_spread(chances, values)), draws


def _chance_spread(chances: c.Chances, values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Intervals for where every resample ranks alike (all perfectly, usually): Wilson's, with the groups of
    the rarest ranked class, or of all the others if these are fewer, for trials."""
    sides = [chances.groups[chances.truth == k] for k in chances.ranked]
    sides += [chances.groups[chances.truth != k] for k in chances.ranked]
    trials = min((len(np.unique(side)) for side in sides), default=0)
    return {
        name: m.wilson(values[name], trials)
        for name in ("auroc", "average_precision")
        if name in values and trials
    }


def _threshold(chances: c.Chances, options: Options, seed: Sequence[int]) -> Threshold | None:
    """None where no question is truly yes."""
    positive = chances.truth == 0
    if not positive.any():
        return None
    probability = chances.probabilities[:, 0]
    best = c.threshold_for(probability, positive, options.miss_rate)
    here = c.threshold_metrics(c.threshold_rows(probability, positive, best).sum(axis=0))
    if np.isnan(here["over_call"]):
        return None
    result = Threshold(
        miss_rate=options.miss_rate,
        threshold=best,
        miss=round(float(here["miss"]), 6),
        over_call=round(float(here["over_call"]), 6),
    )
    if (crossed := c.cross_fitted(chances, options.miss_rate, options.seed)) is not None:
        thresholds, result.folds = crossed
        rows = c.threshold_rows(probability, positive, thresholds)
        sums = m.group_sums(rows, [str(group) for group in chances.groups])
        draws = c.threshold_metrics(m.bootstrap_sums(sums, options.resamples, seed))
        trials = (sums > 0).sum(axis=0)
        values = points(c.threshold_metrics(sums.sum(axis=0)))
        spread = {
            "miss": m.wilson(values["miss"], int(trials[0])),
            "over_call": m.wilson(values["over_call"], int(trials[2])),
        }
        found = estimates(values, draws, spread)
        result.cross_miss, result.cross_over_call = found["miss"], found["over_call"]
    return result
