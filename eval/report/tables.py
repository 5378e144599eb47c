"""Tables of the report: scores by type of task, recall and confusion per answer, slices."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.per_class import FEW
from eval.report.phrases import percent, percentage_points
from eval.report.plots import percent_range, range_cell, range_key
from eval.scoring.columns import SIZES
from eval.scoring.schema import Estimate, Slice, SystemScore, TaskScore
from llava.common.html.markup import (
    Markup,
    cut,
    first_of,
    number_cell,
    number_head,
    table,
    table_row,
    tag,
    together,
)

_MAX_CLASSES = 20  # classes of a confusion table
_MAX_ROWS = 60  # of one table
_TEXT = 60  # characters of a class's name

# Per type of task: its heading, what its headline metric is, and the other metrics shown.
_TABLES: list[tuple[tuple[str, ...], str, str, list[tuple[str, str]]]] = [
    (
        ("yesno", "class"),
        "Yes or no, or one of a list",
        "Balanced accuracy: the share of right answers, averaged over the true answers, so that rare ones "
        "count as much as common ones. F1: precision and recall in one, averaged over the answers.",
        [("accuracy", "right in all"), ("macro_f1", "F1")],
    ),
    (
        ("count",),
        "Counting",
        "The share counted exactly. Mean error: how many off, of the answers that give a number.",
        [("within_one", "off by at most one"), ("mean_abs_error", "mean error")],
    ),
    (
        ("box",),
        "Boxes",
        "Mean IoU: what the answered and the true box share, as part of what both cover; 100% is the "
        "same box. Without looking: always the box in the middle of the true ones.",
        [("acc_50", "boxes with IoU of half or more")],
    ),
    (
        ("json",),
        "Reports",
        "The share of the true report's fields that are right. An invalid report has none.",
        [("exact", "wholly right")],
    ),
    (
        ("text",),
        "Free text",
        "Word F1: how many words the answer and the true text have in common. It knows no synonyms, and no "
        "“not”: read some answers below before you trust it.",
        [("exact", "the same text"), ("rouge_l", "ROUGE-L"), ("bleu", "BLEU"), ("cider", "CIDEr")],
    ),
]
_HEADLINES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "right",
    "exact": "exact",
    "mean_iou": "mean IoU",
    "token_f1": "word F1",
    "field_accuracy": "right fields",
}
_NOT_SHARES = {"mean_abs_error", "cider"}


def scores_part(tasks: Sequence[TaskScore]) -> Markup:
    """Return a table of scores per type of task."""
    parts: list[Markup] = [range_key(any(task.base for task in tasks))]
    for types, heading, caption, other_metrics in _TABLES:
        rows = [task for task in tasks if task.type in types]
        if rows:
            parts += [tag("h3", heading), _scores(rows, caption, other_metrics)]
        if "yesno" in types and (yes_no := [task for task in rows if task.type == "yesno"]):
            parts.append(tag("div", _alarms(yes_no), class_="not-printed"))
    return together(parts)


def _scores(tasks: Sequence[TaskScore], caption: str, other_metrics: Sequence[tuple[str, str]]) -> Markup:
    compared = any(task.base for task in tasks)
    known = {name for task in tasks for name in task.tuned.metrics}
    other_metrics = [(name, words) for name, words in other_metrics if name in known]
    headlines = list(dict.fromkeys(_HEADLINES.get(task.headline, task.headline) for task in tasks))
    head: list[object] = ["task", _axis(), number_head(f"tuned: {' or '.join(headlines)}")]
    if compared:
        head += [number_head("base"), number_head("difference, points")]
    headings = [words for _, words in other_metrics]
    head += map(number_head, ("without looking", *headings, "questions", "understood"))
    rows = []
    for task in tasks:
        headline, metrics = task.headline, task.tuned.metrics
        base = task.base.metrics.get(headline) if task.base else None
        blind = _blind(task)
        cells = [range_cell(metrics[headline], base, blind), number_cell(_ranged(metrics[headline]))]
        if compared:
            cells += [number_cell(_value(base, headline)), _difference(task)]
        cells.append(number_cell("–" if blind is None else percent(blind)))
        cells += [number_cell(_value(metrics.get(name), name)) for name, _ in other_metrics]
        cells += [number_cell(task.n), number_cell(_value(metrics.get("parsed"), "parsed"))]
        rows.append(table_row(task.task, *cells))
    return table(caption, head, rows)


def _axis() -> Markup:
    ends = tag("div", tag("span", "0%"), tag("span", "100%"), class_="axis")
    return tag("th", ends, scope="col", class_="wide", aria_label="drawn from 0% to 100%")


def _blind(task: TaskScore) -> float | None:
    known = any(task.headline in values for values in (task.majority, task.random, task.blind))
    return task.best_guess if known else None


def _value(estimate: Estimate | None, name: str) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.2f}" if name in _NOT_SHARES else percent(estimate.value)


def _ranged(estimate: Estimate) -> Markup:
    if estimate.low is None or estimate.high is None:
        return tag("b", percent(estimate.value))
    span = f" {percent(estimate.low)} to {percent(estimate.high)}"
    return together([tag("b", percent(estimate.value)), tag("span", span, class_="soft")])


def _difference(task: TaskScore) -> Markup:
    difference = (task.difference or {}).get(task.headline)
    if difference is None:
        return number_cell("–")
    mark = {"better": "▲ ", "worse": "▼ "}.get(task.outcome, "")
    return number_cell(f"{mark}{_difference_text(difference)}", task.outcome)


def _systems(task: TaskScore) -> list[tuple[str, SystemScore]]:
    return [("tuned", task.tuned), *([("base", task.base)] if task.base else [])]


def _alarms(tasks: Sequence[TaskScore]) -> Markup:
    rows = []
    for task in tasks:
        truly = percent(task.tuned.per_class[0].support / task.n) if task.tuned.per_class else "–"
        for name, system in _systems(task):
            metrics = system.metrics
            cells = [
                number_cell(percent_range(metrics.get(rate))) for rate in ("miss", "over_call", "says_yes")
            ]
            rows.append(table_row(f"{task.task}, {name}", *cells, number_cell(truly)))
    return table(
        "Misses: true yes that was not answered yes. False alarms: true no that was answered yes.",
        ["task and model", *map(number_head, ("misses", "false alarms", "says yes", "truly yes"))],
        rows,
    )


# --- by answer ---------------------------------------------------------------------------------------


def answers_part(tasks: Sequence[TaskScore]) -> Markup | None:
    """Return for each closed task every answer's recall and precision, and the confusion matrix."""
    closed = [task for task in tasks if task.tuned.per_class]
    parts = []
    for task in closed:
        parts += [tag("h3", task.task), _per_class(task)]
        classes = len(task.classes or ())
        if classes > _MAX_CLASSES:
            parts.append(
                tag("p", f"{classes} answers are too many to draw what is taken for what.", class_="soft")
            )
            continue
        parts.append(_confusion(task, "tuned", task.tuned))
        if task.base is not None:
            drawn = _confusion(task, "base", task.base)
            parts.append(tag("details", tag("summary", "The same of base"), drawn))
    return together(parts) if parts else None


def _per_class(task: TaskScore) -> Markup:
    assert task.tuned.per_class is not None
    compared = bool(task.base and task.base.per_class)
    base = {row.name: row for row in (task.base.per_class or [])} if task.base else {}
    rows = []
    ordered = sorted(
        task.tuned.per_class, key=lambda row: (not row.support, row.recall.value if row.recall else 0)
    )
    for row in ordered[:_MAX_ROWS]:
        base_recall = base[row.name].recall if compared else None
        right = round(row.recall.value * row.support) if row.recall else 0
        cells = [
            number_cell(row.support),
            number_cell(f"{right:,}" if row.support else "–"),
            range_cell(row.recall, base_recall),
            number_cell(percent_range(row.recall)),
        ]
        if compared:
            cells.append(number_cell("–" if base_recall is None else percent(base_recall.value)))
        precision = "–" if row.precision is None else f"{percent(row.precision)} of {row.answered:,}"
        cells.append(number_cell(precision))
        rows.append(table_row(cut(row.name, _TEXT), *cells))
    heads: list[object] = ["true answer", number_head("times"), number_head("right"), _axis()]
    heads.append(number_head("right (recall), tuned"))
    if compared:
        heads.append(number_head("base"))
    heads.append(number_head("right when it says so (precision)"))
    return table(
        "How often each true answer was given, the least first, and what the answer is worth when given."
        + first_of(len(rows), len(ordered)),
        heads,
        rows,
    )


def _confusion(task: TaskScore, name: str, system: SystemScore) -> Markup:
    assert system.per_class is not None and system.confusion is not None
    classes = [cut(row.name, _TEXT) for row in system.per_class]
    head: list[object] = ["true", *(tag("th", item, scope="col") for item in classes)]
    head.append(tag("th", "not understood", scope="col", class_="none"))
    rows = []
    for index, (true, counts) in enumerate(zip(classes, system.confusion, strict=True)):
        total = max(1, sum(counts))
        cells = []
        for column, count in enumerate(counts):
            css_classes = ["right"] if column == index else ["none"] if column == len(classes) else []
            if count / total > 0.6 and column < len(classes):
                css_classes.append("dark")
            style = f"--s:{count / total:.2f}" if count else None
            cells.append(
                tag("td", f"{count:,}" if count else "·", class_=" ".join(css_classes) or None, style=style)
            )
        rows.append(table_row(true, *cells))
    caption = (
        f"What {name} answered (columns) to what is true (rows); framed: right. The stronger the colour, "
        "the larger the share of its row."
    )
    return tag("div", table(caption, head, rows), class_="heat")


# --- slices ------------------------------------------------------------------------------------------

_BY = {
    "truth": "By what the picture shows",
    "size": "By the size of the box",
    "source": "By source",
    "language": "By language",
    "all": "All questions together",
}


def slices_part(tasks: Sequence[TaskScore], overall: Sequence[Slice]) -> Markup | None:
    """Return tables of the slices, of each task and of all together (`overall`); None without any."""
    compared = any(part.base for task in tasks for part in task.slices) or any(part.base for part in overall)
    parts: list[Markup] = []
    for by, heading in _BY.items():
        rows = [(task.task, part) for task in tasks for part in task.slices if part.by == by]
        if by == "truth":  # the table of answers has those that are an answer alone
            rows = [row for row in rows if row[1].label is not None]
        rows += [("all tasks", part) for part in overall if part.by == by]
        if len(rows) > 1 or (rows and by == "truth"):
            parts += [tag("h3", heading), *_slice_tables(rows, compared, by)]
    return together([range_key(compared, blind=False), *parts]) if parts else None


def _slice_tables(rows: Sequence[tuple[str, Slice]], compared: bool, by: str) -> list[Markup]:
    # A share of three answers says nothing; many such rows hide those that do.
    few = [row for row in rows if row[1].n < FEW]
    many = [row for row in rows if row[1].n >= FEW] if len(few) > 2 else list(rows)
    caption = _sizes() if by == "size" else ""
    caption += (
        "The share of right answers."
        if by == "truth"
        else "How good the answers are on average: 100% or 0% for right or wrong; for boxes, texts and "
        "reports the share that is right."
    )
    tables = [_slice_table(many, compared, caption)] if many else []
    if len(few) > 2:
        folded = _slice_table(few, compared, f"With fewer than {FEW} questions each.")
        tables.append(
            tag("details", tag("summary", f"{len(few)} with fewer than {FEW} questions each"), folded)
        )
    return tables


def _sizes() -> str:
    """Return what the names of the sizes mean."""
    names = list(SIZES)
    below = [f"{name}: under {percent(limit)}" for name, limit in SIZES.items() if limit < 1]
    return f"Shares of the picture's area, {', '.join(below)}, {names[-1]}: more. "


def _slice_table(rows: Sequence[tuple[str, Slice]], compared: bool, caption: str) -> Markup:
    answers = any(part.answer for _, part in rows)
    head: list[object] = ["it shows", "true answer"] if answers else [""]
    head += [_axis(), number_head("tuned")]
    with_differences = any(part.difference for _, part in rows)
    head += [number_head("base")] if compared else []
    head += [number_head("difference, points")] if with_differences else []
    head.append(number_head("questions"))
    elements = []
    previous = None
    for task, part in rows[:_MAX_ROWS]:
        if task != previous:
            elements.append(tag("tr", tag("th", task, scope="rowgroup", colspan=len(head)), class_="group"))
            previous = task
        name = part.label if part.by == "truth" and part.label else part.name
        name = cut(name.replace("_", " "), _TEXT) or "(no name)"
        cells = [tag("td", cut(part.answer or "", _TEXT))] if answers else []
        cells += [range_cell(part.tuned, part.base), number_cell(percent_range(part.tuned))]
        if compared:
            cells.append(number_cell("–" if part.base is None else percent(part.base.value)))
        if with_differences:
            cells.append(number_cell(_difference_text(part.difference)))
        cells.append(number_cell(part.n))
        elements.append(table_row(name, *cells))
    return table(caption + first_of(min(len(rows), _MAX_ROWS), len(rows)), head, elements)


def _difference_text(difference: Estimate | None) -> str:
    if difference is None:
        return "–"
    if difference.low is None or difference.high is None:
        return percentage_points(difference.value)
    value, low, high = map(percentage_points, (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"
