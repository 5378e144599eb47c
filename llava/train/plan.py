"""The plan of a training run: steps, tokens, the largest batch and the memory, without reading a weight.

The model is its structure alone, made from config.json on torch's meta device; the data is the real one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from transformers import TrainingArguments

from llava.common.errors import InputError
from llava.common.files import read_json
from llava.model.builder import empty_model
from llava.model.lora import attach
from llava.train.arguments import attention_implementation, weights_dtype
from llava.train.config import TrainSettings
from llava.train.data.packing import IGNORE
from llava.train.data.sampler import SPARE, global_batches
from llava.train.dataset import Collator, EpochSizes, RecordSet, TrainingSet
from llava.train.duration import Speed, Work, guess_speed, in_words, measure_speed, run_seconds
from llava.train.float32_attention import SDPA_FLOAT32
from llava.train.memory import (
    Arithmetic,
    BatchSizes,
    ModelSizes,
    Sharding,
    estimate_memory,
    host_memory,
    sizes_of,
)
from llava.train.schedule import Schedule
from llava.train.sharded import zero_stage

_LIVE_PARAMETERS = 10**9  # DeepSpeed's default of stage3_max_live_parameters


@dataclass(frozen=True)
class Target:
    """The devices that a run is planned for; `memory` is that of one device in bytes."""

    device: str
    memory: int
    count: int = 1
    here: bool = False
    """Whether they are this machine's."""

    @classmethod
    def this_machine(cls, arguments: TrainingArguments) -> Target:
        """The devices of this machine; processes on a CPU share its memory."""
        if arguments.device.type == "cuda":
            memory = torch.cuda.get_device_properties(arguments.device).total_memory
            return cls("cuda", memory, arguments.world_size, here=True)
        memory = _machine_memory()
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return cls("cpu", memory // local, arguments.world_size, here=True)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse the value of --gpus: `4x80` is four GPUs of 80 GB, `24` is one of 24 GB."""
        count, _, memory = text.rpartition("x")
        try:
            target = cls("cuda", round(float(memory) * 1e9), int(count or 1))
        except ValueError:
            target = cls("cuda", 0)
        if target.memory <= 0 or target.count < 1:
            raise InputError(f"--gpus {text}: write their number and GB of memory, for instance 1x24 or 8x80")
        return target

    def __str__(self) -> str:
        name = "GPU" if self.device == "cuda" else "CPU process"
        return f"{self.count} {name}{'s' * (self.count > 1)} of {self.memory / 1e9:.0f} GB"


def _machine_memory() -> int:
    return psutil.virtual_memory().total


@dataclass(frozen=True)
class Plan:
    """What a run will do. `rows` are lines for the user by name; `parts` is the memory estimate of one device
    in bytes, `remedies` the estimate after a change of one setting."""

    rows: Mapping[str, str]
    target: Target
    parts: Mapping[str, int]
    remedies: Mapping[str, int]

    @property
    def fits(self) -> bool:
        return sum(self.parts.values()) <= self.target.memory

    @property
    def fits_comfortably(self) -> bool:
        """Whether it fits with room to spare, since an estimate may be too low."""
        return sum(self.parts.values()) <= 0.85 * self.target.memory


def speed_of(settings: TrainSettings, arguments: TrainingArguments, target: Target, config: Any) -> Speed:
    """Measure what a device of this machine computes, or guess it of others; `config` is the model's."""
    if not target.here:
        return guess_speed(target.memory)
    text, arithmetic = config.text_config, arithmetic_of(settings, arguments, target.device)
    return measure_speed(arguments.device, arithmetic, text.hidden_size, text.intermediate_size)


def meta_model(config: Any, settings: TrainSettings) -> PeftModel:
    """Build the model that `config` describes with its adapters attached, on the meta device."""
    with torch.device("meta"):
        model = empty_model(config)
        return attach(model, settings.lora, train_projector=not settings.freeze_projector)


@dataclass(frozen=True)
class DataSizes:
    """How much there is to read: the records of each file, the first epoch's tokens and its largest batch."""

    sets: Mapping[Path, RecordSet]
    epoch: EpochSizes
    batch: BatchSizes


def measure_data(
    settings: TrainSettings,
    examples: TrainingSet,
    sets: Mapping[Path, RecordSet],
    devices: int,
    config: Any,
) -> DataSizes:
    """Measure the data that `devices` devices will train the model of `config` on.

    Raises:
        InputError: A record is longer than the model's context.
    """
    _require_context(sets, config.text_config.max_position_embeddings)
    epoch = examples.measure()
    return DataSizes(sets, epoch, find_largest_batch(settings, examples, epoch, devices, config))


def plan(
    settings: TrainSettings,
    arguments: TrainingArguments,
    target: Target,
    schedule: Schedule,
    speed: Speed,
    data: DataSizes,
    model: PeftModel,
) -> Plan:
    """Plan a run.

    Args:
        settings: The run's settings.
        arguments: The Trainer's arguments on this machine.
        target: The devices to plan for.
        schedule: How long the run is, on those devices.
        speed: What one of them computes.
        data: How much there is to read (`measure_data`).
        model: The model with its adapters, on the meta device.
    """
    sizes = sizes_of(model)
    arithmetic = arithmetic_of(settings, arguments, target.device)
    epoch, batch, sets = data.epoch, data.batch, data.sets
    packed, unpacked, supervised = int(epoch.packed.sum()), epoch.unpacked, epoch.supervised
    sharding = sharding_of(settings, target.count, sizes)
    kind = f"{arithmetic.bits} bits" if arithmetic.bits else f"{8 * arithmetic.weights}-bit numbers"
    rows = {"base": settings.model_name_or_path, "devices": f"{target}, frozen weights in {kind}"}
    for path, records in sets.items():
        rows[str(path)] = f"{len(records.records):,} records in {len(records.examples):,} items"
    rows |= {
        "tokens an epoch": f"{packed:,} packed, {unpacked:,} without packing "
        f"({unpacked / packed:.1f} times), {supervised:,} supervised",
        "largest batch": f"{batch.rows} x {batch.length:,} tokens, {batch.supervised:,} supervised, "
        f"{batch.tiles} picture tiles",
    }
    rows |= _schedule_rows(settings, schedule)
    tiles = batch.tiles / min(settings.batch_size, len(epoch))  # of an item, at most
    work = Work(packed, batch.length, supervised, tiles * len(epoch))
    held_out = None if settings.val_path is None else sets[settings.val_path]
    read = validation_work(settings, held_out, batch.length, tiles) * schedule.validations
    learned = work * (schedule.steps / schedule.epoch_steps)
    seconds = run_seconds(sizes, arithmetic, sharding, learned, read, speed.flops)
    rows |= {"time": f"{in_words(seconds)}, {speed.source}", "run directory": str(settings.output_dir)}
    if target.device == "cuda":
        host = host_memory(sizes, arithmetic, sharding, settings.dataloader_workers)
        has = f" of this one's {_machine_memory() / 1e9:.0f} GB" if target.here else ""
        rows["machine's memory"] = f"at least {host / 1e9:.1f} GB{has}, beside that of the GPUs"
    parts = estimate_memory(sizes, batch, arithmetic, sharding)
    return Plan(rows, target, parts, _remedies(settings, sizes, batch, arithmetic, sharding))


def _schedule_rows(settings: TrainSettings, schedule: Schedule) -> dict[str, str]:
    """Say how long the run is, and how often it validates and saves."""
    epochs = f"{schedule.steps / schedule.epoch_steps:.3g}"
    rows = {"steps": f"{schedule.steps:,}: {epochs} epochs of {schedule.epoch_steps:,}"}
    if settings.val_path is not None:
        patience = f", until {schedule.patience} in a row are no better" if schedule.patience else ""
        rows["validation"] = f"every {schedule.eval_steps:,} steps{patience}"
    rows["checkpoints"] = f"every {schedule.save_steps:,} steps"
    return rows


def validation_work(settings: TrainSettings, held_out: RecordSet | None, length: int, tiles: float) -> Work:
    """Count what one validation reads: all held-out records for their loss, some once more to answer them."""
    if held_out is None:
        return Work(0, length, 0, 0)
    items = len(held_out.examples)
    answered = min(settings.eval_generate_samples / len(held_out.records), 1)
    table = held_out.table
    work = Work(int(table.group_lengths.values.sum()), length, int(table.supervised.sum()), tiles * items)
    return work * (1 + answered)


def _require_context(sets: Mapping[Path, RecordSet], context: int) -> None:
    for path, records in sets.items():
        longest = int(records.table.lengths.argmax())
        tokens = records.table.lengths[longest]
        if tokens > context:
            raise InputError(
                f"{path}, record {records.table.record_id(longest)!r}: {tokens} tokens, the model's "
                f"context is {context}; shorten it"
            )


def _remedies(
    settings: TrainSettings, model: ModelSizes, batch: BatchSizes, arithmetic: Arithmetic, sharding: Sharding
) -> dict[str, int]:
    """Estimate the memory after each change of a setting that would save some."""
    changed = {}
    if not arithmetic.checkpointing:
        other = replace(arithmetic, checkpointing=True)
        changed["gradient_checkpointing=true"] = estimate_memory(model, batch, other, sharding)
    if settings.batch_size > 1:
        share = settings.batch_size
        smaller = replace(
            batch,
            rows=math.ceil(batch.rows / share),
            supervised=math.ceil(batch.supervised / share),
            tiles=math.ceil(batch.tiles / share),
        )
        accumulated = settings.gradient_accumulation_steps * share
        name = f"batch_size=1 gradient_accumulation_steps={accumulated}"
        changed[name] = estimate_memory(model, smaller, arithmetic, sharding)
    if arithmetic.bits is None and not sharding.weights:
        changed["bits=4"] = estimate_memory(model, batch, replace(arithmetic, bits=4), sharding)
    return {name: sum(parts.values()) for name, parts in changed.items()}


def find_largest_batch(
    settings: TrainSettings, examples: TrainingSet, epoch: EpochSizes, processes: int, config: Any
) -> BatchSizes:
    """Make the largest batch of the current epoch as training makes it, and measure it."""
    hidden = int(config.text_config.hidden_size)
    batches = global_batches(epoch, settings.batch_size, processes, hidden)
    shares = (share for shares in batches for share in shares)
    lengths = epoch.packed.tolist()
    images = examples.records.processor.vision
    largest = max(shares, key=lambda share: sum(lengths[index] for index in share if index != SPARE))
    batch = Collator(images, settings.max_length, hidden, 0)([examples[index] for index in largest])
    rows, length = batch["input_ids"].shape
    tiles = batch["pixel_values"].shape[0] if "pixel_values" in batch else 0
    return BatchSizes(
        rows, length, int((batch["targets"] != IGNORE).sum()), tiles, config.vision_config.image_size
    )


def arithmetic_of(settings: TrainSettings, arguments: TrainingArguments, device: str) -> Arithmetic:
    """Describe how a run computes on `device` ("cuda" or "cpu"), which need not be this machine's."""
    if device == arguments.device.type:
        dtype, kind = weights_dtype(settings, arguments.device), attention_implementation(settings, arguments)
    else:
        dtype, kind = weights_dtype(settings, torch.device(device)), settings.attn_implementation
    size = dtype.itemsize
    return Arithmetic(
        device=device,
        compute=size,
        attention=4 if kind == SDPA_FLOAT32 else size,
        weights=size,
        checkpointing=settings.gradient_checkpointing is True,
        bits=settings.bits,
        dense_mask=kind in ("auto", "sdpa", SDPA_FLOAT32),
        dropout=settings.lora.dropout > 0,
    )


def sharding_of(settings: TrainSettings, devices: int, model: ModelSizes) -> Sharding:
    """Describe what DeepSpeed's file or FSDP divides among the devices; InputError if it is unusable."""
    if settings.fsdp:
        # Two layers at a time, the next one being fetched; embeddings and head are gathered throughout.
        gathered = 2 * model.linears // model.language.layers + model.frozen
        return Sharding(devices, optimizer=True, gradients=True, weights=True, gathered=gathered)
    stage = zero_stage(settings)
    if settings.deepspeed is None:
        return Sharding(devices)
    zero = read_json(settings.deepspeed)["zero_optimization"]

    def offloaded(part: str) -> bool:
        return (zero.get(f"offload_{part}") or {}).get("device", "none") != "none"

    live = zero.get("stage3_max_live_parameters", _LIVE_PARAMETERS)
    return Sharding(
        devices,
        optimizer=True,
        gradients=stage >= 2,
        weights=stage == 3,
        offload_optimizer=offloaded("optimizer"),
        offload_weights=offloaded("param"),
        gathered=_LIVE_PARAMETERS if live == "auto" else int(live),
    )
