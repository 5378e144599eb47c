"""Does a GPU compute what a CPU does? Losses, logits, gradients and answers, against float32 on the CPU.

    python -m benchmarks.on_gpu_equality --output equality.json
    python -m benchmarks.on_gpu_equality --device cpu           # what of it runs there

A small LLaVA of random weights (4 layers of 256, pictures of 64 tokens) is loaded and given adapters as
training does it. Three pictures with five questions each are read on the device, record by record or packed,
with SDPA or flex attention, in float32, bfloat16, 8 or 4 bits, and compared with the same records, each in a
row of its own, in float32 on the CPU. With 8 and 4 bits the CPU has the weights that these bits stand for.
The difference is the norm of what differs over the norm of the whole, and the largest of loss, logits and
gradients (adapters and projector) counts. Answers are greedy, of all questions together against one by one
on the CPU. A device that multiplies float32 in TF32 is told not to.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.random_base import RandomBase, random_base
from benchmarks.train_job import image, question_and_answer
from llava.common.files import read_json
from llava.common.shipped import EMBEDDED_MODEL, shipped_root
from llava.inference.engine import Engine, Request
from llava.model.builder import LoadedModel, load_model
from llava.model.lora import attach, leave_casting_to_autocast, set_dtype_of_trained
from llava.model.run_dir import LoraSettings
from llava.train.data.packing import (
    FLEX,
    IGNORE,
    EncodedRecord,
    build_row,
    collate,
    group_by_image,
    packed_loss,
)

PICTURES, QUESTIONS = 3, 5
SIDE, PATCH = 112, 14
ANSWER_TOKENS = 12
LORA = LoraSettings(rank=8, alpha=16, dropout=0.0)


@dataclass(frozen=True)
class Check:
    """One way to compute the same, and how far it may be from float32 on the CPU (`tolerance`)."""

    name: str
    tolerance: float
    packed: bool = True
    attention: str = "sdpa"
    dtype: torch.dtype = torch.float32
    bits: int | None = None


BF16 = torch.bfloat16
CHECKS = (
    Check("float32, record by record", 1e-3, packed=False),
    Check("float32, packed", 1e-3),
    Check("float32, packed, flex attention", 5e-3, attention=FLEX),
    Check("bfloat16, record by record", 0.06, packed=False, dtype=BF16),
    Check("bfloat16, packed", 0.06, dtype=BF16),
    Check("bfloat16, packed, flex attention", 0.06, attention=FLEX, dtype=BF16),
    Check("4 bits, packed", 0.06, dtype=BF16, bits=4),
    Check("8 bits, packed", 0.15, dtype=BF16, bits=8),  # their products round the inputs to 8 bits as well
)
ANSWERS = {torch.float32: 1.0, BF16: 0.7}
"""The share of answers that must be the same: all in float32; in bfloat16 the first word alone is compared,
for rounding decides between two tokens that are as likely, and the texts go apart behind it."""


def small_base() -> RandomBase:
    """Return the base: heads of 64, which flex attention takes, two of them to a key head."""
    text = read_json(shipped_root() / EMBEDDED_MODEL / "config.json")["text_config"]
    settings = {
        "model_type": "llava",
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 128, "intermediate_size": 256,
            "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH,
            "projection_dim": 128,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": text["vocab_size"],
            "max_position_embeddings": 2048, "tie_word_embeddings": False,
        },
    }  # fmt: skip
    return random_base("small", settings, spread=0.08)


def load(
    check: Check, device: str, weights: dict[str, torch.Tensor] | None = None
) -> tuple[LoadedModel, dict[str, torch.Tensor]]:
    """Load the base; return it with its quantised weights as the numbers that they stand for.

    `weights` replace those of the base.
    """
    loaded = load_model(
        small_base(),
        device="cuda:0" if device == "cuda" else device,  # as training names it
        dtype=check.dtype,
        load_8bit=check.bits == 8,
        load_4bit=check.bits == 4,
        conv_mode="v1",
        attn_implementation=check.attention,
    )
    for name, value in (weights or {}).items():
        loaded.model.get_parameter(name).data.copy_(value)
    stood_for = {}
    if check.bits:
        from bitsandbytes import functional

        for name, parameter in loaded.model.named_parameters():
            if getattr(parameter, "quant_state", None) is not None:
                stood_for[name] = functional.dequantize_4bit(parameter.data, parameter.quant_state)
            elif getattr(parameter, "SCB", None) is not None:
                stood_for[name] = functional.int8_vectorwise_dequant(parameter.data, parameter.SCB)
        if not stood_for:
            raise RuntimeError(f"nothing is quantised in {check.bits} bits")
    return loaded, {name: value.float().cpu() for name, value in stood_for.items()}


def with_adapters(loaded: LoadedModel, dtype: torch.dtype) -> Any:
    """Put adapters on the model as training does, but with numbers in both halves, the same everywhere."""
    model = attach(loaded.model, LORA, train_projector=True)
    set_dtype_of_trained(model, torch.float32)
    if dtype == BF16:
        leave_casting_to_autocast(model)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def records(image_token: int) -> list[EncodedRecord]:
    """Make questions of many lengths with answers, whose tokens are drawn."""
    rng = np.random.default_rng(0)
    head = [1, *rng.integers(300, 600, 20), *[image_token] * (SIDE // PATCH) ** 2, 310]
    made = []
    for number in range(PICTURES * QUESTIONS):
        tail = rng.integers(300, 600, rng.integers(12, 40)).tolist()
        labels = [IGNORE] * (len(head) + len(tail) - 6) + tail[-6:]
        made.append(EncodedRecord.of(str(number), head + tail, labels, [str(number // QUESTIONS)]))
    return made


def measure(model: Any, loaded: LoadedModel, check: Check, device: str) -> dict[str, torch.Tensor]:
    """Return the mean loss, the supervised logits and the gradient of all that is trained, in float64."""
    token = int(loaded.model.config.image_token_id)
    groups = group_by_image(records(token), token, 2048, packing=check.packed)
    rows = [build_row(groups)] if check.packed else [build_row([group]) for group in groups]
    shown = {str(n): loaded.processor.pixels(image(n)) for n in range(PICTURES)}
    batch: dict[str, Any] = dict(
        collate(rows, shown.__getitem__, loaded.processor.vision, pad_token_id=0, attention=check.attention)
    )
    batch = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in batch.items()}
    seen: list[torch.Tensor] = []
    hook = loaded.model.lm_head.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    kind = torch.device(device).type
    with torch.autocast(kind, BF16, enabled=check.dtype == BF16):
        total, count = packed_loss(model, batch)  # type: ignore[arg-type]  # a Batch by its keys
    hook.remove()
    (total / count).backward()
    gradients = [p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None]
    return {
        "loss": (total / count).detach().double().cpu().reshape(1),
        "logits": seen[0].double().cpu().flatten(),
        "gradients": torch.cat([gradient.double().cpu().flatten() for gradient in gradients]),
    }


def compare(check: Check, device: str) -> dict[str, Any]:
    """Compute both ways; return the differences."""
    loaded, weights = load(check, device)
    found = measure(with_adapters(loaded, check.dtype), loaded, check, device)
    plain = Check("reference", 0.0, packed=False)
    reference, _ = load(plain, "cpu", weights)
    expected = measure(with_adapters(reference, plain.dtype), reference, plain, "cpu")
    differences = {
        name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected
    }
    worst = max(differences.values())  # NaN is no number below a tolerance
    return {"differences": differences, "difference": worst, "passed": bool(worst <= check.tolerance)}


def compare_answers(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Answer all questions together on the device and each alone on the CPU; return what share differs."""
    rng = np.random.default_rng(1)
    requests = [
        Request(f"{picture}-{question}", question_and_answer(rng)[0], [image(picture)])
        for picture in range(PICTURES)
        for question in range(QUESTIONS)
    ]
    there, _ = load(Check("", 0.0, dtype=dtype), device)
    together = Engine(there).answer(requests, max_new_tokens=ANSWER_TOKENS)
    here, _ = load(Check("", 0.0), "cpu")
    engine = Engine(here)
    alone = [engine.answer([request], max_new_tokens=ANSWER_TOKENS)[0] for request in requests]

    def compared(text: str) -> list[str]:
        return text.split() if dtype == torch.float32 else text.split()[:1]

    pairs = list(zip(together, alone, strict=True))
    same = sum(compared(one.text) == compared(other.text) for one, other in pairs) / len(requests)
    different_answers = len({result.text for result in alone})
    return {
        "difference": 1 - same,
        "passed": same >= ANSWERS[dtype] and different_answers > 1,
        "different_answers": different_answers,
    }


def why_not(check: Check, device: str) -> str | None:
    """Say why a check cannot be done here; None if it can."""
    if check.attention == FLEX and device == "cpu":
        return "flex attention's gradients need CUDA"
    if check.bits and importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is absent"
    return None


def run_all(device: str, output: Path | None) -> list[dict[str, Any]]:
    """Do every check, and write what is known after each."""
    done: list[dict[str, Any]] = []

    def add(name: str, tolerance: float, skipped: str | None, work: Callable[[], dict[str, Any]]) -> None:
        entry: dict[str, Any] = {"name": name, "tolerance": tolerance}
        began = time.perf_counter()
        if skipped:
            entry["skipped"] = skipped
        else:
            try:
                entry |= work()
            except Exception as error:  # the next checks are worth their time whatever this one met
                entry |= {"passed": False, "failed": f"{type(error).__name__}: {error}"[:500]}
        entry["seconds"] = round(time.perf_counter() - began, 1)
        done.append(entry)
        print(said(entry), flush=True)
        if output is not None:
            output.write_text(json.dumps({"checks": done}, indent=1) + "\n", encoding="utf-8")

    for check in CHECKS:
        add(check.name, check.tolerance, why_not(check, device), partial(compare, check, device))
    for dtype, share in ANSWERS.items():
        name = f"{str(dtype).removeprefix('torch.')}, greedy answers in a batch"
        add(name, round(1 - share, 3), None, partial(compare_answers, dtype, device))
    return done


def said(entry: dict[str, Any]) -> str:
    if "skipped" in entry:
        return f"{entry['name']}: not done, {entry['skipped']}"
    if "failed" in entry:
        return f"{entry['name']}: FAILED, {entry['failed']}"
    verdict = "passed" if entry["passed"] else "NOT EQUAL"
    return (
        f"{entry['name']}: {verdict}, differs by {entry['difference']:.2g} of {entry['tolerance']:g} allowed"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--output", type=Path, help="the checks as JSON")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    done = run_all(args.device, args.output)
    return 0 if all(entry.get("passed", True) for entry in done) else 1


if __name__ == "__main__":
    sys.exit(main())
