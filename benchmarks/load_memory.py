"""How much memory loading takes, against the weights that are loaded.

    python -m benchmarks.load_memory

A random float16 model in LLaVA-1.5's shape is saved in every form and loaded by `load_model`, each in a
process of its own, as it is stored and as float32. The peak is the most memory that the process held
(resident set; Linux) above what it held before, when the libraries and the embedded base were loaded.
Exit code 1 if one is over the bound.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from benchmarks.merge_memory import write_base
from llava.export.convert import export
from llava.model.builder import DTYPES, load_model
from llava.model.folder import open_model_folder

TINY = Path(__file__).resolve().parents[1] / "playground" / "tiny-llava"
SHARD = 100_000_000
"""Bytes."""
BOUND = 1.2
"""Times the weights in memory."""


def config(layers: int) -> LlavaConfig:
    """LLaVA-1.5's shape for the tokenizer and pictures of the embedded base."""
    tiny = open_model_folder(TINY).config
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
            image_size=tiny.vision_config.image_size, patch_size=tiny.vision_config.patch_size,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=tiny.text_config.vocab_size, hidden_size=1024, intermediate_size=2752,
            num_hidden_layers=layers, num_attention_heads=16,
        ).to_dict(),
        image_token_index=tiny.image_token_id,
        image_seq_length=tiny.image_seq_length,
        dtype="float16",
    )  # fmt: skip


def write_forms(place: Path, layers: int) -> dict[str, Path]:
    """The same model in every form."""
    base, original = place / "hf", place / "llava-v1"
    write_base(config(layers), base)
    export(base, original, "llava")
    forms = {"Hugging Face, one file": base, "original, one file": original}
    for name, source, to in (("Hugging Face", original, "hf"), ("original", base, "llava")):
        forms[f"{name}, shards"] = place / f"llava-v1-{to}-shards"
        forms[f"{name}, .bin shards"] = place / f"llava-v1-{to}-bin"
        for folder in (forms[f"{name}, shards"], forms[f"{name}, .bin shards"]):
            export(source, folder, "hf" if to == "hf" else "llava", max_shard_size=SHARD)
        make_bin(folder)
    return forms


def make_bin(folder: Path) -> None:
    """The safetensors shards of `folder` as `.bin` ones."""
    for path in folder.glob("model-*.safetensors"):
        torch.save(load_file(path), path.with_name(f"pytorch_{path.stem}.bin"))
        path.unlink()
    index = folder / "model.safetensors.index.json"
    text = re.sub(r"(model-[0-9]{5}-of-[0-9]{5})\.safetensors", r"pytorch_\1.bin", index.read_text("utf-8"))
    (folder / "pytorch_model.bin.index.json").write_text(text, encoding="utf-8")
    index.unlink()


def memory(field: str) -> int:
    """`VmRSS` (held now) or `VmHWM` (at most) of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def measure(folder: Path, dtype: torch.dtype) -> None:
    """In a process of its own: load `folder` and print the weights' bytes and the peak."""
    load_model(TINY, device="cpu")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew
    before = memory("VmRSS")
    loaded = load_model(folder, device="cpu", dtype=dtype)
    peak = memory("VmHWM") - before
    print(sum(tensor.nbytes for tensor in loaded.model.state_dict().values()), peak)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8, help="25 MB each in float16 (default: 8)")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(Path(args.measure[0]), DTYPES[args.measure[1]])
        return 0
    within = True
    with tempfile.TemporaryDirectory() as place:
        for name, folder in write_forms(Path(place), args.layers).items():
            for dtype in ("float16", "float32"):
                command = [sys.executable, "-m", "benchmarks.load_memory", "--measure", str(folder), dtype]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
                weights, peak = (int(number) for number in done.stdout.split())
                within = within and peak < BOUND * weights
                print(
                    f"{name:26} {dtype} {weights / 1e6:5.0f} MB, peak {peak / weights:.2f} times", flush=True
                )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
