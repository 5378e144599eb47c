"""Where the time of a training step goes, by part of the model, from torch.profiler.

Forward operations lie within a range that is opened around each module; a backward operation carries the
sequence number of the forward operation that it belongs to, and so its part. Times are of the operation
itself without those it calls: on a CPU the calling thread's, on a GPU its kernels'.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

_RANGE = "part: "
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Profile:
    """Between `start` and `stop`."""

    def __init__(self, model: torch.nn.Module, *, cuda: bool) -> None:
        self._cuda = cuda
        for name, module in model.named_modules():
            part = _part_of_module(name)
            if part is not None:
                _put_range_around(module, part)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
        self._profile = profile(activities=activities)

    def start(self) -> None:
        self._profile.start()

    def stop(self, wall: float) -> dict[str, float]:
        """Seconds by part; what is left of `wall` seconds is Python between operations, and on a GPU its
        waiting."""
        self._profile.stop()
        events = [e for e in self._profile.events() or [] if e.device_type == DeviceType.CPU]
        of_forward: dict[tuple[int, int], tuple[float, str]] = {}
        for event in events:
            if event.sequence_nr >= 0 and not event.name.startswith("autograd::"):
                key, found = (event.thread, event.sequence_nr), _labelled(event)
                # The last operation that bears a number is the one that made the backward node.
                if found is not None and (
                    key not in of_forward or of_forward[key][0] <= event.time_range.start
                ):
                    of_forward[key] = (event.time_range.start, found)
        seconds: dict[str, float] = defaultdict(float)
        for event in events:
            part = _labelled(event) or _of_backward(event, of_forward) or "other"
            spent = event.self_device_time_total if self._cuda else event.self_cpu_time_total
            seconds[part] += spent / 1e6
        rest = "waiting for the CPU" if self._cuda else "Python between operations"
        seconds[rest] = max(wall - sum(seconds.values()), 0.0)
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _part_of_module(name: str) -> str | None:
    last = name.rpartition(".")[2]
    if last == "vision_tower":
        return "vision tower"
    if last == "multi_modal_projector":
        return "projector"
    if last == "lm_head":
        return "LM head and loss"
    if last == "language_model":
        return "language model: norms, activations, sums"
    if ".language_model." in name:
        if ".lora_" in name:
            return "language model: adapters" if last == "default" else None
        if last == "self_attn":
            return "language model: attention"
        if last in LINEAR:
            return "language model: linear layers"
    return None


def _put_range_around(module: torch.nn.Module, part: str) -> None:
    open_ranges: list[Any] = []

    def enter(*_: Any) -> None:
        opened = record_function(_RANGE + part)
        opened.__enter__()
        open_ranges.append(opened)

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)


def _labelled(event: Any) -> str | None:
    """The part of the nearest range around an operation."""
    while event is not None:
        name = event.name
        if name.startswith(_RANGE):
            return str(name.removeprefix(_RANGE))
        if name.startswith("enumerate(DataLoader)"):
            return "data"
        if name.startswith("Optimizer.") or "_foreach_" in name or "linalg_vector_norm" in name:
            return "optimiser"
        if any(word in name.lower() for word in ("cross_entropy", "nll_loss", "nllloss")):
            return "LM head and loss"
        event = event.cpu_parent
    return None


def _of_backward(event: Any, of_forward: dict[tuple[int, int], tuple[float, str]]) -> str | None:
    while event is not None:
        if event.name.startswith("autograd::engine::evaluate_function"):
            if "AccumulateGrad" in event.name:
                return "optimiser"
            found = of_forward.get((event.fwd_thread, event.sequence_nr))
            return found[1] if found else None
        event = event.cpu_parent
    return None
