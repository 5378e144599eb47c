"""The tables that `python -m eval.score` prints; readable at 100 columns, in a log as on a screen."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.schema import Estimate, InputFile, Scores, Slice, SystemScore, TaskScore

LOW = 0.6  # a share of right answers below this is pointed out
FEW = 5  # questions, below which a row of right answers is left to scores.json
WIDEST_CONFUSION = 8  # classes; a wider table is in scores.json alone

# Per type of task: the metrics shown, the headline with its interval, and their headings.
_SHOWN: dict[str, list[tuple[str, str]]] = {
    "closed": [
        ("accuracy", "accu-\nracy"),
        ("balanced_accuracy", "balanced\naccuracy [95%]"),
        ("macro_f1", "macro\nF1"),
    ],
    "count": [
        ("exact", "exact\n[95%]"),
        ("within_one", "within\none"),
        ("mean_abs_error", "mean\nerror"),
    ],
    "box": [("mean_iou", "mean IoU\n[95%]"), ("acc_50", "IoU\n>= 0.5")],
    "json": [("field_accuracy", "right fields\n[95%]"), ("exact", "all\nright")],
    "text": [("token_f1", "word F1\n[95%]"), ("exact", "same\ntext")],
}
_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "exact": "exact count",
    "mean_iou": "mean IoU",
    "token_f1": "word F1",
    "field_accuracy": "right fields",
}
_TITLES = {
    "closed": "Closed questions (yes/no, or one of a list)",
    "count": "Counting (mean error: of the answers that give a number)",
    "box": "Boxes (compared in the frame of the picture; majority: the median box)",
    "json": "Reports (right fields: share of the true report's fields; parsed: valid JSON)",
    "text": "Free text (word F1: harmonic mean of the precision and recall of words)",
}


def print_scores(scores: Scores, console: Console | None = None) -> None:
    console = console or _console()

    def show(title: str, table: Table) -> None:
        console.print(f"\n[bold]{escape(title)}[/]")
        console.print(table)

    for line in _heading(scores):
        console.print(line)
    for warning in scores.warnings:
        console.print(f"[bold yellow]! {escape(warning)}[/]")
    for form in _SHOWN:
        tasks = [task for task in scores.tasks if _form(task) == form]
        if tasks:
            show(_TITLES[form], _overview(form, tasks))
    alarms = [task for task in scores.tasks if task.type == "yesno"]
    if alarms:
        show("Yes/no: false alarms and misses", _alarms(alarms))
    if any(task.slices for task in scores.tasks):
        show(f"Right answers by what is true (low: under {LOW:.0%})", _recalls(scores.tasks))
    for task in scores.tasks:
        if task.classes and len(task.classes) <= WIDEST_CONFUSION:
            show(f"{task.task}: true (rows), answered by tuned (columns)", _confusion(task))
    console.print("\n[bold]In words[/]")
    for task in scores.tasks:
        console.print(f"  {escape(_words(task))}")
    console.print(f"\n[dim]{_FOOTNOTE.format(resamples=scores.bootstrap.resamples)}[/]")


_FOOTNOTE = (
    "An answer that is missing or cannot be understood counts as wrong. [95%]: the interval that holds the "
    "true value 19 times in 20; {resamples} resamples of picture groups (Wilson's interval for shares of "
    "right answers). majority: always the commonest answer."
)


def _console() -> Console:
    """The terminal, or 100 columns where the output goes to a file or a pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the bars, under a locale without them
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=100 if piped else None, highlight=False)


def _heading(scores: Scores) -> list[str]:
    def models(source: InputFile) -> str:
        return escape(f"{', '.join(source.model_ids)} ({source.name})")

    lines = [f"[bold]tuned[/]: {models(scores.answers)}"]
    if scores.baseline_answers:
        lines.append(f"[bold]base[/]:  {models(scores.baseline_answers)}")
    return [*lines, f"[bold]truth[/]: {escape(scores.truth.name)}, {scores.truth.lines} questions"]


def _form(task: TaskScore) -> str:
    return "closed" if task.type in ("yesno", "class") else task.type


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)


def _value(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.2f}"


def _interval(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return "-"
    value = f"{estimate.value:{sign}.2f}"
    if estimate.low is None or estimate.high is None:
        return value
    return escape(f"{value} [{estimate.low:.2f}, {estimate.high:.2f}]")


def _spaced(name: str) -> str:
    """A class or label as words, so that a narrow column breaks between them."""
    return name.replace("_", " ")


def _percent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.0f}%"


def _overview(form: str, tasks: Sequence[TaskScore]) -> Table:
    """A row per task: the tuned model's values, then what the majority answer and the base score."""
    table = _table()
    shown = _SHOWN[form]
    compared = any(task.base for task in tasks)
    table.add_column("\ntask", overflow="fold")
    for heading in ("\nn", "\ngroups", "\nparsed", *(heading for _, heading in shown)):
        table.add_column(heading.replace("[", "\\["), justify="right", no_wrap=True)
    closed = form == "closed"
    table.add_column("majority\nacc / bal" if closed else "majo-\nrity", justify="right", no_wrap=True)
    if compared:
        table.add_column("base\nbal" if closed else "\nbase", justify="right", no_wrap=True)
        table.add_column("tuned - base\n\\[95%]", justify="right", no_wrap=True)
    for task in tasks:
        metrics = task.tuned.metrics
        cells = [escape(task.task), str(task.n), str(task.groups), _percent(metrics.get("parsed"))]
        for name, _ in shown:
            estimate = metrics.get(name)
            cells.append(_interval(estimate) if name == task.headline else _value(estimate))
        blind = [task.majority["accuracy"]] if closed else []
        blind.append(task.majority[task.headline])
        cells.append(" / ".join(f"{value:.2f}" for value in blind))
        if compared:
            cells.append(_value(task.base.metrics.get(task.headline) if task.base else None))
            cells.append(_difference(task.difference[task.headline] if task.difference else None))
        table.add_row(*cells)
    return table


def _difference(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return _interval(estimate, "+")
    style = "green" if estimate.low > 0 else "red" if estimate.high < 0 else "yellow"
    return f"[{style}]{_interval(estimate, '+')}[/]"


def _alarms(tasks: Sequence[TaskScore]) -> Table:
    table = _table()
    table.add_column("\ntask", overflow="fold")
    table.add_column("\nmodel")
    for heading in (
        "false alarms\n(no, said yes)",
        "misses\n(yes, not said)",
        "says yes\n[95%]",
        "truly\nyes",
    ):
        table.add_column(heading.replace("[", "\\["), justify="right", no_wrap=True)
    for task in tasks:
        systems: list[tuple[str, SystemScore | None]] = [("tuned", task.tuned), ("base", task.base)]
        for row, (name, system) in enumerate(systems):
            if system is None or system.per_class is None:
                continue
            rates = [_interval(system.metrics.get(rate)) for rate in ("over_call", "miss", "says_yes")]
            truly = f"{100 * system.per_class[0].support / task.n:.0f}%" if row == 0 else ""
            table.add_row(escape(task.task) if row == 0 else "", name, *rates, truly)
    return table


def _recalls(tasks: Sequence[TaskScore]) -> Table:
    """Which kinds are found: a pooled share can hide a kind that never is."""
    table = _table()
    compared = any(task.base for task in tasks)
    for heading in ("task", "what is true"):
        table.add_column(heading, overflow="fold")
    for heading in ("n", "groups", "right", "tuned \\[95%]"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    if compared:
        table.add_column("base", justify="right", no_wrap=True)
    for task in tasks:
        previous = ""
        # A share of three answers says nothing; many such rows hide those that do.
        large = [part for part in task.slices if part.n >= FEW]
        left_out = len(task.slices) - len(large)
        if left_out < 3:
            large, left_out = task.slices, 0
        for part in large:
            cells = [
                escape(task.task) if task.task != previous else "",
                escape(": ".join(_spaced(text) for text in (part.answer, part.label) if text)),
                str(part.n),
                str(part.groups),
                str(round(part.tuned.value * part.n)),
                _interval(part.tuned),
                _bar(part),
            ]
            previous = task.task
            table.add_row(*cells, *([_value(part.base)] if compared else []))
        if left_out:
            name = "" if large else escape(task.task)
            table.add_row(name, f"[dim]({left_out} with fewer than {FEW} questions each: scores.json)[/]")
    return table


def _bar(part: Slice) -> str:
    filled = round(10 * part.tuned.value)
    bar = "█" * filled + "·" * (10 - filled)
    return f"[bold red]{bar} low[/]" if part.tuned.value < LOW else f"[green]{bar}[/]"


def _confusion(task: TaskScore) -> Table:
    """Rows: what is true; columns: what tuned answered."""
    assert task.tuned.confusion is not None and task.tuned.per_class is not None
    table = _table()
    table.add_column("true", overflow="fold")
    classes = [row.name for row in task.tuned.per_class]
    for name in [*classes, "unparsed", "recall"]:
        table.add_column(escape(_spaced(name)), justify="right", overflow="fold", vertical="bottom")
    for index, (row, counts) in enumerate(zip(task.tuned.per_class, task.tuned.confusion, strict=True)):
        cells = [str(count) if count else "·" for count in counts]
        cells[index] = f"[bold]{cells[index]}[/]"
        table.add_row(escape(_spaced(row.name)), *cells, _value(row.recall))
    precisions = ["-" if row.precision is None else f"{row.precision:.2f}" for row in task.tuned.per_class]
    table.add_row("[dim]precision[/]", *precisions)
    return table


def _words(task: TaskScore) -> str:
    """The verdict, and what it would take no eyes to reach."""
    blind = [
        f"{what} {values[task.headline]:.2f}"
        for what, values in (("the commonest answer", task.majority), ("random guesses", task.random))
        if task.headline in values
    ]
    return f"{task.task} ({_NAMES[task.headline]}): {task.verdict}\n    without looking: {', '.join(blind)}"
