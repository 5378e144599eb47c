"""Small random models of LLaVA's families: LLaVA-1.5, LLaVA-1.6 with Llama and Mistral, OneVision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    PreTrainedModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from llava.model.builder import LoadedModel, load_model
from llava.model.run_dir import copy_processor_files

FAMILIES = ["llava-llama", "llava_next-llama", "llava_next-mistral", "llava_onevision-qwen2"]
GRIDS = {
    "llava_next": [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]],
    # with anyres_max_2 an image of six tiles or more is scaled down
    "llava_onevision": [[rows, columns] for rows in (1, 2, 3) for columns in (1, 2, 3)],
}


def family_config(family: str, *, side: int = 12, patch: int = 4, text: dict[str, Any] | None = None) -> Any:
    """3 vision and 2 language layers; 64 words, of which 63 is the image and 62 the video."""
    model_type, _, language = family.partition("-")
    vision = {
        "model_type": "siglip_vision_model" if language == "qwen2" else "clip_vision_model",
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": side, "patch_size": patch,
    } | ({"vision_use_head": False} if language == "qwen2" else {"projection_dim": 16})  # fmt: skip
    words: dict[str, Any] = {
        "model_type": language, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    } | ({"sliding_window": None} if language == "mistral" else {}) | (text or {})  # fmt: skip
    given: dict[str, Any] = {
        "vision_config": vision, "text_config": words, "image_token_index": words["vocab_size"] - 1,
        "attn_implementation": "sdpa",
    }  # fmt: skip
    if model_type == "llava":
        return LlavaConfig(**given)
    given["image_grid_pinpoints"] = [[rows * side, cols * side] for rows, cols in GRIDS[model_type]]
    if model_type == "llava_next":
        return LlavaNextConfig(**given)
    return LlavaOnevisionConfig(
        **given, video_token_index=words["vocab_size"] - 2, vision_aspect_ratio="anyres_max_2"
    )


def family_image_processor(config: Any) -> Any:
    """transformers' own for the family, of the model's image size."""
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    if config.model_type == "llava":
        return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
    tiles = {"image_grid_pinpoints": config.image_grid_pinpoints}
    if config.model_type == "llava_next":
        return LlavaNextImageProcessorPil(size={"shortest_edge": side}, crop_size=square, **tiles)
    return LlavaOnevisionImageProcessorPil(size=square, **tiles)


def family_model(config: Any, seed: int = 0, scale: float = 0.3) -> PreTrainedModel:
    """Weights large enough that logits differ from token to token and image to image."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return model


def save_family(
    tiny: Path, folder: Path, family: str, *, scale: float = 0.3, dtype: torch.dtype = torch.float32
) -> Path:
    """A model folder with the tokenizer of the embedded base `tiny`, images of 24 pixels in 9 patches."""
    words = json.loads((tiny / "config.json").read_text())
    vocabulary = {"vocab_size": words["text_config"]["vocab_size"]}
    config = family_config(family, side=24, patch=8, text=vocabulary)
    config.image_token_index = words["image_token_index"]
    model = family_model(config, scale=scale).to(dtype)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(str(folder))
    copy_processor_files(tiny, folder)
    (folder / "processor_config.json").unlink()
    family_image_processor(config).save_pretrained(str(folder))
    return folder


def load_family(tiny: Path, folder: Path, family: str) -> LoadedModel:
    """A saved model whose answers have many lengths: every 16th token ends one."""
    loaded = load_model(save_family(tiny, folder, family), device="cpu")
    byte_pieces = loaded.tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
    with torch.no_grad():
        loaded.model.lm_head.weight[[2, *byte_pieces]] = 0  # never the likeliest: they are no characters
    loaded.model.generation_config.eos_token_id = [2, *range(20, 1000, 16)]
    return loaded
