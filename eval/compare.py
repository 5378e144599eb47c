"""`eval.score --compare`: one table over runs that were scored against the same truth.

scores.json holds no answers, so two runs can be compared in pairs only where one was scored with the other's
answers as its base. Otherwise a difference is certain if the two intervals lie apart; where they overlap, it
may still be real, and these files cannot tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.markup import escape

from eval.report.console import METRIC_NAMES, interval_text, make_console, new_table
from eval.scoring.schema import Estimate, Scores, TaskScore
from llava.common.errors import InputError
from llava.common.files import first_problem, read_json


def read_scores(path: Path) -> Scores:
    """Of a file, or of the folder that holds scores.json. InputError for another format or version."""
    file = path / "scores.json" if path.is_dir() else path
    found = read_json(file)
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(found, dict) and version != Scores.model_fields["version"].default:
        raise InputError(f"{file}: scores of version {version!r}; score the answers again")
    try:
        return Scores.model_validate_json(json.dumps(found))
    except ValidationError as error:
        raise InputError(f"{file}: no scores.json of eval.score ({first_problem(error)})") from None


def compare(paths: Sequence[Path]) -> None:
    runs = [read_scores(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if run.truth.sha256 != runs[0].truth.sha256:
            raise InputError(
                f"{path} was scored against another truth ({run.truth.name}) than {paths[0]} "
                f"({runs[0].truth.name}): other questions; score both against one file"
            )
    console = make_console()
    names = [letter for letter, _ in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", runs, strict=False)]
    if len(runs) > len(names):
        raise InputError(f"--compare: {len(runs)} runs are more than a table holds; {len(names)} at most")
    for name, path, run in zip(names, paths, runs, strict=True):
        models = ", ".join(run.answers.model_ids)
        console.print(f"[bold]{name}[/]  {escape(str(path))}: {escape(models)}", soft_wrap=True)
    console.print(f"truth: {escape(runs[0].truth.name)}, {runs[0].truth.lines} questions\n")

    table = new_table()
    table.add_column("task", overflow="fold")
    for heading in ("metric", "n", *names, "blind"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for index, task in enumerate(runs[0].tasks):
        cells = [_headline(run.tasks[index]) for run in runs]
        best = max(run.tasks[index].tuned.metrics[task.headline].value for run in runs)
        shown = [f"[bold]{_two_lines(cell)}[/]" if cell.value == best else _two_lines(cell) for cell in cells]
        blind = max(values.get(task.headline, 0.0) for values in (task.majority, task.random))
        table.add_row(escape(task.task), METRIC_NAMES[task.headline], str(task.n), *shown, f"{blind:.2f}")
    if any(run.probe for run in runs):
        probes = [_two_lines(run.probe.whole.tuned) if run.probe else "-" for run in runs]
        table.add_row("(general questions)", "right answers", "", *probes, "")
    console.print(table)

    console.print("\n[bold]Against A[/]")
    for name, run in list(zip(names, runs, strict=True))[1:]:
        for first, second in zip(runs[0].tasks, run.tasks, strict=True):
            words = _against(runs[0], run, first, second)
            console.print(f"  {escape(second.task)}: {name} {escape(words)}", soft_wrap=True)
    console.print(f"\n[dim]{_RESTS_ON}[/]")


_RESTS_ON = (
    "blind: what the commonest answer, or random ones, would score without looking. "
    "In pairs: one run was scored with the other's answers as --baseline-answers, and its file holds the "
    "difference. Otherwise these files hold intervals alone: where two lie apart the difference is real, "
    "where they overlap that is not known. To know, score one run with the other's answers as "
    "--baseline-answers."
)


def _two_lines(estimate: Estimate) -> str:
    return interval_text(estimate).replace(" ", "\n", 1)


def _headline(task: TaskScore) -> Estimate:
    return task.tuned.metrics[task.headline]


def _against(first: Scores, second: Scores, one: TaskScore, two: TaskScore) -> str:
    a, b = _headline(one), _headline(two)
    pair = None
    if second.baseline_answers and second.baseline_answers.sha256 == first.answers.sha256:
        pair = two.difference[two.headline] if two.difference else None
    elif first.baseline_answers and first.baseline_answers.sha256 == second.answers.sha256:
        other = one.difference[one.headline] if one.difference else None
        pair = other and _turned(other)
    if pair is not None and pair.low is not None and pair.high is not None:
        decided = "better" if pair.low > 0 else "WORSE" if pair.high < 0 else "not decided"
        return f"{decided}, in pairs: {interval_text(pair, '+', escaped=False)}"
    if second.answers.sha256 == first.answers.sha256:
        return "the same answers"
    difference = f"{b.value - a.value:+.2f}"
    if None in (a.low, a.high, b.low, b.high):
        return f"not known: {difference}, without intervals"
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    if b.low > a.high or b.high < a.low:
        return f"{'better' if b.value > a.value else 'WORSE'}, intervals apart: {difference}"
    return f"not known, intervals overlap: {difference}"


def _turned(estimate: Estimate) -> Estimate:
    """The difference the other way round."""
    assert estimate.low is not None or estimate.high is None
    low, high = estimate.low, estimate.high
    return Estimate(
        value=-estimate.value, low=None if high is None else -high, high=None if low is None else -low
    )
