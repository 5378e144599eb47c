"""How long a run is, and how often it validates and saves: what `auto` stands for in these settings.

Few pictures have to be read often to be learned, and many would take days. So `epochs: auto` aims at a number
of pictures read (`AutoEpochs`), and everything that is counted in steps follows from theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.train.config import TrainSettings

_TIMES = 8
"""Validations of a run, and checkpoints, under `auto`."""
_PATIENCE = 1 / 2
"""The share of the validations that may bring nothing better before the run ends: a generous one, because the
low rates at the end of a cosine schedule often bring a better state after a long time without."""
_LEAST_PATIENCE = 3
_STEPS_TO_LOSE = 500
"""A killed run loses no more steps than these."""
_FALLING = 0.12
"""The fall of the validation loss over the second half of a run that shows that it was too short. On NEU-DET
it was 13% in one epoch (24% of the validation answers right), 38% in 3 (37%), 20% in 7 (60%) and 9% in 38
(97%)."""


@dataclass(frozen=True)
class Schedule:
    """What a run's settings come to, with every `auto` decided. `patience` is None if nothing ends the run
    early."""

    epochs: float
    epoch_steps: int
    steps: int
    eval_steps: int
    save_steps: int
    patience: int | None

    @property
    def validations(self) -> int:
        return math.ceil(self.steps / self.eval_steps)


def schedule_of(settings: TrainSettings, items: int, devices: int) -> Schedule:
    """Decide every `auto` for `items` pictures (or texts without one) on `devices` devices."""
    batches = math.ceil(items / (settings.batch_size * devices))
    epoch_steps = math.ceil(batches / settings.gradient_accumulation_steps)
    rule, epochs = settings.auto_epochs, settings.epochs
    if epochs == "auto":
        epochs = float(min(max(round(rule.pictures / items), rule.least), rule.most))
    steps = settings.max_steps or math.ceil(epochs * epoch_steps)
    every, save, patience = math.ceil(steps / _TIMES), settings.save_steps, settings.early_stopping_patience
    eval_steps = every if settings.eval_steps == "auto" else settings.eval_steps
    if settings.val_path is None:
        patience = None
    elif patience == "auto":
        patience = max(math.ceil(_PATIENCE * math.ceil(steps / eval_steps)), _LEAST_PATIENCE)
    return Schedule(
        epochs=epochs,
        epoch_steps=epoch_steps,
        steps=steps,
        eval_steps=eval_steps,
        save_steps=min(every, _STEPS_TO_LOSE) if save == "auto" else save,
        patience=patience,
    )


def decided(settings: TrainSettings, schedule: Schedule) -> TrainSettings:
    """Return the settings with the schedule's numbers in place of `auto`."""
    return settings.model_copy(
        update={
            "epochs": schedule.epochs,
            "eval_steps": schedule.eval_steps,
            "save_steps": schedule.save_steps,
            "early_stopping_patience": schedule.patience,
        }
    )


def notes_on(history: Sequence[Mapping[str, Any]], settings: TrainSettings) -> list[str]:
    """Say what a finished run's validations show about its length: a sentence with the remedy if it was too
    short.

    Args:
        history: The Trainer's log: entries with `step` and, of a validation, `eval_loss`.
        settings: The run's, with every `auto` decided.
    """
    losses = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    if not losses or losses[-1] != min(losses, key=lambda at: at[1]):
        return []
    last_step, last = losses[-1]
    first_half = [loss for step, loss in losses if step <= last_step / 2]
    if not first_half or (fall := 1 - last / min(first_half)) < _FALLING:
        return []
    if settings.max_steps is not None:
        longer = f"max_steps={2 * settings.max_steps}"
    else:
        longer = f"epochs={math.ceil(2 * float(settings.epochs))}"
    return [
        f"the validation loss was still falling at the end ({fall:.0%} over the second half): train longer "
        f"by {longer} (--resume auto goes on from here)"
    ]
