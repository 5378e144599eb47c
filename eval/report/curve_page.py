"""curve.html of `llava-inspect curve`: scores by the number of training photos, and what more would bring."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from eval.report.phrases import percent
from eval.scoring.learning_curve import LEVEL, LearningCurve, Range, band_sizes
from llava.common.html.markup import Markup, number_cell, number_head, table, table_row, tag
from llava.common.html.page import document, read_asset

_LEFT, _TOP, _WIDTH, _HEIGHT = 44, 10, 240, 170  # the area of a plot, in units of its viewBox


def render_curve_page(sizes: Sequence[int], curves: Sequence[LearningCurve]) -> str:
    """Return the whole page, for parts of `sizes` photos."""
    total = sizes[-1]
    parts = ", ".join(f"{size:,}" for size in sizes)
    header = [
        tag("p", f"A model was trained on {parts} photos, each part with all of the smaller one."),
        tag(
            "p",
            "The prediction holds for photos of the same sort, drawn as these were, and the same training. "
            f"An inverse power law is continued; the range holds {LEVEL:.0%} of what may come of it, with "
            "the chance of the test photos and of the training.",
            class_="soft",
        ),
    ]
    return document(
        f"What would {total:,} more photos bring?",
        header,
        [
            ("In figures", "figures", _table(sizes, curves)),
            ("Drawn", "drawn", tag("div", *(_plot(sizes, curve) for curve in curves), class_="plots")),
        ],
        style=read_asset("eval.report", "report.css"),
    )


def _table(sizes: Sequence[int], curves: Sequence[LearningCurve]) -> Markup:
    rows = [
        table_row(
            curve.name,
            curve.metric.replace("_", " "),
            *(number_cell(percent(score.value)) for score in curve.measured),
            _told(curve),
        )
        for curve in curves
    ]
    head = ["task", "measured by", *(number_head(f"{size:,} photos") for size in sizes)]
    return table(
        "Scores on the same test questions; the last column is the prediction.",
        [*head, f"with {2 * sizes[-1]:,} photos"],
        rows,
    )


def _told(curve: LearningCurve) -> str:
    if curve.expected is None:
        return f"cannot say: {curve.why_not}"
    return f"{percent(curve.expected.value)} ({_range(curve.expected)})"


def _range(score: Range) -> str:
    return f"{percent(score.low)} to {percent(score.high)}"


def _plot(sizes: Sequence[int], curve: LearningCurve) -> Markup:
    """Return a plot of the scores over the number of photos, each step to the right twice as many."""
    twice = 2 * sizes[-1]
    first, steps = sizes[0], log2(twice / sizes[0])

    def at(photos: float, score: float) -> str:
        return f"{_LEFT + _WIDTH * log2(photos / first) / steps:.1f} {_TOP + _HEIGHT * (1 - score):.1f}"

    def whisker(photos: float, score: Range) -> Markup:
        return tag("path", class_="tuned whisker", d=f"M{at(photos, score.low)}L{at(photos, score.high)}")

    def dot(photos: float, score: Range, css_class: str) -> Markup:
        x, y = at(photos, score.value).split()
        title = f"{photos:,.0f} photos: {percent(score.value)}, {_range(score)}"
        return tag("circle", tag("title", title), class_=css_class, cx=x, cy=y, r=4)

    marks: list[Markup] = []
    for quarter in range(5):
        y = at(first, quarter / 4).split()[1]
        marks.append(tag("path", class_="grid", d=f"M{_LEFT} {y}H{_LEFT + _WIDTH}"))
        marks.append(tag("text", f"{25 * quarter}%", x=_LEFT - 5, y=float(y) + 3, text_anchor="end"))
    for size in (*sizes, twice):
        x = at(size, 0).split()[0]
        marks.append(tag("text", f"{size:,}", x=x, y=_TOP + _HEIGHT + 14, text_anchor="middle"))
    marks.append(
        tag("text", "training photos", x=_LEFT + _WIDTH / 2, y=_TOP + _HEIGHT + 28, text_anchor="middle")
    )
    if curve.band:
        places = list(zip(band_sizes(sizes), curve.band, strict=True))
        rim = [at(n, score.high) for n, score in places] + [at(n, score.low) for n, score in reversed(places)]
        marks.append(tag("path", class_="band", d=f"M{'L'.join(rim)}Z"))
        line = "L".join(at(n, score.value) for n, score in places)
        marks.append(tag("path", class_="tuned many", d=f"M{line}"))
    for size, score in zip(sizes, curve.measured, strict=True):
        marks += [whisker(size, score), dot(size, score, "tuned")]
    if curve.expected is not None:
        marks += [whisker(twice, curve.expected), dot(twice, curve.expected, "expected")]
    words = (
        f"With {twice:,} photos: {_told(curve)}." if curve.expected else f"With more photos: {_told(curve)}."
    )
    drawing = tag(
        "svg",
        *marks,
        viewBox=f"0 0 {_LEFT + _WIDTH + 24} {_TOP + _HEIGHT + 34}",
        role="img",
        aria_label=f"{curve.name}. {words}",
    )
    return tag("figure", drawing, tag("figcaption", tag("b", curve.name), tag("p", words)))
