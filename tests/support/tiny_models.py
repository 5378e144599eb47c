"""Small LLaVA models built in code, for tests that need weights of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from llava.model.base import base_info
from llava.model.folder import open_model_folder
from llava.model.lora import attach, save_adapter
from llava.model.run_dir import LoraSettings, RunInfo, copy_processor_files, write_run_info
from tests.support.paths import REPO

TOKENIZER_FOLDER = REPO / "playground" / "tiny-llava"
LANGUAGE_TARGETS = ["q_proj", "v_proj", "down_proj"]
VISION_TARGETS = ["q_proj", "fc1"]


def small_config(hidden: int = 32) -> LlavaConfig:
    """3 vision layers, 2 language layers, the tiny base's tokenizer and image size (144 pixels)."""
    own = LlavaConfig.from_pretrained(str(TOKENIZER_FOLDER))
    return LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 144,
            "patch_size": 36,
            "projection_dim": 32,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": own.text_config.vocab_size,
            "max_position_embeddings": 512,
        },
        image_token_index=own.image_token_id,
        image_seq_length=16,
    )


def small_model(seed: int = 0, hidden: int = 32) -> LlavaForConditionalGeneration:
    """Random weights large enough that logits differ from token to token."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(small_config(hidden)).eval()
    perturb(model, scale=0.1, seed=seed)
    return model


def perturb(module: nn.Module, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * scale)


def save_base(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, hidden: int = 32) -> Path:
    """A complete model folder with the tiny base's tokenizer and a processor of its patch size."""
    small_model(seed, hidden).to(dtype).save_pretrained(str(folder))
    copy_processor_files(TOKENIZER_FOLDER, folder)
    path = folder / "processor_config.json"
    path.write_text(path.read_text().replace('"patch_size": 12', '"patch_size": 36'))
    return folder


def save_run(
    folder: Path,
    base: Path,
    *,
    vision: bool = True,
    projector: bool = True,
    seed: int = 1,
    bits: Literal[4, 8] | None = None,
    **lora: Any,
) -> Path:
    """A run directory on `base` whose adapters (A and B) and projector are not zero; `lora` are further
    LoraSettings."""
    model = AutoModelForImageTextToText.from_pretrained(str(base), dtype=torch.float32)
    settings = LoraSettings(
        rank=4,
        alpha=8,
        language_targets=LANGUAGE_TARGETS,
        vision_targets=VISION_TARGETS if vision else [],
        **lora,
    )
    wrapped = attach(model, settings, train_projector=projector)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    folder.mkdir(parents=True)
    save_adapter(wrapped, folder, projector=projector)
    copy_processor_files(base, folder)
    info = RunInfo(
        base=base_info(open_model_folder(base)),
        conv_mode="v1",
        projector_trained=projector,
        lora=settings,
        step=3,
        bits=bits,
        dtype="float32",
    )
    write_run_info(folder, info)
    return folder


def copy_folder(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
