"""`eval.score --compare`: one table over runs that were scored against the same truth.

scores.json holds no answers, so two runs can be compared in pairs only where one was scored with the other's
answers as its base. Otherwise a difference is certain if the two intervals do not overlap; where they do, it
may still be real, and these files cannot tell.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from eval.report.console import METRIC_NAMES, interval_text, make_console, new_table
from eval.scoring.schema import Estimate, Scores, TaskScore
from llava.common.errors import InputError
from llava.common.files import first_problem, read_json

_LETTERS = string.ascii_uppercase  # names of the runs


def read_scores(path: Path) -> Scores:
    """Read scores.json, named itself or by its folder; InputError for another format or version."""
    file = path / "scores.json" if path.is_dir() else path
    content = read_json(file)
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(content, dict) and version != Scores.model_fields["version"].default:
        raise InputError(f"{file}: scores of version {version!r}; score the answers again")
    try:
        return Scores.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(f"{file}: no scores.json of eval.score ({first_problem(error)})") from None


def compare_runs(paths: Sequence[Path]) -> None:
    """Print a table over runs, and how each differs from the first; InputError if their truths differ."""
    runs = [read_scores(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if run.truth.sha256 != runs[0].truth.sha256:
            raise InputError(
                f"{path} was scored against another truth ({run.truth.name}) than {paths[0]} "
                f"({runs[0].truth.name}): other questions; score both against one file"
            )
    if len(runs) > len(_LETTERS):
        raise InputError(f"--compare: {len(runs)} runs are more than a table holds; {len(_LETTERS)} at most")
    console = make_console()
    names = _LETTERS[: len(runs)]
    for name, path, run in zip(names, paths, runs, strict=True):
        models = ", ".join(run.answers.model_ids)
        console.print(f"[bold]{name}[/]  {escape(str(path))}: {escape(models)}", soft_wrap=True)
    console.print(f"truth: {escape(runs[0].truth.name)}, {runs[0].truth.lines} questions\n")
    console.print(_headline_table(names, runs))
    console.print("\n[bold]Against A[/]")
    for name, run in list(zip(names, runs, strict=True))[1:]:
        for first_task, task in zip(runs[0].tasks, run.tasks, strict=True):
            words = _against_first(runs[0], run, first_task, task)
            console.print(f"  {escape(task.task)}: {name} {escape(words)}", soft_wrap=True)
    console.print(f"\n[dim]{_FOOTNOTE}[/]")


def _headline_table(names: str, runs: Sequence[Scores]) -> Table:
    """Return a row per task: each run's headline metric, the best in bold."""
    table = new_table()
    table.add_column("task", overflow="fold")
    for heading in ("metric", "n", *names, "blind"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for index, task in enumerate(runs[0].tasks):
        headlines = [_headline(run.tasks[index]) for run in runs]
        best = max(headline.value for headline in headlines)
        cells = [
            f"[bold]{_two_lines(headline)}[/]" if headline.value == best else _two_lines(headline)
            for headline in headlines
        ]
        blind = f"{task.best_guess:.2f}"
        table.add_row(escape(task.task), METRIC_NAMES[task.headline], str(task.n), *cells, blind)
    if any(run.probe for run in runs):
        probes = [_two_lines(run.probe.whole.tuned) if run.probe else "-" for run in runs]
        table.add_row("(general questions)", "right answers", "", *probes, "")
    return table


_FOOTNOTE = (
    "blind: what the commonest answer, random ones, or a guess from the questions' words and boxes would "
    "score without looking. "
    "In pairs: one run was scored with the other's answers as --baseline-answers, and its file holds the "
    "difference. Otherwise these files hold intervals alone: where two lie apart the difference is real, "
    "where they overlap that is not known. To know, score one run with the other's answers as "
    "--baseline-answers."
)


def _two_lines(estimate: Estimate) -> str:
    return interval_text(estimate).replace(" ", "\n", 1)


def _headline(task: TaskScore) -> Estimate:
    return task.tuned.metrics[task.headline]


def _against_first(first: Scores, run: Scores, first_task: TaskScore, task: TaskScore) -> str:
    """Return in words how a run differs from the first in one task.

    Args:
        first: The first run.
        run: The run that is compared with it.
        first_task: The task's score in the first run.
        task: The same task's score in the other run.
    """
    paired = _paired_difference(first, run, first_task, task)
    if paired is not None and paired.low is not None and paired.high is not None:
        outcome = "better" if paired.low > 0 else "WORSE" if paired.high < 0 else "not decided"
        return f"{outcome}, in pairs: {interval_text(paired, '+', escaped=False)}{_guess(outcome, task)}"
    if run.answers.sha256 == first.answers.sha256:
        return "the same answers"
    old, new = _headline(first_task), _headline(task)
    difference = f"{new.value - old.value:+.2f}"
    if old.low is None or old.high is None or new.low is None or new.high is None:
        return f"not known: {difference}, without intervals"
    if new.low > old.high or new.high < old.low:
        outcome = "better" if new.value > old.value else "WORSE"
        return f"{outcome}, intervals apart: {difference}{_guess(outcome, task)}"
    return f"not known, intervals overlap: {difference}"


def _guess(outcome: str, task: TaskScore) -> str:
    """Return what takes the worth from a "better": that a guess without looking may do as well."""
    return "; but not shown to be better than a blind guess" if outcome == "better" and not task.sees else ""


def _paired_difference(first: Scores, run: Scores, first_task: TaskScore, task: TaskScore) -> Estimate | None:
    """Return run minus first, where one was scored with the other's answers as its base."""
    if run.baseline_answers and run.baseline_answers.sha256 == first.answers.sha256:
        return task.difference[task.headline] if task.difference else None
    if first.baseline_answers and first.baseline_answers.sha256 == run.answers.sha256:
        return _negate(first_task.difference[first_task.headline]) if first_task.difference else None
    return None


def _negate(estimate: Estimate) -> Estimate:
    """Return the difference in the opposite direction."""
    assert estimate.low is not None or estimate.high is None
    low, high = estimate.low, estimate.high
    return Estimate(
        value=-estimate.value, low=None if high is None else -high, high=None if low is None else -low
    )
