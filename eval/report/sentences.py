"""The figures of a task in whole sentences."""

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
    times,
    times_in,
    to_two_figures,
    with_article,
)
from eval.scoring.schema import ClassScore, TaskScore

_RIGHT = {"box": "Met by half or more", "text": "The very text", "json": "Wholly right"}
_WEAK = 8  # kinds that get a sentence of their own


def describe_task(task: TaskScore, unit: str) -> list[str]:
    if task.tuned.unparsed + task.tuned.missing >= task.n:
        return [*_not_understood(task), *filter(None, [_blind(task)]), *_against_base(task)]
    sentences = {"yesno": _yes_no, "class": _classes}.get(task.type, _means)
    lines = sentences(task, unit)
    return [*lines, *_not_understood(task), *_against_base(task)]


def _yes_no(task: TaskScore, unit: str) -> list[str]:
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    yes, no = task.tuned.per_class
    (hits, *_), (alarms, quiet, _) = task.tuned.confusion
    lines = []
    miss, over = (task.tuned.metrics.get(name) for name in ("miss", "over_call"))
    if miss is not None:
        where = _where(task, yes, unit, with_it=True)
        found = "found" if task.about else f"said {yes.name} to"
        lines.append(
            f"Of {where} it {found} {hits:,} {percent_in_brackets(yes.recall)}, and missed {yes.support - hits:,}."
        )
    if over is not None:
        where = _where(task, no, unit, with_it=False)
        lines.append(
            f"Of {where} it said {yes.name} to {alarms:,} {percent_in_brackets(over)}: false alarms."
        )
    said = []
    if yes.answered:
        said.append(f"When it said {yes.name}, it was right {times_in(hits, yes.answered)}")
    if no.answered:
        said.append(
            f"when it said {no.name}, {quiet:,} in {no.answered:,}"
            if said
            else f"When it said {no.name}, it was right {times_in(quiet, no.answered)}"
        )
    if said:
        lines.append("; ".join(said) + ".")
    if kinds := class_tallies(task):
        lines.append(f"Found by kind: {tally_text(kinds)}.")
    lines += [f"{_weak(kind)}." for kind in weak_classes(kinds)[:_WEAK]]
    if task.tuned.choices and (line := _threshold(task)):
        lines.append(line)
    return lines


def _threshold(task: TaskScore) -> str | None:
    found = task.tuned.choices.threshold if task.tuned.choices else None
    if found is None or found.cross_miss is None or found.cross_over_call is None:
        return None
    yes = (task.classes or ["yes"])[0]
    return (
        f"Called {yes} from a probability of {found.threshold:.2f} up, it misses at most "
        f"{percent(found.miss_rate)} here; on new pictures expect it to miss {percent_with_interval(found.cross_miss)}, with "
        f"false alarms on {percent_with_interval(found.cross_over_call)}."
    )


def _classes(task: TaskScore, unit: str) -> list[str]:
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    right = sum(row[index] for index, row in enumerate(task.tuned.confusion))
    whole = task.tuned.metrics[task.headline]
    average = (
        f"; on average over the answers, so that rare ones count as much, {percent(whole.value)}"
        if task.headline == "balanced_accuracy"
        else ""
    )
    lines = [
        f"It was right on {right:,} of {counted(task.n, unit)}{average}{interval_clause(whole)}. {_blind(task)}"
    ]
    if kinds := class_tallies(task):
        lines.append(f"By true answer: {tally_text(kinds)}.")
    for kind in weak_classes(kinds)[:_WEAK]:
        lines.append(f"{_weak(kind)}{_mixed(task, kind)}.")
    return lines


def _weak(kind: ClassTally) -> str:
    return f"{capitalise(kind.name)} was {'missed more often than found' if kind.right else 'never found'}"


def _mixed(task: TaskScore, kind: ClassTally) -> str:
    """What a class is mostly taken for."""
    assert task.tuned.per_class is not None and task.tuned.confusion is not None
    names = [row.name for row in task.tuned.per_class]
    counts = task.tuned.confusion[names.index(kind.name)][:-1]
    others = {name: count for name, count in zip(names, counts, strict=True) if count and name != kind.name}
    if not others:
        return ""
    name = max(others, key=lambda name: others[name])
    return f"; it was taken for “{name}” {times(others[name])}"


def _means(task: TaskScore, unit: str) -> list[str]:
    """Counting, boxes, texts and reports: shares of questions, or means of shares."""
    metrics, many = task.tuned.metrics, counted(task.n, unit)

    def of_all(name: str) -> str:
        return f"{round(metrics[name].value * task.n):,} of {many} {percent_in_brackets(metrics[name])}"

    if task.type == "count":
        near = metrics.get("within_one")
        more = f"; off by no more than one: {percent(near.value)}" if near else ""
        lines = [f"It counted exactly on {of_all('exact')}{more}."]
    elif task.type == "box":
        mean = metrics["mean_iou"]
        lines = [
            f"Its box met the true one by half or more on {of_all('acc_50')}. On average they share "
            f"{percent(mean.value)} of what both cover together{interval_clause(mean)}{_ceiling(task)}."
        ]
    elif task.type == "json":
        mean = metrics["field_accuracy"]
        lines = [
            f"In {counted(task.n, 'report')}, {percent(mean.value)} of the fields were right{interval_clause(mean)}."
        ]
    else:
        mean = metrics["token_f1"]
        lines = [
            f"In {counted(task.n, 'text')}, {percent(mean.value)} of the words were those of the true text"
            f"{interval_clause(mean)}. Shared words do not tell whether a text is true: read some."
        ]
    lines = [f"{lines[0]} {_blind(task)}".strip()]
    if kinds := class_tallies(task):
        lines.append(f"{_RIGHT.get(task.type, 'Right')}, by what the picture shows: {tally_text(kinds)}.")
    return lines


def _ceiling(task: TaskScore) -> str:
    """Said where the decimals in which boxes are written cost more than a percent."""
    best = (task.ceiling or {}).get("mean_iou", 1.0)
    return f"; with the decimals it writes, {percent(best)} is the most there is" if best < 0.99 else ""


def _blind(task: TaskScore) -> str:
    share = task.majority.get(task.headline)
    if share is None:
        return ""
    what = {
        "box": "Always giving the same box, in the middle of the true ones, earns",
        "text": "Always giving the commonest text earns",
        "json": "Always giving the commonest report earns",
    }.get(task.type, "Always giving the commonest answer, without looking, earns")
    return f"{what} {percent(share)}."


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
    figures = f"{percent(tuned.value)} against {percent(base.value)}"
    if gap.low is not None and gap.high is not None:
        if task.outcome == "better":
            figures += f", by {100 * gap.low:.0f} to {100 * gap.high:.0f} percentage points"
        elif task.outcome == "worse":
            figures += f", by {-100 * gap.high:.0f} to {-100 * gap.low:.0f} percentage points"
        else:
            figures += f"; the difference could be {percentage_points(gap.low)} to {percentage_points(gap.high)} percentage points"
    if task.outcome == "better":
        return [f"Better than the base model: {figures}."]
    if task.outcome == "worse":
        return [f"WORSE than the base model: {figures}."]
    needed = (
        f" This test is too small to tell: it has {independent_groups(task)}, some "
        f"{to_two_figures(task.needed_groups)} would be needed."
        if task.needed_groups and task.needed_groups > task.groups
        else ""
    )
    return [f"Not shown to be better than the base model: {figures}.{needed}"]


def _where(task: TaskScore, row: ClassScore, unit: str, *, with_it: bool) -> str:
    if task.about:
        thing = f"with {with_article(task.about)}" if with_it else "without one"
        on = "" if unit == "picture" else "on pictures "
        return f"{counted(row.support, unit)} {on}{thing}"
    return f"{counted(row.support, unit)} whose right answer is {row.name}"
