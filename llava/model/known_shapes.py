"""The shapes of the published models that the shipped configs train: a dry run needs no Hub for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from llava.common.files import read_json
from llava.common.shipped import EMBEDDED_MODEL, shipped_root
from llava.model.builder import empty_model
from llava.model.folder import ModelFolder

_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    "projection_dim": 768,
}  # fmt: skip
_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip
_GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _text(kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int,
          context: int) -> dict[str, Any]:  # fmt: skip
    return {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary,
        "max_position_embeddings": context, "tie_word_embeddings": False,
    }  # fmt: skip


def _llava15(text_config: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "llava", "vision_config": _CLIP, "text_config": text_config,
            "vision_feature_layer": -2, "vision_feature_select_strategy": "default"}  # fmt: skip


def _llava16(text_config: dict[str, Any]) -> dict[str, Any]:
    return _llava15(text_config) | {"model_type": "llava_next", "image_grid_pinpoints": _GRID}


SHAPES: dict[str, dict[str, Any]] = {
    "llava-hf/llava-1.5-7b-hf": _llava15(_text("llama", 4096, 11008, 32, 32, 32, 32064, 4096)),
    "llava-hf/llava-1.5-13b-hf": _llava15(_text("llama", 5120, 13824, 40, 40, 40, 32064, 4096)),
    "llava-hf/llava-v1.6-mistral-7b-hf": _llava16(
        _text("mistral", 4096, 14336, 32, 32, 8, 32064, 32768) | {"sliding_window": None}
    ),
    "llava-hf/llava-v1.6-34b-hf": _llava16(_text("llama", 7168, 20480, 60, 56, 8, 64064, 4096)),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        "model_type": "llava_onevision",
        "vision_config": _SIGLIP,
        "text_config": _text("qwen2", 3584, 18944, 28, 28, 4, 152128, 32768),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
    },
}
"""What decides memory and tokens in their config.json on the Hub, by their names there."""


@dataclass(frozen=True, eq=False)
class KnownShape(ModelFolder):
    """A published model whose files are not here: its shape, with the tokenizer of the embedded model, which
    has fewer words and so makes more tokens of a text. It can be planned, not trained."""

    def __str__(self) -> str:
        return self.name

    @property
    def note(self) -> str:
        return (
            f"The Hub cannot be reached: {self.name} is planned by its known shape, and the tokens of texts "
            "are counted with the embedded model's tokenizer, which makes more of them than its own."
        )

    @cached_property
    def image_processor(self) -> Any:
        side = self.config.vision_config.image_size
        square = {"height": side, "width": side}
        if self.config.model_type == "llava":
            return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
        grid = self.config.image_grid_pinpoints
        if self.config.model_type == "llava_next":
            return LlavaNextImageProcessorPil(
                size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=grid
            )
        return LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=grid)

    @cached_property
    def chat_template(self) -> str | None:
        return None  # the tokenizer's is that of another model


def known_shape(name: str) -> KnownShape | None:
    """Return the shape of the model that the Hub calls `name`; None if it is not known."""
    shape = SHAPES.get(name)
    if shape is None:
        return None
    embedded = shipped_root() / EMBEDDED_MODEL
    image_token = read_json(embedded / "config.json")["image_token_index"]
    return KnownShape(embedded, name, "hf", shape | {"image_token_index": image_token})


def weights_size(shape: KnownShape) -> int:
    """Count the bytes of the model's weights in 16 bits."""
    with torch.device("meta"):
        model = empty_model(shape.config)
    return 2 * sum(parameter.numel() for parameter in model.parameters())
