"""The tables that `python -m eval.score` prints; readable at 100 columns, in a log as on a screen."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from eval.report.phrases import probability
from eval.report.verdict import summarise_standings
from eval.scoring.schema import Estimate, Scores, Slice, SystemScore, TaskScore
from llava.common.records import InputFile

LOW = 0.6  # a fraction of right answers below this is marked
FEW = 5  # questions; a row of fewer is left to scores.json
_SIZES = "small < 1%, medium, large > 10% of the picture"
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
METRIC_NAMES = {
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
    """Print all tables, then the comparisons and verdicts in words."""
    console = console or make_console()
    for line in _heading(scores):
        console.print(line)
    for warning in scores.warnings:
        console.print(f"[bold yellow]! {escape(warning)}[/]")
    for title, content in _tables(scores):
        console.print(f"\n[bold]{escape(title)}[/]")
        console.print(content)
    console.print("\n[bold]In words[/]")
    for task in scores.tasks:
        console.print(f"  {escape(_verdict_words(task))}")
    console.print(f"\n{escape(scores.verdict)}")
    console.print(escape(summarise_standings(scores)))
    if scores.probe:
        console.print(f"General questions ({scores.probe.whole.n}): {escape(scores.probe.verdict)}.")
    console.print(f"\n[dim]{_FOOTNOTE.format(resamples=scores.bootstrap.resamples)}[/]")


def _tables(scores: Scores) -> Iterator[tuple[str, Table | Group]]:
    """Yield the tables with their titles; below the probabilities, where to call yes."""
    for answer_form in _SHOWN:
        tasks = [task for task in scores.tasks if _answer_form(task) == answer_form]
        if tasks:
            yield _TITLES[answer_form], _overview_table(answer_form, tasks)
    if yes_no := [task for task in scores.tasks if task.type == "yesno"]:
        yield "Yes/no: false alarms and misses", _alarm_table(yes_no)
    if any(_by_truth(task) for task in scores.tasks):
        yield f"Right answers by what is true (low: under {LOW:.0%})", _recall_table(scores.tasks)
    if with_choices := [task for task in scores.tasks if task.tuned.choices]:
        thresholds = map(escape, threshold_lines(with_choices))
        yield "Probabilities of the choices", Group(_probability_table(with_choices), *thresholds)
    if slices := [(task.task, part) for task in scores.tasks for part in task.slices if part.by != "truth"]:
        yield f"By source, and size of the box ({_SIZES}; yes/no: found)", _slice_table(slices)
    if scores.slices:
        yield "All tasks together", _slice_table([("", part) for part in scores.slices])
    if texts := [task for task in scores.tasks if "rouge_l" in task.tuned.metrics]:
        yield "Free text, other measures (BLEU 0 to 1, CIDEr 0 to 10)", _text_table(texts)
    for task in scores.tasks:
        if task.classes and len(task.classes) <= WIDEST_CONFUSION:
            yield f"{task.task}: true (rows), answered by tuned (columns)", _confusion_table(task)


_FOOTNOTE = (
    "An answer that is missing or cannot be understood counts as wrong. [95%]: the interval that holds the "
    "true value 19 times in 20; {resamples} resamples of picture groups (Wilson's interval for shares of "
    "right answers). majority: always the commonest answer. blind: what the questions' words and boxes tell."
)


def make_console() -> Console:
    """Return the terminal's console, or one of 100 columns where the output goes to a file or a pipe."""
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


def _answer_form(task: TaskScore) -> str:
    return "closed" if task.type in ("yesno", "class") else task.type


def new_table(gap: int = 2) -> Table:
    return Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)


def _value(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.2f}"


def interval_text(estimate: Estimate | None, sign: str = "", escaped: bool = True) -> str:
    """Return `0.86 [0.81, 0.92]`; `sign` is a format's, `escaped` for rich's markup."""
    if estimate is None:
        return "-"
    value = f"{estimate.value:{sign}.2f}"
    if estimate.low is None or estimate.high is None:
        return value
    text = f"{value} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return escape(text) if escaped else text


def _with_spaces(name: str) -> str:
    """Return a class or label as words, so that a narrow column breaks between them."""
    return name.replace("_", " ")


def _percent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.0f}%"


def _overview_table(answer_form: str, tasks: Sequence[TaskScore]) -> Table:
    """Return a row per task: the values of tuned, then what the majority answer and base score."""
    table = new_table(gap=1)
    columns = _SHOWN[answer_form]
    compared = any(task.base for task in tasks)
    guessed = any(task.blind for task in tasks)
    table.add_column("\ntask", overflow="fold")
    for heading in ("\nn", "\ngroups", "\nparsed", *(heading for _, heading in columns)):
        table.add_column(heading.replace("[", "\\["), justify="right", no_wrap=True)
    closed = answer_form == "closed"
    table.add_column("majority\nacc/bal" if closed else "majo-\nrity", justify="right", no_wrap=True)
    if guessed:
        table.add_column("blind\nbal" if closed else "\nblind", justify="right", no_wrap=True)
    if compared:
        table.add_column("base\nbal" if closed else "\nbase", justify="right", no_wrap=True)
        table.add_column("tuned - base\n\\[95%]", justify="right", no_wrap=True)
    for task in tasks:
        metrics = task.tuned.metrics
        cells = [escape(task.task), str(task.n), str(task.groups), _percent(metrics.get("parsed"))]
        for name, _ in columns:
            estimate = metrics.get(name)
            cells.append(interval_text(estimate) if name == task.headline else _value(estimate))
        baselines = [task.majority["accuracy"]] if closed else []
        baselines.append(task.majority[task.headline])
        cells.append("/".join(f"{value:.2f}" for value in baselines))
        if guessed:
            cells.append(f"{task.blind[task.headline]:.2f}" if task.blind else "-")
        if compared:
            cells.append(_value(task.base.metrics.get(task.headline) if task.base else None))
            difference = task.difference[task.headline] if task.difference else None
            cells.append(_difference(difference, guess=task.outcome == "blind"))
        table.add_row(*cells)
    return table


def _difference(estimate: Estimate | None, guess: bool = False) -> str:
    """Return a difference in the colour of what it means; `guess`: a blind guess may do as well."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return interval_text(estimate, "+")
    style = "yellow" if guess else "green" if estimate.low > 0 else "red" if estimate.high < 0 else "yellow"
    return f"[{style}]{interval_text(estimate, '+')}[/]"


def _alarm_table(tasks: Sequence[TaskScore]) -> Table:
    table = new_table()
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
            rates = [interval_text(system.metrics.get(rate)) for rate in ("over_call", "miss", "says_yes")]
            truly = f"{100 * system.per_class[0].support / task.n:.0f}%" if row == 0 else ""
            table.add_row(escape(task.task) if row == 0 else "", name, *rates, truly)
    return table


def _recall_table(tasks: Sequence[TaskScore]) -> Table:
    """Return the right answers by what is true: a pooled figure can hide a class that is never found."""
    table = new_table()
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
        by_truth = _by_truth(task)
        listed = [part for part in by_truth if part.n >= FEW]
        left_out = len(by_truth) - len(listed)
        if left_out < 3:
            listed, left_out = by_truth, 0
        for part in listed:
            cells = [
                escape(task.task) if task.task != previous else "",
                escape(": ".join(_with_spaces(text) for text in (part.answer, part.label) if text)),
                str(part.n),
                str(part.groups),
                str(round(part.tuned.value * part.n)),
                interval_text(part.tuned),
                _bar(part),
            ]
            previous = task.task
            table.add_row(*cells, *([_value(part.base)] if compared else []))
        if left_out:
            name = "" if listed else escape(task.task)
            table.add_row(name, f"[dim]({left_out} with fewer than {FEW} questions each: scores.json)[/]")
    return table


def _by_truth(task: TaskScore) -> list[Slice]:
    return [part for part in task.slices if part.by == "truth"]


def _probability_table(tasks: Sequence[TaskScore]) -> Table:
    """Return the metrics of the probabilities, of tuned and of base."""
    table = new_table()
    table.add_column("\ntask", overflow="fold")
    for heading in ("\nmodel", "\nn"):
        table.add_column(heading)
    for heading in ("AUROC\n\\[95%]", "average\nprecision", "calibration\nerror", "\nBrier"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in tasks:
        for row, (name, system) in enumerate((("tuned", task.tuned), ("base", task.base))):
            if system is None or system.choices is None:
                continue
            values = system.choices.metrics
            cells = [_value(values.get(metric)) for metric in ("average_precision", "ece", "brier")]
            task_cell = escape(task.task) if row == 0 else ""
            table.add_row(task_cell, name, str(system.choices.n), interval_text(values.get("auroc")), *cells)
    return table


def threshold_lines(tasks: Sequence[TaskScore]) -> list[str]:
    """Return in words where to call yes, for each yes/no task that a threshold helps."""
    lines = []
    for task in tasks:
        threshold = task.tuned.choices.threshold if task.tuned.choices else None
        if threshold is None or not threshold.separates:
            continue
        line = (
            f"{task.task}: to miss at most {threshold.miss_rate:.0%}, call yes from P(yes) = "
            f"{probability(threshold.threshold)}: misses {threshold.miss:.0%}, false alarms "
            f"{threshold.over_call:.0%} on the pictures it was chosen from"
        )
        if threshold.cross_miss and threshold.cross_over_call:
            misses, alarms = (
                interval_text(rate, escaped=False)
                for rate in (threshold.cross_miss, threshold.cross_over_call)
            )
            line += f"; on others (cross-fitted): misses {misses}, false alarms {alarms}"
        lines.append(line)
    return lines


def _slice_table(slices: Sequence[tuple[str, Slice]]) -> Table:
    """Return a row per slice, with its task; those of few questions say nothing and are only counted."""
    listed = [(task, part) for task, part in slices if part.n >= FEW]
    table = new_table()
    compared = any(part.base for _, part in slices)
    for heading in ("task", "part"):
        table.add_column(heading, overflow="fold")
    for heading in ("n", "groups", "tuned \\[95%]", *(("base", "tuned - base") if compared else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for task, part in listed:
        cells = [escape(task) if task != previous else "", escape(part.name), str(part.n), str(part.groups)]
        cells.append(interval_text(part.tuned))
        previous = task
        table.add_row(*cells, *((_value(part.base), _difference(part.difference)) if compared else ()))
    if left_out := len(slices) - len(listed):
        table.add_row("", f"[dim]({left_out} with fewer than {FEW} questions each: scores.json)[/]")
    return table


def _text_table(tasks: Sequence[TaskScore]) -> Table:
    table = new_table()
    table.add_column("task", overflow="fold")
    table.add_column("model")
    for heading in ("ROUGE-L \\[95%]", "BLEU", "CIDEr"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in tasks:
        for row, (name, system) in enumerate((("tuned", task.tuned), ("base", task.base))):
            if system is not None:
                values = [_value(system.metrics.get(metric)) for metric in ("bleu", "cider")]
                rouge = interval_text(system.metrics.get("rouge_l"))
                table.add_row(escape(task.task) if row == 0 else "", name, rouge, *values)
    return table


def _bar(part: Slice) -> str:
    filled = round(10 * part.tuned.value)
    bar = "█" * filled + "·" * (10 - filled)
    return f"[bold red]{bar} low[/]" if part.tuned.value < LOW else f"[green]{bar}[/]"


def _confusion_table(task: TaskScore) -> Table:
    """Return the confusion matrix: a row per true class, a column per answer of tuned."""
    assert task.tuned.confusion is not None and task.tuned.per_class is not None
    table = new_table()
    table.add_column("true", overflow="fold")
    classes = [row.name for row in task.tuned.per_class]
    for name in [*classes, "unparsed", "recall"]:
        table.add_column(escape(_with_spaces(name)), justify="right", overflow="fold", vertical="bottom")
    for index, (row, counts) in enumerate(zip(task.tuned.per_class, task.tuned.confusion, strict=True)):
        cells = [str(count) if count else "·" for count in counts]
        cells[index] = f"[bold]{cells[index]}[/]"
        table.add_row(escape(_with_spaces(row.name)), *cells, _value(row.recall))
    precisions = ["-" if row.precision is None else f"{row.precision:.2f}" for row in task.tuned.per_class]
    table.add_row("[dim]precision[/]", *precisions)
    return table


def _verdict_words(task: TaskScore) -> str:
    """Return the comparison, and what blind guessing scores."""
    baselines = [
        f"{what} {values[task.headline]:.2f}"
        for what, values in (
            ("the commonest answer", task.majority),
            ("random guesses", task.random),
            ("a guess from the questions' words and boxes", task.blind),
        )
        if task.headline in values
    ]
    ceiling = task.ceiling.get(task.headline) if task.ceiling else None
    if ceiling is not None:
        baselines.append(f"a perfect answer, for its rounding, {ceiling:.2f}")
    name = METRIC_NAMES[task.headline]
    return f"{task.task} ({name}): {task.verdict}\n    without looking: {', '.join(baselines)}"
