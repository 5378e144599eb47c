"""The tables of a report's page: classes, sizes, answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from data_prep.report.model import BOUNDS, THIN_SHARE, AnswerCounts, BoxSizes, Report
from llava.common.html.markup import (
    Markup,
    bar_cell,
    cut,
    first_of,
    number_cell,
    number_head,
    strip,
    table,
    table_row,
    tag,
    together,
)

_STYLES = ("first", "second", "third", "fourth")  # CSS classes of the parts of a bar of answers
_FEW_ANSWERS = 12
_SIZES = 8  # sizes of pictures listed one by one
SHOWN_ROWS = 60  # of a table of classes


def classes_part(report: Report) -> Markup | None:
    if not report.classes and not report.kinds:
        return None
    splits = [split for split in report.splits if _has_rows(report, split)]
    parts = []
    if report.kinds:
        parts.append(_kinds_table(report, splits))
    if report.classes:
        parts.append(_class_table(report, splits))
    return together(parts)


def _has_rows(report: Report, split: str) -> bool:
    return any(row.views[split] for row in report.classes) or bool(report.kinds.get(split))


def _kinds_table(report: Report, splits: Sequence[str]) -> Markup:
    """Return a table with a row per label and a column per split, so that shares that should be alike stand
    side by side."""
    parts = {split: report.kinds.get(split, Counter()) for split in splits}
    names = sorted({name for part in parts.values() for name in part})
    rows = []
    for name in names[:SHOWN_ROWS]:
        cells = []
        for part in parts.values():
            share = part[name] / max(1, part.total())
            text = tag("div", f"{part[name]:,} ", tag("span", f"{share:.0%}", class_="soft"))
            cells.append(tag("td", text, strip([("first", share)]), class_="share"))
        rows.append(table_row(name, *cells))
    heads = [
        f"{split or f'{report.unit}s'} ({part.total():,})" if len(parts) > 1 else f"{report.unit}s"
        for split, part in parts.items()
    ]
    caption = f"What each {report.unit} shows: its largest defect" + (", by split." if any(splits) else ".")
    return table(caption + first_of(min(len(names), SHOWN_ROWS), len(names)), ["shows", *heads], rows)


def _class_table(report: Report, splits: Sequence[str]) -> Markup:
    maximum = max(row.boxes.total() for row in report.classes)
    several = list(splits) if len(splits) > 1 else []
    with_roles = any(row.role != "box" for row in report.classes)
    rows = [
        table_row(
            row.name,
            *([row.role] if with_roles else []),
            *(number_cell(row.boxes[split]) for split in several),
            number_cell(row.boxes.total()),
            number_cell(row.views.total()),
            bar_cell(row.boxes.total() / maximum),
        )
        for row in report.classes[:SHOWN_ROWS]
    ]
    return table(
        "Annotated objects (boxes, or labels of whole pictures) by class."
        + first_of(len(rows), len(report.classes)),
        [
            "class",
            *(["is a"] if with_roles else []),
            *(number_head(f"in {split or 'no split'}") for split in several),
            number_head("objects"),
            number_head(f"{report.unit}s with it"),
            "",
        ],
        rows,
    )


def sizes_part(report: Report) -> Markup | None:
    if not report.image_sizes:
        return None
    parts = [_image_sizes(report)]
    for size in report.sizes:
        heading, body = _box_sizes(size, report.unit)
        # Readers seldom need components or other models: these tables are folded.
        if size.role == "component" or size.model_input != report.model_inputs[0]:
            parts.append(tag("details", tag("summary", heading), body))
        else:
            parts += [tag("h3", heading), body]
    return together(parts)


def _image_sizes(report: Report) -> Markup:
    total, unit = report.image_sizes.total(), report.unit
    sizes = list(report.image_sizes.elements())
    if len(report.image_sizes) > _SIZES:
        longer, shorter = [max(size) for size in sizes], [min(size) for size in sizes]
        return tag(
            "p",
            f"The {unit}s have {len(report.image_sizes):,} different sizes. Longer side: {min(longer):,} "
            f"to {max(longer):,} pixels, median {median(longer):,.0f}; shorter side: {min(shorter):,} to "
            f"{max(shorter):,}, median {median(shorter):,.0f}.",
        )
    rows = [
        table_row(
            f"{width} x {height}",
            number_cell(count),
            number_cell(f"{count / total:.0%}"),
            bar_cell(count / total),
        )
        for (width, height), count in sorted(report.image_sizes.items(), key=lambda item: (-item[1], item[0]))
    ]
    caption = f"Sizes of the {unit}s in pixels (width x height)."
    return table(caption, ["size", number_head(f"{unit}s"), number_head("share"), ""], rows)


def _box_sizes(sizes: BoxSizes, unit: str) -> tuple[str, Markup]:
    """Return a heading and the tables below it."""
    model_input = sizes.model_input
    noun = {"defect": "defects", "component": "components", "box": "boxes"}[sizes.role]
    shown_as = f"{unit} {model_input.scaling}, patch {model_input.patch}"
    heading = f"{noun.capitalize()} as {model_input.name} sees them: {shown_as}"
    return heading, together([_histogram(sizes, noun), _sizes_by_class(sizes, noun)])


def _histogram(sizes: BoxSizes, noun: str) -> Markup:
    patch = sizes.model_input.patch
    edges = [0.0, *(bound * patch for bound in BOUNDS)]
    filled = [number for number, count in enumerate(sizes.bins) if count]
    at_one = BOUNDS.index(1.0)  # the bin below one patch; it and the next are always shown
    rows = []
    for number in range(min(at_one, *filled), max(at_one + 1, *filled) + 1):
        count = sizes.bins[number]
        is_last = number == len(BOUNDS)
        label = f"{edges[number]:g} and more" if is_last else f"{edges[number]:g} to {edges[number + 1]:g}"
        is_thin = not is_last and edges[number + 1] <= patch
        ends_at_patch = not is_last and edges[number + 1] == patch
        rows.append(
            table_row(
                label,
                number_cell(count),
                number_cell(f"{count / sizes.count:.0%}"),
                bar_cell(count / sizes.count, "thin" if is_thin else "first"),
                class_="patch" if ends_at_patch else None,
            )
        )
    caption = (
        f"The shorter side of {sizes.count:,} {noun} in model pixels. The dashed line is one patch: what "
        f"lies above it in the table is thinner, and a model may not see it."
    )
    return table(caption, ["model pixels", number_head(noun), number_head("share"), ""], rows)


def _sizes_by_class(sizes: BoxSizes, noun: str) -> Markup:
    rows = []
    for row in sizes.classes[:SHOWN_ROWS]:
        warn = row.thin >= THIN_SHARE * row.count and row.thin and sizes.role != "component"
        rows.append(
            table_row(
                row.name,
                number_cell(row.count),
                number_cell(f"{row.median:.1f}"),
                number_cell(f"{row.thin:,} ({row.thin / row.count:.0%})", "warn" if warn else ""),
            )
        )
    heads = ["class", *map(number_head, (noun, "median, model pixels", "thinner than a patch"))]
    return table(f"The same by class.{first_of(len(rows), len(sizes.classes))}", heads, rows)


def answers_part(report: Report) -> Markup | None:
    if not report.answers:
        return None
    with_language = len({part.language for part in report.answers}) > 1
    rows: list[Markup] = []
    for task, language in dict.fromkeys((part.task, part.language) for part in report.answers):
        parts = [part for part in report.answers if (part.task, part.language) == (task, language)]
        name = f"{task} ({language})" if with_language and language else task
        rows += _answer_rows(name, parts)
    intro = tag(
        "p",
        "The commonest answer is the baseline: what a model scores that always says it. A model that scores "
        "near it has learned nothing about the pictures.",
    )
    columns = [
        "task",
        "split",
        number_head("questions"),
        number_head("different answers"),
        "commonest",
        number_head("its share"),
        "",
    ]
    return together([intro, table("Answers by task and split.", columns, rows)])


def _answer_rows(name: str, parts: Sequence[AnswerCounts]) -> list[Markup]:
    """Return the rows of one task and language, a row per split."""
    overall = sum((part.answers for part in parts), Counter())
    styles: dict[str, str] = {}
    if len(overall) <= _FEW_ANSWERS:  # no use in naming a few of hundreds
        ordered = sorted(overall, key=lambda word: (-overall[word], word))
        styles = dict(zip(ordered, _STYLES, strict=False))
    rows = []
    for number, part in enumerate(parts):
        answer, share = part.commonest or ("", 0.0)
        commonest = cut(answer, 60) if part.commonest or not part.count else "each only once"
        rows.append(
            tag(
                "tr",
                tag("th", name, scope="rowgroup", rowspan=len(parts)) if number == 0 else None,
                tag("td", part.split),
                number_cell(part.count or f"{part.turns:,} turns"),
                number_cell(part.different),
                tag("td", commonest),
                number_cell(f"{share:.0%}" if share else ""),
                _answer_bar(part, styles),
            )
        )
    return rows


def _answer_bar(part: AnswerCounts, styles: dict[str, str]) -> Markup:
    """Return a bar with the shares of the answers that have a style, in the order of `styles`."""
    shares = {answer: part.answers[answer] / part.count for answer in styles if part.answers[answer]}
    if not shares:
        return tag("td", class_="wide answers")
    keys = [
        tag(
            "span",
            tag("i", class_=f"swatch {styles[answer]}"),
            f"{cut(answer, 24)} {share:.0%}",
            class_="key",
        )
        for answer, share in shares.items()
    ]
    if len(part.answers) > len(shares):
        keys.append(tag("span", f"{len(part.answers) - len(shares)} more", class_="key"))
    shown = strip((styles[answer], share) for answer, share in shares.items())
    return tag("td", shown, tag("div", *keys, class_="soft"), class_="wide answers")
