"""A run's figures while it trains (speed, rates, memory, answers), for the console and every tracker."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from llava.common.files import write_text
from llava.train.runs import TENSORBOARD
from llava.train.validation import Answer

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SHOWN_ANSWERS = 20  # sent to a tracker at each validation; the file has all of them


class Meter(TrainerCallback):
    """Counts the tokens and images that all processes read, and the time without validation and saving."""

    def __init__(self) -> None:
        self._read = self._read_before = torch.zeros(3, dtype=torch.int64)  # tokens, supervised, images
        self._paused = self._paused_before = 0.0  # seconds
        self._steps = self._steps_before = 0
        self._started = self._time_before = time.monotonic()
        self._rates: dict[str, float] = {}

    def count(self, read: torch.Tensor) -> None:
        """Add what the step that begins reads: (3,) int64 tokens, supervised tokens, images."""
        self._read = self._read + read

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the time within out of the training time."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - started

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._time_before = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        groups = kwargs["optimizer"].param_groups
        self._rates = {f"learning_rate_{group['name']}": float(group["lr"]) for group in groups}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps += 1

    def figures(self) -> dict[str, float]:
        """Return the figures since the last call: rates a second, seconds a step; with the learning rate of
        each part and this process's peak memory so far in GB (CUDA's allocator, or the process on a CPU)."""
        now = time.monotonic()
        seconds = now - self._time_before - (self._paused - self._paused_before)
        figures = _rates(self._read - self._read_before, seconds)
        figures["step_seconds"] = seconds / max(self._steps - self._steps_before, 1)
        self._time_before, self._paused_before = now, self._paused
        self._read_before, self._steps_before = self._read, self._steps
        return figures | self._rates | {"peak_memory_gb": peak_memory() / 1e9}

    def average(self) -> dict[str, float]:
        """Return the rates a second since the start."""
        return _rates(self._read, time.monotonic() - self._started - self._paused)


def _rates(read: torch.Tensor, seconds: float) -> dict[str, float]:
    names = ("tokens_per_second", "supervised_tokens_per_second", "pictures_per_second")
    return {name: count / max(seconds, 1e-9) for name, count in zip(names, read.tolist(), strict=True)}


def rates_text(figures: Mapping[str, float], *, verbose: bool = False) -> str:
    """Say how fast it goes: images a second (tokens, where there are none); if `verbose`, all rates."""
    images = f"{figures['pictures_per_second']:.1f} images/s"
    tokens = f"{figures['tokens_per_second']:.0f} tokens/s"
    if verbose:
        return f"{images}  {tokens}  {figures['supervised_tokens_per_second']:.0f} supervised tokens/s"
    return images if figures["pictures_per_second"] else tokens


def peak_memory() -> int:
    """Return the most bytes that CUDA's allocator, or on a CPU this process, has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts KiB


def set_tracker_folders(folder: Path) -> None:
    """Make wandb and tensorboard write below the run directory, unless their own variables say otherwise."""
    os.environ.setdefault("WANDB_DIR", str(folder))
    os.environ.setdefault("WANDB_PROJECT", "llava-inspect")
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / TENSORBOARD))


def append_answers(path: Path, step: int, answers: Sequence[Answer]) -> None:
    """Append a line of JSON for each answer of the validation at `step`."""
    with path.open("a", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps({"step": step} | answer._asdict(), ensure_ascii=False) + "\n")


def drop_answers_after(path: Path, step: int) -> None:
    """Remove the answers that a killed run gave after the checkpoint at `step`: it will give them again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # a kill may have left half a line
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            kept.append(line)
    write_text(path, "".join(kept))


def send_answers(callbacks: Sequence[Any], step: int, answers: Sequence[Answer]) -> None:
    """Send a table of some answers to those trackers among the Trainer's callbacks that show tables."""
    rows = [list(answer) for answer in answers[:_SHOWN_ANSWERS]]
    for callback in callbacks:
        kind = type(callback).__name__
        if kind == "WandbCallback":
            import wandb

            table = wandb.Table(columns=list(Answer._fields), data=rows)
            wandb.log({"validation_answers": table, "train/global_step": step})
        elif kind == "TensorBoardCallback" and callback.tb_writer is not None:
            lines = [Answer._fields, ["---"] * len(Answer._fields), *rows]
            cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
            text = "\n".join("| " + " | ".join(line) + " |" for line in cells)
            callback.tb_writer.add_text("validation_answers", text, step)
