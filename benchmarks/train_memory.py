"""How far the dry run's estimate of memory is from a measured peak.

    python -m benchmarks.train_memory [--model small|7b] [--dtype float32|bfloat16] [--questions 8]

Trains a LLaVA of random weights for two steps, in a process of its own for each case (packed or not, with and
without gradient checkpointing), and prints the peak beside llava/train/memory.py's estimate. On CUDA the peak
is the allocator's; on a CPU it is by how much the process grew, so the framework's share is in neither.
`small` (4 layers of 512) is for a CPU, `7b` has the shape of LLaVA-1.5-7B and wants a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from llava.model.lora import attach, leave_casting_to_autocast, set_dtype_of_trained
from llava.model.run_dir import LoraSettings
from llava.train.data.packing import (
    IGNORE,
    EncodedRecord,
    branch_mask,
    build_row,
    group_by_image,
    pack_rows,
    packed_loss,
)
from llava.train.memory import Arithmetic, BatchSizes, estimate_memory, sizes_of

PROMPT, QUESTION = 40, 60
"""Tokens before the picture and of each question with its answer, of which a third is supervised."""


def config_of(name: str) -> LlavaConfig:
    if name == "7b":
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                  "num_attention_heads": 16, "image_size": 336, "patch_size": 14}  # fmt: skip
        text = {"vocab_size": 32064, "max_position_embeddings": 4096}
    else:
        vision = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
                  "num_attention_heads": 4, "image_size": 336, "patch_size": 14}  # fmt: skip
        text = {"vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
                "num_attention_heads": 8, "num_key_value_heads": 8}  # fmt: skip
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**vision).to_dict(),
        text_config=LlamaConfig(**text).to_dict(),
        image_token_index=text["vocab_size"] - 1,
    )


def make_batch(config: LlavaConfig, images: int, questions: int, packing: bool) -> dict[str, Any]:
    """Rows as training makes them: `pictures`, each with `questions` about it."""
    rng = np.random.default_rng(0)
    tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    vocabulary = config.text_config.vocab_size - 1
    start = rng.integers(5, vocabulary, PROMPT)
    records = []
    for number in range(images * questions):
        ids = np.concatenate([start, np.full(tokens, vocabulary), rng.integers(5, vocabulary, QUESTION)])
        labels = np.where(np.arange(len(ids)) >= len(ids) - QUESTION // 3, ids, IGNORE)
        records.append(EncodedRecord.of(str(number), ids.tolist(), labels.tolist(), [str(number % images)]))
    groups = group_by_image(records, vocabulary, 4096, packing=packing)
    rows = [build_row(row) for row in pack_rows(groups, 4096, config.text_config.hidden_size)]
    length = max(len(row.input_ids) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        arrays = [getattr(row, name) for row in rows]
        return torch.from_numpy(
            np.stack([np.pad(a, (0, length - len(a)), constant_values=fill) for a in arrays])
        )

    seen = sum(len(row.images) for row in rows)
    side = config.vision_config.image_size
    return {
        "input_ids": padded("input_ids", 0),
        "position_ids": padded("position_ids", 0),
        "targets": padded("targets", IGNORE),
        "attention_mask": branch_mask(padded("group", -1), padded("branch", 0)),
        "pixel_values": torch.randn(seen, 3, side, side),
    }


def grown() -> int:
    """The most bytes that this process has held; Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The estimate's parts and the measured peak of one case, bytes."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    config = config_of(options.model)
    dtype = getattr(torch, options.dtype)
    before = 0 if cuda else grown()
    torch.set_default_dtype(dtype)
    with device:
        base = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    lora = LoraSettings(vision_targets=["q_proj", "v_proj", "fc1", "fc2"] if options.vision else [])
    model = attach(base, lora, train_projector=True)
    set_dtype_of_trained(model, torch.float32)
    if dtype == torch.bfloat16:
        leave_casting_to_autocast(model)
    if options.checkpointing:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    batch = make_batch(config, options.pictures, options.questions, options.packing)
    rows, length = batch["input_ids"].shape
    supervised = int((batch["targets"] != IGNORE).sum())
    small = 2 if dtype == torch.bfloat16 else 4
    parts = estimate_memory(
        sizes_of(model),
        BatchSizes(rows, length, supervised, len(batch["pixel_values"]), config.vision_config.image_size),
        Arithmetic(device.type, small, small, small, options.checkpointing),
    )
    del parts["framework"]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    model.train()
    for _ in range(2):
        moved = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=small == 2):
            total, count = packed_loss(model, moved)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated() if cuda else grown() - before
    return {"parts": parts, "measured": peak, "rows": rows, "length": length}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["small", "7b"], default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--pictures", type=int, default=2, help="in a batch")
    parser.add_argument("--questions", type=int, default=8, help="about each picture")
    parser.add_argument("--vision", action="store_true", help="adapters on the vision tower too")
    parser.add_argument("--packing", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options)))
        return
    for flags in ([], ["--packing"], ["--checkpointing"], ["--packing", "--checkpointing"]):
        # A fresh process for each: a peak never goes down. Freed memory goes back to the system at once.
        command = [sys.executable, "-m", "benchmarks.train_memory", *sys.argv[1:], *flags, "--case"]
        settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings)
        found = json.loads(done.stdout.splitlines()[-1])
        total = sum(found["parts"].values())
        print(
            f"{' '.join(flags) or 'plain':28} {found['rows']} rows of {found['length']}: estimated "
            f"{total / 1e9:.2f} GB, measured {found['measured'] / 1e9:.2f} GB, ratio "
            f"{total / found['measured']:.2f}"
        )
        for name, value in found["parts"].items():
            if value:
                print(f"    {name:34} {value / 1e9:8.3f} GB")


if __name__ == "__main__":
    main()
