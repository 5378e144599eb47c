"""Model folders with the real shapes of published LLaVA models and no weights, for dry runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.tiny_models import TOKENIZER_FOLDER

CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    "projection_dim": 768,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip
GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def text(kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int,
         context: int) -> dict[str, Any]:  # fmt: skip
    return {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary,
        "max_position_embeddings": context, "tie_word_embeddings": False,
    }  # fmt: skip


def llava15(text_config: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "llava", "vision_config": CLIP, "text_config": text_config,
            "vision_feature_layer": -2, "vision_feature_select_strategy": "default"}  # fmt: skip


def llava16(text_config: dict[str, Any]) -> dict[str, Any]:
    return llava15(text_config) | {"model_type": "llava_next", "image_grid_pinpoints": GRID}


# By the name of the config in configs/: as their config.json on the Hub says.
SHAPES = {
    "llava15_7b_lora": llava15(text("llama", 4096, 11008, 32, 32, 32, 32064, 4096)),
    "llava15_13b_qlora": llava15(text("llama", 5120, 13824, 40, 40, 40, 32064, 4096)),
    "llava16_mistral_7b_lora": llava16(
        text("mistral", 4096, 14336, 32, 32, 8, 32064, 32768) | {"sliding_window": None}
    ),
    "llava16_34b_zero3": llava16(text("llama", 7168, 20480, 60, 56, 8, 64064, 4096)),
    "onevision_7b_lora": {
        "model_type": "llava_onevision",
        "vision_config": SIGLIP,
        "text_config": text("qwen2", 3584, 18944, 28, 28, 4, 152128, 32768),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
    },
}


def save_shape(name: str, folder: Path) -> Path:
    """config.json, the embedded base's tokenizer and an image processor of the shape's size; no weights."""
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER_FOLDER / file, folder / file)
    shape: dict[str, Any] = SHAPES[name]
    own = json.loads((TOKENIZER_FOLDER / "config.json").read_text(encoding="utf-8"))
    config = shape | {"image_token_index": own["image_token_index"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    side = shape["vision_config"]["image_size"]
    clip = shape["vision_config"]["model_type"] == "clip_vision_model"
    mean = [0.48145466, 0.4578275, 0.40821073] if clip else [0.5, 0.5, 0.5]
    processor: dict[str, Any] = {
        "image_processor_type": {
            "llava": "CLIPImageProcessor",
            "llava_next": "LlavaNextImageProcessor",
            "llava_onevision": "LlavaOnevisionImageProcessor",
        }[shape["model_type"]],
        "size": {"shortest_edge": side} if clip else {"height": side, "width": side},
        "do_center_crop": clip, "crop_size": {"height": side, "width": side},
        "image_mean": mean, "image_std": mean, "resample": 3, "rescale_factor": 1 / 255,
    }  # fmt: skip
    if "image_grid_pinpoints" in shape:
        processor["image_grid_pinpoints"] = shape["image_grid_pinpoints"]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
