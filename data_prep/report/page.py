"""A report as one HTML page that needs nothing beside itself: no script, no network, pictures inside.

Names of files and classes are foreign text. All of it passes through `tag` of llava/common/html/markup.py,
which escapes every child and attribute that was not itself made by `tag`.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.report.model import SHOWN_LINES, MessageList, Report
from data_prep.report.page_images import akin_part, samples_part
from data_prep.report.page_tables import SHOWN_ROWS, answers_part, classes_part, sizes_part
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
from llava.common.html.page import callout, document, read_asset

_TEXT = 400  # characters of a message


def page(report: Report) -> str:
    """The whole page."""
    sections = [
        (name, anchor, body)
        for name, anchor, body in (
            ("Splits", "splits", _splits(report)),
            ("Class names", "mapping", _mapping(report)),
            ("Classes", "classes", classes_part(report)),
            ("Sizes", "sizes", sizes_part(report)),
            ("Answers", "answers", answers_part(report)),
            ("Akin pictures", "akin", akin_part(report.akin)),
            ("Samples", "samples", samples_part(report)),
            ("Left out and put right", "notes", _notes(report.notes)),
        )
        if body
    ]
    facts = [tag("div", tag("dt", name), tag("dd", value)) for name, value in report.facts]
    header = [tag("dl", *facts, class_="facts"), callout(report.warnings)]
    return document(report.title, header, sections, style=read_asset("data_prep.report", "report.css"))


def _mapping(report: Report) -> Markup | None:
    if not report.mapping:
        return None
    rows = [
        table_row(name, tag("td", outcome, class_="warn" if outcome.startswith("unknown") else None))
        for name, outcome in report.mapping[:SHOWN_ROWS]
    ]
    caption = "Class names as the annotations write them, and what the recipe makes of them."
    return table(caption + first_of(len(rows), len(report.mapping)), ["written", "taken as"], rows)


def _splits(report: Report) -> Markup | None:
    if not report.split_counts:
        return None
    columns = next(iter(report.split_counts.values()))
    rows = [
        table_row(split, *(number_cell(count) for count in counts.values()))
        for split, counts in report.split_counts.items()
    ]
    return table(
        "Pictures that are known to belong together (below: akin pictures) are a group. No group is divided.",
        ["split", *map(number_head, columns)],
        rows,
    )


def _notes(notes: Sequence[MessageList]) -> Markup | None:
    parts = []
    for part in notes:
        if part.lines:
            shown = part.lines if part.in_full else part.lines[:SHOWN_LINES]
            listed = [tag("li", cut(line, _TEXT)) for line in shown]
            about = part.about + first_of(len(listed), len(part.lines))
            parts.append(tag("h3", f"{part.heading} ({len(part.lines):,})"))
            parts.append(tag("p", about, class_="soft"))
            parts.append(tag("ul", *listed, class_="lines"))
    return together(parts) if parts else tag("p", "Nothing was left out or changed.")
