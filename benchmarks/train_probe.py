"""Watches a transformers Trainer from outside: time, tokens, losses, memory and the work that was needed.

Ours and TRL's are both that Trainer underneath, so one probe measures both alike.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from transformers import Trainer, TrainerCallback

from benchmarks.train_job import Job
from benchmarks.train_profile import Profile
from llava.train.data.packing import IGNORE, branch_mask


class Probe(TrainerCallback):
    """Give it to every Trainer of this process with `install`; read `figures` after training."""

    def __init__(self, job: Job, pad_token_id: int) -> None:
        self.job = job
        self.pad_token_id = pad_token_id
        self.losses: list[torch.Tensor] = []
        self.counts: list[dict[str, Any]] = []
        self.record_ids: list[str] = []
        self.pairs_per_token = 0.0
        self.seconds = self.cpu_seconds = 0.0
        self.peak_mib = 0.0
        self.attention = ""
        self.parts: dict[str, float] = {}
        self._profile: Profile | None = None

    def install(self) -> None:
        inner = Trainer.training_step

        def training_step(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            self._read(inputs)
            loss = inner(trainer, model, inputs, *args, **kwargs)
            self.losses.append(loss.detach())
            return loss

        Trainer.training_step = training_step  # type: ignore[method-assign]  # what a probe is for
        transformers.trainer.DEFAULT_CALLBACKS.append(self)  # type: ignore[arg-type]  # instances are taken too

    def _read(self, inputs: dict[str, Any]) -> None:
        # Tensors stay where they are: a copy to the host would make a GPU wait.
        targets = inputs["targets"] if "targets" in inputs else inputs["labels"][:, 1:]
        tokens = (inputs["input_ids"] != self.pad_token_id).sum()
        self.counts.append(
            {
                "read": tokens,
                "padded": inputs["input_ids"].numel(),
                "supervised": (targets != IGNORE).sum(),
                "images": len(inputs["pixel_values"]),
            }
        )
        self.record_ids += inputs.get("record_ids", [])
        if len(self.counts) == 1:  # not in the measured time
            self.pairs_per_token = attended_pairs(inputs, self.pad_token_id) / int(tokens)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _reset_peak(self.job.device)
        self.attention = str(kwargs["model"].config._attn_implementation)
        if self.job.profile:
            self._profile = Profile(kwargs["model"], cuda=self.job.device == "cuda")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step not in (self.job.warm_steps, self.job.warm_steps + self.job.steps):
            return
        if self.job.device == "cuda":
            torch.cuda.synchronize()
        now, cpu_now = time.perf_counter(), time.process_time()
        if state.global_step == self.job.warm_steps:
            if self._profile is not None:
                self._profile.start()
            self.seconds, self.cpu_seconds = -time.perf_counter(), -time.process_time()
            return
        self.seconds += now
        self.cpu_seconds += cpu_now
        self.peak_mib = _peak_mib(self.job.device)
        if self._profile is not None:
            self.parts = self._profile.stop(self.seconds)

    def figures(self, config: Any, lora_rank: int) -> dict[str, Any]:
        """Sums over the measured steps, the first loss and the last measured one."""
        measured = self.counts[self.job.warm_steps : self.job.warm_steps + self.job.steps]
        sums = {name: sum(int(count[name]) for count in measured) for name in measured[0]}
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,  # of all threads; wavers less on a busy machine
            "records": self.job.batch * self.job.steps,
            **sums,
            "peak_mib": self.peak_mib,
            "flops": needed_flops(config, lora_rank, pairs=self.pairs_per_token * sums["read"], **sums),
            "first_loss": float(self.losses[0]),
            "last_loss": float(self.losses[self.job.warm_steps + self.job.steps - 1]),
            "parts": self.parts,
        }


def attended_pairs(inputs: dict[str, Any], pad_token_id: int) -> float:
    """How often a token looks at a token: by the batch's (B, 1, T, T) mask, by its `group` and `branch`, of
    which flex attention's blocks are made, or by causal attention within (B, T) padded rows."""
    mask = inputs.get("attention_mask", inputs["input_ids"] != pad_token_id)
    if "group" in inputs:
        mask = branch_mask(inputs["group"], inputs["branch"])
    if mask.ndim == 2:
        lengths = mask.sum(dim=1).double()
        return float((lengths * (lengths + 1) / 2).sum())
    return float((mask if mask.dtype == torch.bool else mask == 0).sum())


def needed_flops(
    config: Any,
    lora_rank: int,
    *,
    read: int,
    supervised: int,
    images: int,
    pairs: float,
    padded: int,
) -> float:
    """Floating-point operations that these tokens and pictures need, recomputation and padding not counted.

    A product with a frozen weight costs 2 operations a weight and token forwards and 2 backwards; an adapter
    2 more for its own gradient; a pair of tokens in attention 4 h forwards and twice that backwards. The
    frozen tower and projector only run forwards, the tower up to the layer that is read, and the LM head
    at supervised tokens.
    """
    text, vision = config.text_config, config.vision_config
    h, ffn = text.hidden_size, text.intermediate_size
    kv = h * text.num_key_value_heads // text.num_attention_heads
    shapes = [(h, h), (h, kv), (h, kv), (h, h), (h, ffn), (h, ffn), (ffn, h)]
    weights = sum(a * b for a, b in shapes)
    adapters = sum(lora_rank * (a + b) for a, b in shapes)
    language = text.num_hidden_layers * ((4 * weights + 6 * adapters) * read + 12 * h * pairs)
    language -= (
        2 * (h * h + 2 * h * kv + 3 * lora_rank * h) * read
    )  # nothing is trained before layer 0's q, k, v
    head = 4 * h * text.vocab_size * supervised
    v, vision_ffn = vision.hidden_size, vision.intermediate_size
    patches = (vision.image_size // vision.patch_size) ** 2
    seen = patches + 1  # the class token
    layers = vision.num_hidden_layers + 1 + config.vision_feature_layer
    layer = 2 * (4 * v * v + 2 * v * vision_ffn) * seen + 4 * v * seen**2
    embedding = 2 * 3 * vision.patch_size**2 * v * patches
    projector = 2 * (v * h + h * h) * patches
    return float(language + head + images * (layers * layer + embedding + projector))


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM starts again (proc(5))


def _peak_mib(device: str) -> float:
    """Allocated on the GPU, or resident in this process, at most since the training began."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
