"""What a training run shows: tables at the start, a progress bar with rates, a line per validation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import TrainerCallback

from llava.model.lora import PartCount
from llava.train.duration import in_words
from llava.train.metrics import rates_text

Item = TypeVar("Item")

_LABELS = {
    "loss": "loss",
    "accuracy": "answers right",
    "yesno": "yes/no balanced",
    "said_yes": "said yes",
}


class Display(TrainerCallback, AbstractContextManager):
    """Shows progress on stderr; it is a context manager, so that the bar is closed whatever happens.

    `shown` is false on every process but the first; `verbose` shows what somebody wants who tunes the
    training itself. The bar lives on terminals; elsewhere the lines of `on_log` and `validation` show the
    progress.
    """

    def __init__(self, shown: bool, verbose: bool = False) -> None:
        self.verbose = verbose
        self.console = Console(stderr=True, quiet=not shown)
        self.trainer: Any = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self._task: Any = None

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def track(self, items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
        """Yield the items and move a bar along with them; `total` is None where nobody knows how many."""
        task = self._progress.add_task(description, total=total, rates="")
        for item in items:
            yield item
            self._progress.advance(task)
        self._progress.remove_task(task)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step
        self._task = self._progress.add_task("step", total=state.max_steps, rates="")
        self._progress.update(self._task, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rates = rates_text(self.trainer.meter.average(), verbose=self.verbose)
        self._progress.update(self._task, completed=state.global_step, rates=rates)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        parts = [f"step {state.global_step}/{state.max_steps}", f"loss {logs['loss']:.4f}"]
        parts.append(rates_text(logs, verbose=self.verbose))
        if self.verbose:
            rate = logs.get("learning_rate_language", logs["learning_rate"])
            parts.append(f"learning rate {rate:.2g}  gradient norm {logs['grad_norm']:.2g}")
            parts.append(f"{logs['step_seconds']:.2f} s/step  peak memory {logs['peak_memory_gb']:.1f} GB")
        if left := state.max_steps - state.global_step:
            step_seconds = (time.monotonic() - self._started) / (state.global_step - self._first_step)
            parts.append(f"{in_words(left * step_seconds)} left")
        self.console.print("  ".join(parts), highlight=False, soft_wrap=True)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        text = "  ".join(
            f"{_LABELS[name]} {value:.4f}" if name == "loss" else f"{_LABELS[name]} {value:.1%}"
            for name, value in figures.items()
        )
        self.console.print(f"[bold]validation at step {step}[/bold]  {text}", highlight=False, soft_wrap=True)


def parameter_table(counts: Mapping[str, PartCount]) -> Table:
    """Tabulate the parameters of each part and how many of them are trained."""
    table = Table(title="Parameters")
    table.add_column("part")
    for column in ("total", "trained", "frozen"):
        table.add_column(column, justify="right")
    for part, (total, trained) in counts.items():
        table.add_row(part, f"{total:,}", f"{trained:,}", f"{total - trained:,}")
    total = sum(count.total for count in counts.values())
    trained = sum(count.trainable for count in counts.values())
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trained:,} ({trained / total:.2%})", f"{total - trained:,}")
    return table


def plan_table(rows: Mapping[str, str]) -> Table:
    """Tabulate the rows of a plan."""
    table = Table(title="Training", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
