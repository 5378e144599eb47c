"""What scores mean, in plain words, for somebody who knows no statistics: may one rely on the model?

A task's standing is one of four, by rules that the report prints:

- rely: the lower end of the headline's interval is RELY or more, and that of every true answer EACH or more;
- care: better than not looking, but not that good, or not shown to be on so few pictures;
- unclear: the test cannot tell;
- not: no better than not looking, or wrong more often than right.

Nothing is said more certainly than the intervals allow.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.schema import ClassScore, Estimate, Scores, SystemScore, TaskScore

RELY = 0.9  # right at least 9 times in 10, for all that the interval allows
EACH = 0.8  # and each true answer at least 8 times in 10
CARE = 2 / 3  # wrong more than one time in three is no help; for boxes, an overlap of less than HALF
HALF = 0.5
FEW = 5  # questions, below which a class or a kind is not said to be weak

Standing = Literal["rely", "care", "unclear", "not"]
STANDINGS: dict[Standing, str] = {
    "rely": "Rely on it for",
    "care": "Use with care for",
    "unclear": "Cannot be told from this test",
    "not": "Do not rely on it for",
}
# How each headline reads as a share: what 90% of it means.
HEADLINES = {
    "balanced_accuracy": "right, on average over the possible answers",
    "accuracy": "right",
    "exact": "counted exactly",
    "mean_iou": "overlap with the true box, on average",
    "token_f1": "of the words are those of the true text",
    "field_accuracy": "of the fields are right",
}
_LISTED = 8  # kinds named in one sentence
_ZERO = Estimate(value=0)


@dataclass(frozen=True)
class Verdict:
    """`reason` is a clause that goes with the standing; `lines` are whole sentences that give figures."""

    task: str
    standing: Standing
    reason: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Something to be found: `right` of `n` questions about it were answered rightly."""

    name: str
    right: int
    n: int


def verdict(task: TaskScore, unit: str = "question") -> Verdict:
    """`unit` is what the task's questions are counted as: "picture" where each is asked about once."""
    standing, reason = _standing(task)
    return Verdict(task.task, standing, reason, tuple(_lines(task, unit)))


def summary(scores: Scores) -> str:
    """The whole in a sentence or a few: which tasks stand where."""
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
        return _not_seen(task, headline)
    rows = [row for row in tuned.per_class or [] if row.recall]
    if task.type == "yesno" and (weak := [row for row in rows if row.recall and row.recall.value < HALF]):
        return "not", _one_sided(task, weak[0].name)
    if headline.value < (HALF if task.headline == "mean_iou" else CARE):
        return "not", f"it looks, but is wrong too often: {_figures(task)}"
    if task.small:
        return (
            "unclear",
            f"{counted(task.groups, 'independent picture')} are too few to say: {_figures(task)}",
        )
    kinds = _weak(_kinds(task))
    if kinds:
        return "care", f"{_figures(task)}; it misses most of: {_tally(kinds)}"
    each = [row.recall.low or 0.0 for row in rows if row.recall]
    if (headline.low or 0.0) >= RELY and min(each, default=1.0) >= EACH:
        return "rely", _figures(task)
    if headline.value >= RELY and all(row.recall.value >= EACH for row in rows if row.recall):
        return "care", f"it did well, but on too few pictures to promise that: {_figures(task)}"
    return "care", _figures(task)


def _not_seen(task: TaskScore, headline: Estimate) -> tuple[Standing, str]:
    blind = max(values.get(task.headline, 0.0) for values in (task.majority, task.random))
    figures = f"{percent(headline.value)}{_range(headline)} against {percent(blind)}"
    if task.sees is None and task.small and headline.value > blind:
        pictures = counted(task.groups, "independent picture")
        return "unclear", f"{pictures} are too few to tell it from a guess without looking: {figures}"
    if task.sees is None and headline.value > blind:
        return "not", f"it is not shown to be better than a guess without looking: {figures}"
    return "not", f"it is no better than a guess without looking: {figures}"


def _figures(task: TaskScore) -> str:
    """The task's figures in a clause."""
    metrics = task.tuned.metrics
    if task.type == "yesno" and "miss" in metrics and "over_call" in metrics:
        found = Estimate(value=1 - metrics["miss"].value)
        if task.tuned.per_class and task.tuned.per_class[0].recall:
            found = task.tuned.per_class[0].recall
        return f"finds {_about(found)}, false alarms at {_about(metrics['over_call'])}"
    return (
        f"{percent(metrics[task.headline].value)} {HEADLINES[task.headline]}{_range(metrics[task.headline])}"
    )


def _constant(system: SystemScore) -> str | None:
    """The answer that it gives to everything, where it gives but one."""
    rows = system.per_class or []
    given = [row.name for row in rows if row.answered]
    return given[0] if len(given) == 1 and len(rows) > 1 else None


def _one_sided(task: TaskScore, weak: str) -> str:
    yes = (task.classes or ["yes"])[0]
    what = "it misses more than it finds" if weak == yes else "it raises a false alarm more often than not"
    return f"{what}: {_figures(task)}"


def _kinds(task: TaskScore) -> list[Kind]:
    """What is to be found, the best found first: true answers of a closed list (letters are no kinds), or the
    labels of the pictures whose right answer is yes."""
    if task.type == "yesno":
        yes = (task.classes or ["yes"])[0]
        parts = [part for part in task.slices if part.by == "truth" and part.answer == yes and part.label]
        kinds = [Kind(part.label or "", round(part.tuned.value * part.n), part.n) for part in parts]
        kinds = kinds if len(kinds) > 1 else []
    elif set(task.classes or []) <= set(string.ascii_uppercase):
        kinds = []
    else:
        rows = [row for row in task.tuned.per_class or [] if row.support and row.recall]
        kinds = [
            Kind(row.name, round((row.recall or _ZERO).value * row.support), row.support) for row in rows
        ]
    return sorted(kinds, key=lambda kind: (-kind.right / kind.n, -kind.n))


def _weak(kinds: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in reversed(kinds) if kind.n >= FEW and kind.right < HALF * kind.n]


# --- sentences with figures --------------------------------------------------------------------------


def _lines(task: TaskScore, unit: str) -> list[str]:
    if task.tuned.unparsed + task.tuned.missing >= task.n:
        return [*_not_understood(task), *filter(None, [_blind(task)]), *_against_base(task)]
    about = {"yesno": _yes_no, "class": _classes}.get(task.type, _means)
    lines = about(task, unit)
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
            f"Of {where} it {found} {hits:,} {_share(yes.recall)}, and missed {yes.support - hits:,}."
        )
    if over is not None:
        where = _where(task, no, unit, with_it=False)
        lines.append(f"Of {where} it said {yes.name} to {alarms:,} {_share(over)}: false alarms.")
    said = []
    if yes.answered:
        said.append(f"When it said {yes.name}, it was right {hits:,} times in {yes.answered:,}")
    if no.answered:
        start = "when" if said else "When"
        said.append(
            f"{start} it said {no.name}, {'' if said else 'it was right '}{quiet:,} in {no.answered:,}"
        )
    if said:
        lines.append("; ".join(said) + ".")
    if kinds := _kinds(task):
        lines.append(f"Found by kind: {_tally(kinds)}.")
    lines += [f"{capital(kind.name)} was missed more often than found." for kind in _weak(kinds)[:_LISTED]]
    if task.tuned.choices and (line := _threshold(task)):
        lines.append(line)
    return lines


def _threshold(task: TaskScore) -> str | None:
    found = task.tuned.choices.threshold if task.tuned.choices else None
    if found is None or found.cross_miss is None or found.cross_over_call is None:
        return None
    yes = (task.classes or ["yes"])[0]
    return (
        f"To miss at most {percent(found.miss_rate)}, take a probability of {found.threshold:.2f} or more "
        f"for {yes}: on new pictures expect to miss {_about(found.cross_miss)}, with false alarms at "
        f"{_about(found.cross_over_call)}."
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
    lines = [f"It was right on {right:,} of {counted(task.n, unit)}{average}{_range(whole)}. {_blind(task)}"]
    if kinds := _kinds(task):
        lines.append(f"By true answer: {_tally(kinds)}.")
    for kind in _weak(kinds)[:_LISTED]:
        lines.append(f"{capital(kind.name)} was missed more often than found{_mixed(task, kind)}.")
    return lines


def _mixed(task: TaskScore, kind: Kind) -> str:
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
        return f"{round(metrics[name].value * task.n):,} of {many} {_share(metrics[name])}"

    if task.type == "count":
        near = metrics.get("within_one")
        more = f"; off by no more than one: {percent(near.value)}" if near else ""
        lines = [f"It counted exactly on {of_all('exact')}{more}."]
    elif task.type == "box":
        mean = metrics["mean_iou"]
        lines = [
            f"Its box met the true one by half or more on {of_all('acc_50')}. On average they share "
            f"{percent(mean.value)} of what both cover together{_range(mean)}."
        ]
    elif task.type == "json":
        mean = metrics["field_accuracy"]
        lines = [
            f"In {counted(task.n, 'report')}, {percent(mean.value)} of the fields were right{_range(mean)}."
        ]
    else:
        mean = metrics["token_f1"]
        lines = [
            f"In {counted(task.n, 'text')}, {percent(mean.value)} of the words were those of the true text"
            f"{_range(mean)}."
        ]
    return [f"{lines[0]} {_blind(task)}".strip()]


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
        lines.append(f"{garbled:,} of its {task.n:,} answers could not be understood; they count as wrong.")
    if tuned.unreadable:
        lines.append(
            f"{tuned.unreadable:,} of {task.n:,} questions were about a picture that could not be read."
        )
    if tuned.missing:
        lines.append(f"{tuned.missing:,} of {task.n:,} questions have no answer; they count as wrong.")
    return lines


def _against_base(task: TaskScore) -> list[str]:
    if task.base is None or task.difference is None or task.headline not in task.difference:
        return []
    base, tuned = task.base.metrics.get(task.headline), task.tuned.metrics[task.headline]
    gap = task.difference[task.headline]
    if base is None or task.outcome == "alone":
        return []
    if task.outcome == "same":
        return [f"No difference to speak of from the base model ({percent(base.value)})."]
    figures = f"{percent(tuned.value)} against {percent(base.value)}"
    if gap.low is not None and gap.high is not None:
        if task.outcome == "better":
            figures += f", by {100 * gap.low:.0f} to {100 * gap.high:.0f} percentage points"
        elif task.outcome == "worse":
            figures += f", by {-100 * gap.high:.0f} to {-100 * gap.low:.0f} percentage points"
        else:
            figures += f"; the difference could be {points(gap.low)} to {points(gap.high)} percentage points"
    if task.outcome == "better":
        return [f"Better than the base model: {figures}."]
    if task.outcome == "worse":
        return [f"WORSE than the base model: {figures}."]
    needed = (
        f" This test is too small to tell: some {_roughly(task.needed_groups)} independent pictures would be "
        f"needed, it has {task.groups:,}."
        if task.needed_groups and task.needed_groups > task.groups
        else ""
    )
    return [f"Not shown to be better than the base model: {figures}.{needed}"]


# --- words -------------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Whole percents; never 0% or 100% of what is not."""
    if 0 < value < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 < value < 1 else f"{100 * value:.0f}%"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _range(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f" (could be {percent(estimate.low)} to {percent(estimate.high)})"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"({percent(estimate.value)})"
    return f"({percent(estimate.value)}; could be {percent(estimate.low)} to {percent(estimate.high)})"


def _about(estimate: Estimate) -> str:
    return f"{percent(estimate.value)}{_range(estimate)}"


def points(value: float) -> str:
    """Percentage points with their sign."""
    shown = f"{100 * value:+.0f}".replace("-", "−")
    return "0" if shown[1:] == "0" else shown


def _roughly(number: int) -> str:
    """Two figures of a number: more would pretend to know."""
    digits = max(0, len(str(number)) - 2)
    return f"{round(number, -digits):,}"


def _where(task: TaskScore, row: ClassScore, unit: str, *, with_it: bool) -> str:
    if task.about:
        article = "an" if task.about[:1].casefold() in "aeiou" else "a"
        thing = f"with {article} {task.about}" if with_it else "without one"
        on = "" if unit == "picture" else "on pictures "
        return f"{counted(row.support, unit)} {on}{thing}"
    return f"{counted(row.support, unit)} whose right answer is {row.name}"


def _tally(kinds: Sequence[Kind]) -> str:
    parts = [f"{kind.name} {kind.right:,} of {kind.n:,}" for kind in kinds]
    if len(parts) > _LISTED:  # the worst are what matters: those in the middle are left out
        half = _LISTED // 2
        parts = [*parts[:half], f"… {len(parts) - _LISTED:,} more …", *parts[-half:]]
    return ", ".join(parts)
