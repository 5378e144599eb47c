"""Ways in which a run ends early: a signal, too little memory, an image that a worker process cannot read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from llava.common.errors import InputError
from llava.train.config import TrainSettings
from llava.train.sharded import is_sharded

_REPEAT_SECONDS = 5.0
"""Within this time torchrun's copy of a signal counts as the signal itself."""


class RunControl(TrainerCallback):
    """Ends a run with a checkpoint after the current step, once a signal has come and all processes know of
    it. It runs after transformers' own DefaultFlowCallback.

    `received` is the signal that this process got, `agreed` the one that all processes know of.
    """

    def __init__(self) -> None:
        self.received = 0
        self.agreed = 0
        self._received_at = 0.0

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Within, SIGTERM and SIGINT end the run after the current step; a second one ends it at once."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # A scheduler may signal every process, and torchrun passes on what it got: that is one signal.
        repeated = (
            "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._received_at < _REPEAT_SECONDS
        )
        if self.received and not repeated:
            raise SystemExit(128 + number)
        if not self.received:
            self.received, self._received_at = number, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size == 1:
            self.agreed = self.received
        if self.agreed:
            control.should_save = control.should_training_stop = True


@contextmanager
def explain_out_of_memory(settings: TrainSettings) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into an InputError that says what to change, the cheapest first."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        message = " ".join(str(error).split()).partition(". ")[0]
    else:
        return
    raise InputError(f"{message}; to need less, in this order: {'; '.join(_remedies(settings))}")


def _remedies(settings: TrainSettings) -> list[str]:
    remedies = []
    if settings.batch_size > 1:
        accumulation = settings.gradient_accumulation_steps * 2
        size = settings.batch_size // 2
        remedies.append(f"batch_size={size} gradient_accumulation_steps={accumulation} (the same steps)")
    if settings.gradient_checkpointing is not True:
        remedies.append("gradient_checkpointing=true")
    if settings.bits != 4 and not is_sharded(settings):
        remedies.append("bits=4")
    if settings.deepspeed is None and not settings.fsdp:
        remedies.append("several GPUs with a file of configs/deepspeed/")
    return [*remedies, "a smaller max_length or questions_per_picture"]


def unwrap_worker_error(error: InputError) -> InputError:
    """Take the error itself out of the traceback in which a DataLoader's worker wraps it."""
    mark = f"{InputError.__module__}.{InputError.__qualname__}: "
    return InputError(str(error).rpartition(mark)[2].strip())
