"""Sentences that give a task's figures."""

from __future__ import annotations

from eval.report.per_class import ClassTally, class_tallies, tally_text, weak_classes
from eval.report.phrases import (
    capitalise,
    counted,
    independent_groups,
    interval_clause,
    percent,
    percent_in_brackets,
    percent_with_interval,
    percentage_points,
    probability,
    times,
    times_in,
    to_two_figures,
    with_article,
)
from eval.scoring.schema import ClassScore, Estimate, TaskScore

_RIGHT = {"box": "Met by half or more", "text": "The very text", "json": "Wholly right"}
_WEAK = 8  # classes that get a sentence of their own


def describe_task(task: TaskScore, unit: str) -> list[str]:
    """Return the sentences on a task, whose questions are counted in `unit` ("picture" or "question")."""
    if task.tuned.unparsed + task.tuned.missing >= task.n:
        return [*_not_understood(task), *filter(None, [_blind(task)]), *_against_base(task)]
    sentences = {"yesno": _yes_no, "class": _classes}.get(task.type, _means)
    lines = sentences(task, unit)
    return [*lines, *_not_understood(task), *_against_base(task)]


def _yes_no(task: TaskScore, unit: str) -> list[str]:
    lines = [*_found_and_false_alarms(task, unit), *_precisions(task)]
    tallies = class_tallies(task)
    if tallies:
        lines.append(f"Found by kind: {tally_text(tallies)}.")
    lines += [f"{_weakness(tally)}." for tally in weak_classes(tallies)[:_WEAK]]
    if task.tuned.choices and (line := _threshold(task)):
        lines.append(line)
    return lines


def _found_and_false_alarms(task: TaskScore, unit: str) -> list[str]:
    """Describe recall: of the true yes and of the true no."""
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    yes, no = task.tuned.per_class
    (hits, *_), (alarms, *_) = task.tuned.confusion
    lines = []
    if "miss" in task.tuned.metrics:
        cases = _counted_cases(task, yes, unit, with_it=True)
        verb = "found" if task.about else f"said {yes.name} to"
        recall = percent_in_brackets(yes.recall)
        lines.append(f"Of {cases} it {verb} {hits:,} {recall}, and missed {yes.support - hits:,}.")
    if (over_call := task.tuned.metrics.get("over_call")) is not None:
        cases = _counted_cases(task, no, unit, with_it=False)
        rate = percent_in_brackets(over_call)
        lines.append(f"Of {cases} it said {yes.name} to {alarms:,} {rate}: false alarms.")
    return lines


def _precisions(task: TaskScore) -> list[str]:
    """Describe precision: how often it was right when it said yes, and when it said no."""
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    yes, no = task.tuned.per_class
    (hits, *_), (_, rejections, _) = task.tuned.confusion
    clauses = []
    if yes.answered:
        clauses.append(f"When it said {yes.name}, it was right {times_in(hits, yes.answered)}")
    if no.answered:
        clauses.append(
            f"when it said {no.name}, {rejections:,} in {no.answered:,}"
            if clauses
            else f"When it said {no.name}, it was right {times_in(rejections, no.answered)}"
        )
    return ["; ".join(clauses) + "."] if clauses else []


def _threshold(task: TaskScore) -> str | None:
    threshold = task.tuned.choices.threshold if task.tuned.choices else None
    if threshold is None or threshold.cross_miss is None or threshold.cross_over_call is None:
        return None
    if not threshold.separates:
        return None
    yes = (task.classes or ["yes"])[0]
    return (
        f"Called {yes} from a probability of {probability(threshold.threshold)} up, it misses at most "
        f"{percent(threshold.miss_rate)} here; on new pictures expect it to miss "
        f"{percent_with_interval(threshold.cross_miss)}, with "
        f"false alarms on {percent_with_interval(threshold.cross_over_call)}."
    )


def _classes(task: TaskScore, unit: str) -> list[str]:
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    right = sum(row[index] for index, row in enumerate(task.tuned.confusion))
    headline = task.tuned.metrics[task.headline]
    average = (
        f"; on average over the answers, so that rare ones count as much, {percent(headline.value)}"
        if task.headline == "balanced_accuracy"
        else ""
    )
    cases = counted(task.n, unit)
    lines = [f"It was right on {right:,} of {cases}{average}{interval_clause(headline)}. {_blind(task)}"]
    if tallies := class_tallies(task):
        lines.append(f"By true answer: {tally_text(tallies)}.")
    for tally in weak_classes(tallies)[:_WEAK]:
        lines.append(f"{_weakness(tally)}{_mostly_taken_for(task, tally)}.")
    return lines


def _weakness(tally: ClassTally) -> str:
    return f"{capitalise(tally.name)} was {'missed more often than found' if tally.right else 'never found'}"


def _mostly_taken_for(task: TaskScore, tally: ClassTally) -> str:
    """Return which class the weak one is mostly taken for."""
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    names = [row.name for row in task.tuned.per_class]
    counts = task.tuned.confusion[names.index(tally.name)][:-1]
    others = {name: count for name, count in zip(names, counts, strict=True) if count and name != tally.name}
    if not others:
        return ""
    name = max(others, key=lambda name: others[name])
    return f"; it was taken for “{name}” {times(others[name])}"


def _means(task: TaskScore, unit: str) -> list[str]:
    """Describe counting, boxes, texts and reports: fractions of questions, or means of fractions."""
    describe = {"count": _counting, "box": _boxes, "json": _reports}.get(task.type, _texts)
    lines = [f"{describe(task, counted(task.n, unit))} {_blind(task)}".strip()]
    if tallies := class_tallies(task):
        lines.append(f"{_RIGHT.get(task.type, 'Right')}, by what the picture shows: {tally_text(tallies)}.")
    return lines


def _counting(task: TaskScore, cases: str) -> str:
    near = task.tuned.metrics.get("within_one")
    more = f"; off by no more than one: {percent(near.value)}" if near else ""
    return f"It counted exactly on {_number_of(task, 'exact', cases)}{more}."


def _boxes(task: TaskScore, cases: str) -> str:
    mean = task.tuned.metrics["mean_iou"]
    return (
        f"Its box met the true one by half or more on {_number_of(task, 'acc_50', cases)}. On average they "
        f"share {percent(mean.value)} of what both cover together{interval_clause(mean)}{_ceiling(task)}."
    )


def _reports(task: TaskScore, cases: str) -> str:
    mean = task.tuned.metrics["field_accuracy"]
    fields = f"{percent(mean.value)} of the fields were right{interval_clause(mean)}"
    return f"In {counted(task.n, 'report')}, {fields}."


def _texts(task: TaskScore, cases: str) -> str:
    mean = task.tuned.metrics["token_f1"]
    return (
        f"In {counted(task.n, 'text')}, {percent(mean.value)} of the words were those of the true text"
        f"{interval_clause(mean)}. Shared words do not tell whether a text is true: read some."
    )


def _number_of(task: TaskScore, metric: str, cases: str) -> str:
    """Return on how many of the cases a metric that is a fraction of them holds."""
    value = task.tuned.metrics[metric]
    return f"{round(value.value * task.n):,} of {cases} {percent_in_brackets(value)}"


def _ceiling(task: TaskScore) -> str:
    """Return what rounding costs, where the decimals of written boxes cost more than a percent."""
    best = (task.ceiling or {}).get("mean_iou", 1.0)
    return f"; with the decimals it writes, {percent(best)} is the most there is" if best < 0.99 else ""


def _blind(task: TaskScore) -> str:
    baseline = task.majority.get(task.headline)
    if baseline is None:
        return ""
    what = {
        "box": "Always giving the same box, in the middle of the true ones, earns",
        "text": "Always giving the commonest text earns",
        "json": "Always giving the commonest report earns",
    }.get(task.type, "Always giving the commonest answer, without looking, earns")
    told = task.blind.get(task.headline, 0.0)
    more = f" Guessing from the questions' words and boxes alone earns {percent(told)}." if told else ""
    return f"{what} {percent(baseline)}.{more}"


def _not_understood(task: TaskScore) -> list[str]:
    tuned = task.tuned
    lines = []
    if garbled := tuned.unparsed - tuned.unreadable:
        lines.append(
            f"{garbled:,} of its {counted(task.n, 'answer')} could not be understood; they count as wrong."
        )
    if tuned.unreadable:
        lines.append(
            f"{tuned.unreadable:,} of {counted(task.n, 'question')} could not be answered: of a picture that "
            "could not be read, for instance. They count as wrong."
        )
    if tuned.missing:
        lines.append(
            f"{tuned.missing:,} of {counted(task.n, 'question')} have no answer; they count as wrong."
        )
    return lines


def _against_base(task: TaskScore) -> list[str]:
    if task.base is None or task.difference is None or task.headline not in task.difference:
        return []
    base, tuned = task.base.metrics.get(task.headline), task.tuned.metrics[task.headline]
    gap = task.difference[task.headline]
    if base is None or task.outcome == "alone":
        return []
    if task.outcome == "same":
        if gap.low == gap.high == 0:
            few = f" That is {independent_groups(task)}: too few to say more." if task.small else ""
            return [f"In this test no better and no worse than the base model ({percent(base.value)}).{few}"]
        return [f"No difference to speak of from the base model ({percent(base.value)})."]
    figures = f"{percent(tuned.value)} against {percent(base.value)}{_gap(task, gap)}"
    if task.outcome == "better":
        return [f"Better than the base model: {figures}."]
    if task.outcome == "blind":
        return [
            f"Above the base model, {figures}; but not shown to be better than a guess without looking, so "
            "this says nothing of what it sees."
        ]
    if task.outcome == "worse":
        return [f"WORSE than the base model: {figures}."]
    needed = (
        f" This test is too small to tell: it has {independent_groups(task)}, some "
        f"{to_two_figures(task.needed_groups)} would be needed."
        if task.needed_groups and task.needed_groups > task.groups
        else ""
    )
    return [f"Not shown to be better than the base model: {figures}.{needed}"]


def _gap(task: TaskScore, gap: Estimate) -> str:
    """Return the range of the difference, tuned minus base, as a clause."""
    if gap.low is None or gap.high is None:
        return ""
    if task.outcome in ("better", "blind"):
        return f", by {_points(gap.low)} to {_points(gap.high)} percentage points"
    if task.outcome == "worse":
        return f", by {_points(-gap.high)} to {_points(-gap.low)} percentage points"
    low, high = percentage_points(gap.low), percentage_points(gap.high)
    return f"; the difference could be {low} to {high} percentage points"


def _points(value: float) -> str:
    """Return whole percentage points; 0 only where the value, which is not negative, is that."""
    shown = f"{100 * value:.0f}"
    return "under 1" if shown == "0" and value > 0 else shown


def _counted_cases(task: TaskScore, row: ClassScore, unit: str, *, with_it: bool) -> str:
    if task.about:
        thing = f"with {with_article(task.about)}" if with_it else "without one"
        on = "" if unit == "picture" else "on pictures "
        return f"{counted(row.support, unit)} {on}{thing}"
    return f"{counted(row.support, unit)} whose right answer is {row.name}"
