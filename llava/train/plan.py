"""What a training run is about to do, before it does it."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import TrainingArguments

from llava.model.builder import LoadedModel
from llava.train.config import TrainSettings
from llava.train.dataset import RecordSet, TrainItems


def plan(
    settings: TrainSettings,
    arguments: TrainingArguments,
    items: TrainItems,
    loaded: LoadedModel,
    sets: dict[Path, RecordSet],
) -> dict[str, str]:
    """What is ahead, in words, for the table at the start."""
    packed, unpacked, supervised = items.token_counts()
    batches = math.ceil(len(items) / (settings.batch_size * arguments.world_size))
    epoch_steps = math.ceil(batches / settings.gradient_accumulation_steps)
    steps = settings.max_steps or math.ceil(settings.epochs * epoch_steps)
    rows = {
        "base": settings.model_name_or_path,
        "device": f"{arguments.device} x {arguments.world_size}, frozen weights {loaded.model.dtype}",
    }
    for path, records in sets.items():
        rows[str(path)] = f"{len(records.records):,} records in {len(records.sources):,} items"
    return rows | {
        "tokens an epoch": f"{packed:,} ({unpacked:,} without packing), {supervised:,} supervised",
        "steps": f"{steps:,} ({epoch_steps:,} an epoch)",
        "run directory": str(settings.output_dir),
    }
