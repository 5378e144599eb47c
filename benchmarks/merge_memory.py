"""How much memory merging takes, measured and computed for 7B.

    python -m benchmarks.merge_memory          # two small checkpoints, and what follows for LLaVA-1.5-7B
    python -m benchmarks.merge_memory --whole  # a 7B-shaped random checkpoint itself: 28 GB of disk
    python -m benchmarks.merge_memory --whole 6  # with 6 of its 32 layers: 7 GB of disk

Random float16 weights in LLaVA-1.5's shape and a LoRA of rank 16 on every Linear layer of the language model
go through scripts/merge_lora.py; the peak is the most memory that its process held (resident set; Linux). Two
sizes of model with the same small shards give what a byte of the base costs, two sizes of shard what a byte
of a shard costs, and so what LLaVA-1.5-7B takes with the default shards. TMPDIR says where they are written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from llava.model.builder import empty_model
from llava.model.formats import LANGUAGE
from llava.model.run_dir import copy_processor_files
from llava.model.shards import DEFAULT_SHARD, parse_size, write_shards

REPO = Path(__file__).resolve().parents[1]
RANK = 16
SMALL_SHARD = 50_000_000
"""Bytes."""
LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""Runs a command and prints its peak in bytes. A small process between: Linux takes the memory of the process
that starts a command for the command's own until it has begun, and ours holds whole shards."""


def config_of(layers: int, hidden: int, intermediate: int, vocabulary: int, vision: dict[str, int]) -> Any:
    tower: dict[str, Any] = {"image_size": 336, "patch_size": 14, "projection_dim": 768} | vision
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**tower).to_dict(),
        text_config=LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate,
            num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=32,
        ).to_dict(),
        image_token_index=vocabulary - 1,
        dtype="float16",
    )  # fmt: skip


def seven_billion(layers: int = 32) -> Any:
    """LLaVA-1.5-7B's shape, or that of so many of its layers."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
              "num_attention_heads": 16}  # fmt: skip
    return config_of(layers, 4096, 11008, 32064, vision)


def small(layers: int) -> Any:
    vision = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
              "num_attention_heads": 4}  # fmt: skip
    return config_of(layers, 1024, 2752, 8000, vision)


def sizes(config: Any) -> tuple[int, int]:
    """Bytes of a float16 model and, in float32, of its largest tensor."""
    counts = [parameter.numel() for parameter in empty_model(config).parameters()]
    return 2 * sum(counts), 4 * max(counts)


def write_base(config: Any, folder: Path) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)

    def random(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=generator).mul_(0.02).half()

    shapes = {name: parameter.shape for name, parameter in empty_model(config).named_parameters()}
    write_shards(folder, ((name, random(shape)) for name, shape in shapes.items()), 1_000_000_000)
    config.save_pretrained(str(folder))
    copy_processor_files(REPO / "playground" / "tiny-llava", folder)


def write_adapter(config: Any, base: Path, folder: Path) -> None:
    folder.mkdir()
    tensors = {}
    for name, module in empty_model(config).named_modules():
        if name.startswith(LANGUAGE) and isinstance(module, nn.Linear):
            key = f"base_model.model.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, module.in_features) * 0.02
            tensors[f"{key}.lora_B.weight"] = torch.randn(module.out_features, RANK) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors")
    names = sorted({key.split(".")[-3] for key in tensors})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": names}
    settings["exclude_modules"] = r".*vision_tower.*"
    settings["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def measure(config: Any, shard: int) -> int:
    """The peak of a merge with shards of `shard` bytes, in bytes."""
    with tempfile.TemporaryDirectory() as place:
        base, adapter = Path(place) / "base", Path(place) / "adapter"
        write_base(config, base)
        write_adapter(config, base, adapter)
        command = [sys.executable, str(REPO / "scripts" / "merge_lora.py"), "--model-path", str(adapter),
                   "--save-model-path", str(Path(place) / "merged"), "--max-shard-size",
                   f"{shard / 1e6:f}MB"]  # fmt: skip
        started = time.monotonic()
        launched = [sys.executable, "-c", LAUNCHER, *command]
        peak = int(subprocess.run(launched, cwd=REPO, stdout=subprocess.PIPE, check=True).stdout)
        print(
            f"base of {sizes(config)[0] / 1e9:5.2f} GB, shards of {shard / 1e9:4.2f} GB: peak "
            f"{peak / 1e9:5.2f} GB, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        return peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--whole",
        type=int,
        nargs="?",
        const=32,
        metavar="LAYERS",
        help="measure 7B itself, or some layers of it",
    )
    parser.add_argument("--max-shard-size", default="5GiB", help="with --whole (default: 5GiB)")
    args = parser.parse_args()
    if args.whole is not None:
        measure(seven_billion(args.whole), parse_size(args.max_shard_size))
        return
    little, more = small(8), small(24)
    (little_bytes, _), (more_bytes, layer) = sizes(little), sizes(more)
    first, second = measure(little, SMALL_SHARD), measure(more, SMALL_SHARD)
    in_one = measure(more, DEFAULT_SHARD)
    per_byte = (second - first) / (more_bytes - little_bytes)
    per_shard_byte = (in_one - second) / (more_bytes - SMALL_SHARD)
    whole_bytes, whole_layer = sizes(seven_billion())
    peak = (
        second
        + per_byte * (whole_bytes - more_bytes)
        + per_shard_byte * (DEFAULT_SHARD - SMALL_SHARD)
        + 4 * (whole_layer - layer)  # the weight, the update, their sum and what is made of it, in float32
    )
    print(f"a byte of the base costs {per_byte:.3f}, a byte of a shard {per_shard_byte:.2f}")
    print(f"LLaVA-1.5-7B ({whole_bytes / 1e9:.1f} GB) with the default shards: {peak / 1e9:.1f} GB computed")


if __name__ == "__main__":
    main()
