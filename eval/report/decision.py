"""What a decision makes of pictures, as a table on the console and as a part of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.report.console import new_table
from eval.report.phrases import percent_with_interval
from eval.scoring.schema import DecisionScore
from llava.common.html.markup import Markup, number_cell, number_head, table, table_row, tag, together
from llava.common.records import Calls

_HEADS = ("answers", "called sound", "to a person", "called a defect")


def calls_table(defective: Calls, sound: Calls) -> Table:
    """Return the calls of what truly shows a defect and of what does not, as shares of each."""
    shown = new_table()
    shown.add_column("truly")
    for head in _HEADS:
        shown.add_column(head, justify="right")
    for name, calls in _rows(defective, sound):
        shown.add_row(name, *_cells(calls))
    return shown


def print_decision_score(score: DecisionScore, console: Console) -> None:
    console.print(f"\n[bold]The decision on {escape(score.task)}[/]")
    console.print(calls_table(score.defective, score.sound))
    for line in decision_lines(score):
        console.print(escape(line))


def decision_part(score: DecisionScore) -> Markup:
    rows = [
        table_row(name, *(number_cell(cell) for cell in _cells(calls)))
        for name, calls in _rows(score.defective, score.sound)
    ]
    heads = ["", *map(number_head, _HEADS)]
    return together(
        [
            tag("p", tag("b", "Certified. " if score.certified else "Not certified. "), score.guarantee),
            table("What the decision says, by what is true.", heads, rows),
            tag("ul", *(tag("li", line) for line in decision_lines(score))),
        ]
    )


def decision_lines(score: DecisionScore) -> list[str]:
    """Return in words what the decision does, and how that compares with what it promises."""
    lines = []
    if score.missed:
        lines.append(
            f"Missed: of the groups with a defect {percent_with_interval(score.missed)} have a picture with "
            "it that is called sound; "
            + (f"{100 * score.miss:g}% at most is promised" if score.certified else "nothing is promised")
        )
    if score.false_alarms:
        lines.append(
            f"False alarms: of the groups with a sound picture {percent_with_interval(score.false_alarms)} "
            "have one that is called a defect"
        )
    lines.append(f"To a person: {percent_with_interval(score.to_person)} of the answers")
    if score.missed and score.missed.low is not None and score.certified and score.missed.low > score.miss:
        lines.append(
            "MORE IS MISSED THAN PROMISED, by more than chance explains: these pictures are not like those "
            "of the calibration. Certify a decision for such pictures."
        )
    if score.own_pictures:
        lines.append("These are the pictures that the decision was made with, which flatters it.")
    return lines


def _rows(defective: Calls, sound: Calls) -> Sequence[tuple[str, Calls]]:
    return (("a defect", defective), ("sound", sound))


def _cells(calls: Calls) -> Iterator[str]:
    yield f"{calls.total:,}"
    for number in (calls.sound, calls.ask, calls.defect):
        yield f"{number:,} ({number / calls.total:.0%})" if calls.total else "-"
