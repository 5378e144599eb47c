"""Drawings of the report: ranges beside tables, ROC and reliability plots.

All of them also say in words what they show.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.phrases import capitalise, percent, probability
from eval.scoring.intervals import wilson_interval
from eval.scoring.schema import ChoiceScore, Estimate, TaskScore, Threshold
from llava.common.html.markup import Markup, tag, together

_LEFT, _TOP, _SIDE = 44, 10, 200  # the square of a plot, in units of its viewBox
_CURVES = 8  # classes drawn in one ROC plot
SYSTEMS = ("tuned", "base")


def range_cell(tuned: Estimate | None, base: Estimate | None, blind: float | None = None) -> Markup:
    """Return a table cell that draws fractions: dots with their intervals, a dashed line for guessing."""
    parts: list[Markup] = []
    if blind is not None:
        parts.append(tag("i", class_="blind", style=f"left:{_percent_position(blind)}"))
    words = []
    for name, estimate in (("tuned", tuned), ("base", base)):
        if estimate is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            left, width = _percent_position(estimate.low), _percent_position(estimate.high - estimate.low)
            parts.append(tag("i", class_=f"span {name}", style=f"left:{left};width:{width}"))
        parts.append(tag("i", class_=f"dot {name}", style=f"left:{_percent_position(estimate.value)}"))
        words.append(f"{name} {percent_range(estimate)}")
    if blind is not None:
        words.append(f"without looking {percent(blind)}")
    css_class = "range" if base is not None else "range alone"
    return tag(
        "td", tag("div", *parts, class_=css_class, role="img", aria_label="; ".join(words)), class_="wide"
    )


def _percent_position(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def percent_range(estimate: Estimate | None) -> str:
    """Return `86%, 81% to 92%`."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{percent(estimate.value)}, {percent(estimate.low)} to {percent(estimate.high)}"


def range_key(compared: bool, blind: bool = True) -> Markup:
    """Return the legend of `range_cell`: with base or not, with guessing or not."""
    keys = [_key("dot tuned", "tuned")]
    if compared:
        keys.append(_key("dot base", "base"))
    if blind:
        keys.append(_key("blind", "the best that can be had without looking"))
    keys.append(tag("span", "A bar is the range in which the true value lies 19 times in 20."))
    return tag("p", *keys, class_="keys soft")


def _key(css_class: str, text: str) -> Markup:
    return tag("span", tag("i", class_=css_class), text)


def probability_part(task: TaskScore) -> Markup | None:
    """Return ROC and reliability of a task's choices, drawn and in words; None without probabilities."""
    systems = {
        name: system.choices
        for name, system in (("tuned", task.tuned), ("base", task.base))
        if system is not None and system.choices is not None
    }
    if not systems:
        return None
    figures = [figure for figure in (_roc(task, systems), _reliability(task, systems)) if figure]
    without = [
        f"{name}: {choices.without:,} of {task.n:,} answers give no probability and are left out here."
        for name, choices in systems.items()
        if choices.without
    ]
    return together(
        [
            tag("p", *_keys(systems), class_="keys soft"),
            *(tag("p", line, class_="soft") for line in without),
            tag("div", *figures, class_="plots"),
        ]
    )


def _keys(systems: dict[str, ChoiceScore]) -> list[Markup]:
    lines = {"tuned": "tuned: solid lines, filled dots", "base": "base: dashed lines, hollow dots"}
    return [_key(f"dot {name}", lines[name]) for name in systems]


def _roc(task: TaskScore, systems: dict[str, ChoiceScore]) -> Markup | None:
    curves = [(name, curve) for name, choices in systems.items() for curve in choices.roc]
    if not curves:
        return None
    yes_no = task.type == "yesno"
    if not yes_no:  # curves of base would hide those of tuned
        curves = [(name, curve) for name, curve in curves if name == "tuned"][:_CURVES]
    marks = [
        tag(
            "path",
            tag("title", f"{name}, {curve.name}: AUROC {curve.auroc:.2f}"),
            class_=name if yes_no else f"{name} many",
            d=_path(curve.points),
        )
        for name, curve in curves
    ]
    words = [
        _roc_words(name, choices.metrics["auroc"], task)
        for name, choices in systems.items()
        if "auroc" in choices.metrics
    ]
    threshold = systems["tuned"].threshold if "tuned" in systems else None
    if threshold is not None and threshold.separates:
        x, y = _at(threshold.over_call, 1 - threshold.miss)
        marks.append(tag("circle", class_="chosen", cx=x, cy=y, r=6))
        words.append(_threshold_words(threshold))
    if not yes_no:
        areas = ", ".join(f"{curve.name} {curve.auroc:.2f}" for _, curve in curves)
        words.append(f"A thin line for each answer, of tuned alone: {areas}.")
    across = "false alarms" if yes_no else "others taken for it"
    return _figure(
        "ROC: what could be found at the price of how many false alarms", across, "found", marks, words
    )


def _threshold_words(threshold: Threshold) -> str:
    words = (
        f"The ring: called from a probability of {probability(threshold.threshold)} up, it misses "
        f"{percent(threshold.miss)} here, with false alarms on {percent(threshold.over_call)}"
    )
    if not (threshold.cross_miss and threshold.cross_over_call):
        return f"{words}."
    miss, over_call = percent(threshold.cross_miss.value), percent(threshold.cross_over_call.value)
    return f"{words} (on new pictures rather {miss} and {over_call})."


def _roc_words(name: str, auroc: Estimate, task: TaskScore) -> str:
    """Return what AUROC means: how often, of a true and an untrue case, the true one ranks higher."""
    sentence = f"AUROC of {name}: {auroc.value:.2f}"
    if auroc.low is not None and auroc.high is not None:
        sentence += f" (could be {auroc.low:.2f} to {auroc.high:.2f})"
    if name != "tuned":
        return sentence + "."
    if task.type == "yesno":
        two, first = "one whose right answer is yes and one whose is no", "the first gets more for yes"
    else:
        two, first = "one of the class and one not", "the first gets more for the class"
    times = f"{100 * auroc.value:.0f} times in 100"
    return f"{sentence}: of two random pictures, {two}, {first} {times}. Guessing gets 50."


def _reliability(task: TaskScore, systems: dict[str, ChoiceScore]) -> Markup | None:
    if not any(choices.reliability for choices in systems.values()):
        return None
    marks: list[Markup] = []
    for name in reversed(SYSTEMS):  # tuned on top
        if (choices := systems.get(name)) is not None:
            marks += _reliability_marks(name, choices)
    words = [
        f"{capitalise(name)}: its probabilities are off by {100 * choices.metrics['ece'].value:.0f} "
        f"percentage points on average (ECE {choices.metrics['ece'].value:.2f})."
        for name, choices in systems.items()
        if "ece" in choices.metrics
    ]
    words.append(
        "On the dotted line, what it gives 80% comes true 80 times in 100; below it, it is too sure. "
        "The larger a dot, the more answers; the line through it is the range in which the true value lies "
        "19 times in 20."
    )
    what = "its probability of yes" if task.type == "yesno" else "its probability of its answer"
    came = "truly yes" if task.type == "yesno" else "right"
    return _figure("Reliability: may its probabilities be taken at their word?", what, came, marks, words)


def _reliability_marks(name: str, choices: ChoiceScore) -> list[Markup]:
    """Return a dot per bin, its area with the number of answers, and a line for its interval."""
    marks = []
    bins = sorted(choices.reliability, key=lambda part: part.probability)
    largest = max((part.n for part in bins), default=1)
    for part in bins:
        x, y = _at(part.probability, part.true)
        title = f"{name}: {part.n:,} with {percent(part.probability)} on average, {percent(part.true)} true"
        radius = f"{2 + 5 * (part.n / largest) ** 0.5:.1f}"
        low, high = (_at(part.probability, end) for end in wilson_interval(part.true, part.n))
        marks.append(tag("path", class_=f"{name} whisker", d=f"M{x} {low[1]}V{high[1]}"))
        marks.append(tag("circle", tag("title", title), class_=name, cx=x, cy=y, r=radius))
    return marks


def _figure(title: str, across: str, up: str, marks: Sequence[Markup], words: Sequence[str]) -> Markup:
    """Return a square plot of 0..1 by 0..1.

    Args:
        title: What it shows.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        marks: SVG elements, placed by `_at`.
        words: Sentences that say the same, below it and for screen readers.
    """
    grid: list[Markup] = []
    for step in range(0, 5):
        x, y = _at(step / 4, step / 4)
        shown = f"{25 * step}%"
        grid.append(tag("path", class_="grid", d=f"M{x} {_TOP}V{_TOP + _SIDE}M{_LEFT} {y}H{_LEFT + _SIDE}"))
        grid.append(tag("text", shown, x=x, y=_TOP + _SIDE + 13, text_anchor="middle"))
        grid.append(tag("text", shown, x=_LEFT - 5, y=float(y) + 3, text_anchor="end"))
    middle = _TOP + _SIDE / 2
    grid.append(tag("text", across, x=_LEFT + _SIDE / 2, y=_TOP + _SIDE + 27, text_anchor="middle"))
    grid.append(tag("text", up, x=9, y=middle, text_anchor="middle", transform=f"rotate(-90 9 {middle:g})"))
    diagonal = tag("path", class_="diagonal", d=_path([(0, 0), (1, 1)]))
    drawing = tag(
        "svg",
        *grid,
        diagonal,
        *marks,
        viewBox=f"0 0 {_LEFT + _SIDE + 14} {_TOP + _SIDE + 34}",
        role="img",
        aria_label=" ".join([title + ".", *words]),
    )
    return tag("figure", drawing, tag("figcaption", tag("b", title), *(tag("p", line) for line in words)))


def _at(x: float, y: float) -> tuple[str, str]:
    """Return the place of a point (0..1, 0..1) in units of the viewBox."""
    return f"{_LEFT + _SIDE * x:.1f}", f"{_TOP + _SIDE * (1 - y):.1f}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(" ".join(_at(x, y)) for x, y in points)
