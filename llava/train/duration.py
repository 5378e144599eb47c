"""Estimates how long a run takes: the arithmetic of its tokens over what the device computes a second.

A multiplication by a frozen matrix costs 2 FLOP a weight and token forward, as much again backward (the
gradient of its input alone) and, with gradient checkpointing, a second time forward (Korthikanti et al.,
arXiv 2205.05198, appendix A). What adapters, normalisation and reading images take is in the share that a
run gets of the device's speed. So the estimate is good to a factor of two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from llava.train.memory import FLOAT32, Arithmetic, ModelSizes, Sharding

_MEASURED_SECONDS = 0.5
_ROWS = 512
"""Of the matrix that is multiplied: a short batch's tokens."""
_SHARE = {"cuda": 0.4, "cpu": 0.35}
"""What training gets of the speed of a matrix multiplication: on a CPU as observed with the embedded base, of
a GPU's peak as papers report it for models of 7B and more."""
_QUANTISED_SHARE = 0.65
"""Of that, where each weight is turned from 4 or 8 bits into a number before it is used."""
_GPU_SPEEDS = ((20e9, 50e12), (30e9, 100e12), (38e9, 200e12), (float("inf"), 300e12))
"""FLOP/s in 16 bits that a GPU of less than so many bytes is taken to have: cards of 12 to 16 GB; 24 GB
(between an RTX 3090 and 4090); 32 GB; an A100, which an H100 beats threefold."""


@dataclass(frozen=True)
class Work:
    """What is read: `tokens` in rows of some `length`, `supervised` of them through the LM head, and `tiles`
    squares through the vision tower."""

    tokens: float
    length: int
    supervised: float
    tiles: float

    def __mul__(self, times: float) -> Work:
        return Work(self.tokens * times, self.length, self.supervised * times, self.tiles * times)


@dataclass(frozen=True)
class Speed:
    """FLOP/s of a device and, in words, how that is known."""

    flops: float
    source: str


def guess_speed(memory: int) -> Speed:
    """Guess what a GPU computes that is not here, by its bytes of memory."""
    flops = next(flops for below, flops in _GPU_SPEEDS if memory < below)
    return Speed(flops, f"if a GPU computes {flops / 1e12:.0f} TFLOP/s")


def measure_speed(device: torch.device, arithmetic: Arithmetic, hidden: int, intermediate: int) -> Speed:
    """Multiply matrices of a language model's sizes for half a second on a device of this machine."""
    kind = torch.float32 if arithmetic.compute == FLOAT32 else torch.bfloat16
    left = torch.randn(_ROWS, hidden, device=device).to(kind)
    right = torch.randn(hidden, intermediate, device=device).to(kind)
    done, started = -1, 0.0
    while done < 0 or time.perf_counter() - started < _MEASURED_SECONDS:
        product = left @ right
        product[0, 0].item()  # a GPU answers before it has computed
        done += 1
        started = started or time.perf_counter()  # the first one is slow
    seconds = time.perf_counter() - started
    return Speed(done * 2 * _ROWS * hidden * intermediate / seconds, "measured on this machine")


def run_seconds(
    model: ModelSizes,
    arithmetic: Arithmetic,
    sharding: Sharding,
    training: Work,
    validation: Work,
    speed: float,
) -> float:
    """Estimate the seconds of a run.

    Args:
        model: The model's sizes.
        arithmetic: How it computes.
        sharding: Over how many devices.
        training: All that the run reads to learn.
        validation: All that it reads to validate.
        speed: FLOP/s of a matrix multiplication on one device.
    """
    share = _SHARE[arithmetic.device] * (_QUANTISED_SHARE if arithmetic.bits else 1)
    total = _flops(model, arithmetic, training, learns=True) + _flops(
        model, arithmetic, validation, learns=False
    )
    return total / (speed * share * sharding.devices)


def _flops(model: ModelSizes, arithmetic: Arithmetic, work: Work, *, learns: bool) -> float:
    passes = 1 + learns + (learns and arithmetic.checkpointing)
    language = model.language
    attention = 2 * language.layers * language.attention * work.length * (passes + learns)
    vision, image_tokens = model.vision, work.tiles * model.vision_tokens
    tower = vision.layers * (4 * vision.hidden * vision.attention + 2 * vision.hidden * vision.intermediate)
    tower += vision.layers * 2 * vision.attention * model.vision_tokens
    head = model.vocabulary * language.hidden * (1 + learns)
    return 2 * (
        work.tokens * (model.linears * passes + attention)
        + image_tokens * tower * (passes if vision.lora_inputs else 1)
        + work.supervised * head
    )


def in_words(seconds: float) -> str:
    """Round to what an estimate can promise: `some 40 minutes`."""
    unit, length = "days", 24 * 3600
    for name, size, until in (("seconds", 1, 90), ("minutes", 60, 90 * 60), ("hours", 3600, 48 * 3600)):
        if seconds < until:
            unit, length = name, size
            break
    number = max(seconds / length, 1)
    return f"some {float(f'{number:.{1 if number < 10 else 2}g}'):g} {unit if number >= 1.5 else unit[:-1]}"
