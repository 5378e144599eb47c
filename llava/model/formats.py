"""The forms in which people hold LLaVA weights: which one a folder is, its content decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llava.errors import InputError
from llava.files import read_json
from llava.model.run_dir import ADAPTER_CONFIG, is_run_dir

Kind = Literal["run", "hf", "original", "original_lora", "original_projector", "peft_adapter"]
"""A run directory of ours or a checkpoint in it; a whole model in Hugging Face's format; one in the original
LLaVA's; the original's LoRA folder; its folder with a projector alone; an adapter that PEFT wrote."""

MODEL_TYPES = ("llava", "llava_next", "llava_onevision")
"""LLaVA-1.5, LLaVA-1.6 and LLaVA-OneVision, as a Hugging Face config.json names them."""
ORIGINAL_TYPES = ("llava_llama", "llava_mistral")
"""Vicuna's and Mistral's LLaVA, as an original config.json names them (the first may say `llava` too)."""
NON_LORA_WEIGHTS = "non_lora_trainables.bin"
PROJECTOR_BIN = "mm_projector.bin"
_FOREIGN = ("llava_mpt", "llava_qwen", "llava_gemma", "llava_mixtral")


def kind_of(folder: Path) -> Kind:
    """What `folder` is, by its files and its config.json; InputError saying what is wrong if it is no LLaVA."""
    if is_run_dir(folder):
        return "run"
    config: Any = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if config is not None and not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'}: expected a JSON object")
    original = config is not None and is_original(config)
    if (folder / ADAPTER_CONFIG).is_file():
        return "original_lora" if original or (folder / NON_LORA_WEIGHTS).is_file() else "peft_adapter"
    if (folder / PROJECTOR_BIN).is_file() and not any(folder.glob("*model*.safetensors")) \
            and not any(folder.glob("pytorch_model*.bin")):  # fmt: skip
        return "original_projector"
    if config is None:
        raise InputError(
            f"{folder} is not a LLaVA model: it has neither config.json nor run.json nor {ADAPTER_CONFIG}"
        )
    model_type = config.get("model_type")
    if model_type in _FOREIGN:
        raise InputError(
            f"{folder} is an original {model_type} model; of the original format llava_llama and "
            "llava_mistral are read"
        )
    if original:
        return "original"
    if model_type not in MODEL_TYPES:
        raise InputError(f"{folder} is not a LLaVA model: its config.json says model_type {model_type!r}")
    return "hf"


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config.json is the original LLaVA's. Its first releases call themselves `llava`, as Hugging
    Face's do, but name the vision tower by `mm_vision_tower`."""
    model_type = config.get("model_type")
    return model_type in ORIGINAL_TYPES or (model_type in ("llava", "llama") and "mm_vision_tower" in config)
