"""The dry run's estimate of memory beside the peak of the training that it plans, config by config.

    python -m benchmarks.on_gpu_memory --output memory.json                # the five for one GPU
    python -m benchmarks.on_gpu_memory --configs llava15_7b_lora --output memory.json
    python -m benchmarks.on_gpu_memory --device cpu --output memory.json   # a small model, to try it out

Trains as `llava-inspect train CONFIG` does, for two steps of two batches, on photos of 2000 x 1500 pixels
with 8 questions each. The base has the published model's shape and random weights
(benchmarks/random_base.py); each config has a process of its own. On CUDA the peak is the allocator's, from
the loaded model on, and what it had reserved is given beside it; the estimate's share for CUDA itself is in
neither. On a CPU it is by how much the process grew, which says little about so small a model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.train_job import question_and_answer

CONFIGS = (
    "llava15_7b_lora", "llava15_7b_qlora_12gb", "llava16_mistral_7b_lora", "onevision_7b_lora",
    "llava15_13b_qlora",
)  # fmt: skip
PHOTO, QUESTIONS, STEPS, ACCUMULATED = (2000, 1500), 8, 2, 2
SMALL = (448, 336)  # the CPU's photos


def write_photos(folder: Path, photos: int, size: tuple[int, int]) -> None:
    """Write `photos` pictures and their records, unless they are there."""
    if (folder / "train.json").is_file():
        return
    records = []
    for number in range(photos):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(folder / f"{number}.jpg")
        for question in range(QUESTIONS):
            asked, answer = question_and_answer(rng)
            turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answer}]
            records.append({"id": f"{number}-{question}", "image": f"{number}.jpg", "conversations": turns})
    (folder / "train.json").write_text(json.dumps(records), encoding="utf-8")


def measure(name: str, folder: Path, device: str) -> dict[str, Any]:
    """Train as the config says; return the estimate by part and the measured peak, in bytes."""
    import torch

    from benchmarks.on_gpu_equality import small_base
    from benchmarks.random_base import random_base
    from benchmarks.train_memory import grown
    from llava.common.settings import load_settings
    from llava.common.shipped import find_config
    from llava.train import finetune
    from llava.train.config import TrainSettings

    cuda = device == "cuda"
    batches = STEPS * ACCUMULATED
    settings = load_settings(
        TrainSettings,
        find_config(Path(name)),
        [
            f"data_path={folder / 'train.json'}", "val_path=null", f"image_folder={folder}",
            f"output_dir={folder / 'run'}", "overwrite_output_dir=true", f"max_steps={STEPS}",
            f"gradient_accumulation_steps={ACCUMULATED}", "logging_steps=1", *([] if cuda else ["bits=null"]),
            *([] if cuda else ["dtype=float32", "batch_size=1", "dataloader_workers=0"]),
        ],
    )  # fmt: skip
    write_photos(folder, settings.batch_size * batches, PHOTO if cuda else SMALL)
    base = random_base(settings.model_name_or_path, maker="cuda") if cuda else small_base()
    plans, before = [], [0]
    make_plan, load = finetune.make_plan, finetune.load

    def planned(*given: Any) -> Any:
        made = make_plan(*given)
        plans.append(made[1])
        return made

    def loaded(*given: Any) -> Any:
        before[0] = 0 if cuda else grown()
        model = load(*given)
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return model

    finetune.open_base = lambda settings, **_: (base, settings)  # type: ignore[assignment]  # no file, no Hub
    finetune.make_plan, finetune.load = planned, loaded
    if cuda:  # straight to the GPU, where the weights are drawn: the peak is the same, and 14 GB stay there
        finetune.load_model = partial(finetune.load_model, device_map="cuda:0")  # type: ignore[assignment]
    finetune.train(settings)
    parts = dict(plans[0].parts)
    framework = parts.pop("framework")
    found = {
        "config": name,
        "estimated": sum(parts.values()),
        "framework": framework,
        "parts": parts,
        "batch": plans[0].rows["largest batch"],
    }
    if not cuda:
        return found | {"measured": grown() - before[0]}
    return found | {
        "measured": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "device": torch.cuda.get_device_name(),
    }


def run(name: str, device: str) -> dict[str, Any]:
    """Measure one config in a process of its own; return what it found, or `failed`."""
    with tempfile.TemporaryDirectory(prefix="llava-memory-") as folder:
        command = [sys.executable, "-m", "benchmarks.on_gpu_memory", "--case", name, folder]
        command += ["--device", device]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        return {"config": name, "failed": " / ".join(last) or f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def said(entry: dict[str, Any]) -> str:
    if "failed" in entry:
        return f"{entry['config']}: failed, {entry['failed']}"
    ratio = entry["estimated"] / entry["measured"]
    return (
        f"{entry['config']}: estimated {entry['estimated'] / 1e9:.2f} GB, measured "
        f"{entry['measured'] / 1e9:.2f} GB, ratio {ratio:.2f} ({entry['batch']})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--output", type=Path, help="the figures as JSON, written after each config")
    parser.add_argument("--case", nargs=2, metavar=("CONFIG", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case[0], Path(args.case[1]), args.device)))
        return 0
    found: list[dict[str, Any]] = []
    for name in args.configs:
        found.append(run(name, args.device))
        print(said(found[-1]), flush=True)
        if args.output is not None:
            args.output.write_text(json.dumps({"configs": found}, indent=1) + "\n", encoding="utf-8")
    return 1 if any("failed" in entry for entry in found) else 0


if __name__ == "__main__":
    sys.exit(main())
