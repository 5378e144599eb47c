"""The forms in which LLaVA weights are stored: the names of their tensors, and their configs.

Tensors go by transformers 5's names in memory; SPELLINGS says what the other forms call them. The configs of
the original LLaVA and of Hugging Face are converted into each other here. llava.model.original reads an
original folder, llava.export.writers writes one.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlavaConfig, LlavaNextConfig, MistralConfig

from llava.common.errors import InputError, one_line

ORIGINAL_TYPES = {"llava_llama": LlamaConfig, "llava_mistral": MistralConfig}
"""Vicuna's and Mistral's LLaVA, as an original config.json names them (the first may say `llava` too)."""
ARCHITECTURES = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM"}
NON_LORA_WEIGHTS = "non_lora_trainables.bin"
PROJECTOR_BIN = "mm_projector.bin"

LANGUAGE, VISION, PROJECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."
"""How the names of a part's tensors begin in memory."""
EMBEDDING, HEAD = f"{LANGUAGE}embed_tokens.weight", "lm_head.weight"

SPELLINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "transformers 5": (),
    "transformers 4.52": ((VISION + "vision_model.", VISION),),
    "transformers 4": (
        ("language_model.model.", LANGUAGE),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.vision_model.", VISION),
        ("vision_tower.", VISION),  # transformers 5 saves a model so that was not loaded but made
        ("multi_modal_projector.", PROJECTOR),
        ("image_newline", "model.image_newline"),
    ),
    "original": (
        ("model.layers.", LANGUAGE + "layers."),
        ("model.embed_tokens.", LANGUAGE + "embed_tokens."),
        ("model.norm.", LANGUAGE + "norm."),
        ("model.vision_tower.vision_tower.vision_model.", VISION),
        ("model.mm_projector.0.", PROJECTOR + "linear_1."),
        ("model.mm_projector.2.", PROJECTOR + "linear_2."),
    ),
}
"""How the tensors of a model are called: (there, in memory today) for the start of a name, if it differs.
`transformers 4` is also what the Hub's folders hold and what transformers 5 writes."""

HUB_SPELLING = "transformers 4"
"""Names in the folders that we write: every release of transformers reads them, and vLLM and SGLang do."""

UNUSABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError,
    StrictDataclassError,
)  # fmt: skip
"""What transformers raises for settings in a file that it cannot use: it has no error of its own for that."""

_BUFFERS = re.compile(r"(?:rotary_emb\.inv_freq|embeddings\.position_ids)$")
"""What older releases stored beside the weights; every model computes it itself."""

_TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
    "hidden_act", "initializer_range", "attention_bias", "attention_dropout", "bos_token_id", "eos_token_id",
    "tie_word_embeddings", "sliding_window",
)  # fmt: skip
_FEATURES = {"patch": "default", "cls_patch": "full"}
"""Which of an image's features are taken, original and Hugging Face."""
ROW_MULTIPLE = 64
"""Hugging Face's LLaVA folders pad the rows of the vocabulary to a multiple of this."""


def is_original(config: dict[str, Any]) -> bool:
    """Return whether a config.json is the original LLaVA's. Its first releases call themselves `llava`, as
    Hugging Face's do, but name the vision tower by `mm_vision_tower`."""
    model_type = str(config.get("model_type"))
    return model_type in ORIGINAL_TYPES or (model_type in ("llava", "llama") and "mm_vision_tower" in config)


def name_in_memory(name: str, *, original: bool = False) -> str | None:
    """Return what a stored tensor is called in memory, None for a buffer that is not stored any more. A name
    that no spelling knows stays as it is."""
    if _BUFFERS.search(name):
        return None
    spellings = ("original",) if original else ("transformers 4", "transformers 4.52")
    for spelling in spellings:
        for stored, memory in SPELLINGS[spelling]:
            if name.startswith(stored):
                return memory + name.removeprefix(stored)
    return name


def stored_name(name: str, spelling: str) -> str:
    """Return what a tensor in memory is called in `spelling`."""
    for stored, memory in SPELLINGS[spelling]:
        if name.startswith(memory):
            return stored + name.removeprefix(memory)
    return name


def to_hf_config(config: dict[str, Any], vision: Any, rows: int, where: Path) -> Any:
    """Return the LlavaConfig or LlavaNextConfig of an original `config`, whose vocabulary has `rows` rows
    there.

    `<image>` is the first token behind the original vocabulary, `<pad>` the next.

    Args:
        config: The content of the original config.json.
        vision: The CLIPVisionConfig of its tower.
        rows: The rows of the vocabulary in Hugging Face's form.
        where: The file, for errors.

    Raises:
        InputError: A key has no counterpart in Hugging Face's LLaVA.
    """
    _refuse_unlike(config, where)
    kind = ORIGINAL_TYPES.get(str(config.get("model_type")), LlamaConfig)
    text = {key: config[key] for key in _TEXT_KEYS if key in config}
    if kind is MistralConfig:
        text.setdefault("sliding_window", 4096)  # what transformers 4 takes for a config without it
    else:
        text.pop("sliding_window", None)
    text = {key: value for key, value in text.items() if value is not None or key == "sliding_window"}
    image = int(config["vocab_size"])
    try:
        given: dict[str, Any] = {
            "text_config": kind(**text | {"vocab_size": rows, "pad_token_id": image + 1}),
            "vision_config": vision,
            "image_token_index": image,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": config.get("mm_vision_select_layer", -2),
            "vision_feature_select_strategy": _FEATURES[config.get("mm_vision_select_feature") or "patch"],
            "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
            "pad_token_id": image + 1,
        }
        square = config.get("image_aspect_ratio") == "pad"
        given["architectures"] = [f"Llava{'' if square else 'Next'}ForConditionalGeneration"]
        dtype = config.get("torch_dtype") or config.get("dtype")
        if dtype is not None:
            given["dtype"] = dtype
        if square:
            tokens = (vision.image_size // vision.patch_size) ** 2
            return LlavaConfig(**given, image_seq_length=tokens)
        return LlavaNextConfig(**given, image_grid_pinpoints=_pinpoints(config, where))
    except UNUSABLE as error:
        raise InputError(f"{where}: not usable ({one_line(error)})") from None


def to_original_config(config: Any, tower: str, context: int) -> dict[str, Any]:
    """Return the original config.json of a Hugging Face `config` (its to_dict() is of plain values); `tower`
    is the vision tower's folder, `context` the tokenizer's longest text. Types and vocabulary as
    transformers 4.37 and llava-torch 1.2.2 read them. InputError for what that format cannot say.
    """
    text, vision = config.text_config, config.vision_config
    _refuse_inexpressible(config)
    rope = dict(text.rope_parameters or {})
    scaling = None
    if rope.get("rope_type", "default") != "default":
        scaling = {"type": rope["rope_type"], "factor": rope["factor"]}
    rows = int(config.image_token_id)
    anyres = config.model_type == "llava_next"
    strategies = {hf: original for original, hf in _FEATURES.items()}
    values = {key: getattr(text, key) for key in _TEXT_KEYS if hasattr(text, key)}
    return values | {
        "architectures": [ARCHITECTURES[text.model_type]],
        "model_type": f"llava_{text.model_type}",
        "vocab_size": rows,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": scaling,
        "pad_token_id": 0,  # <pad> is behind the original vocabulary
        "use_cache": True,
        "mm_vision_tower": tower,
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": strategies[config.vision_feature_select_strategy],
        "mm_patch_merge_type": "spatial_unpad" if anyres else "flat",
        "image_aspect_ratio": "anyres" if anyres else "pad",
        "image_grid_pinpoints": [[width, height] for height, width in config.image_grid_pinpoints]
        if anyres
        else None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,  # else the original looks for the tower's weights among these
        "tokenizer_model_max_length": context,
        "tokenizer_padding_side": "right",
    }


def _refuse_unlike(config: dict[str, Any], where: Path) -> None:
    """Refuse settings of the original that Hugging Face's LLaVA has no counterpart for."""
    merge, aspect = config.get("mm_patch_merge_type") or "flat", config.get("image_aspect_ratio")
    wrong = {
        "mm_projector_type": config.get("mm_projector_type") != "mlp2x_gelu",
        "mm_use_im_start_end": bool(config.get("mm_use_im_start_end")),
        "image_aspect_ratio": (merge, aspect) not in (("flat", "pad"), ("spatial_unpad", "anyres")),
        "s2": bool(config.get("s2")),
        "mm_vision_select_feature": str(config.get("mm_vision_select_feature") or "patch") not in _FEATURES,
    }
    for key, unlike in wrong.items():
        if unlike:
            extra = f" with mm_patch_merge_type {merge!r}" if key == "image_aspect_ratio" else ""
            raise InputError(
                f"{where}: {key} is {config.get(key)!r}{extra}; LLaVA-1.5 (mlp2x_gelu, pad) and 1.6 "
                "(mlp2x_gelu, anyres, spatial_unpad) are read"
            )
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if not isinstance(config.get(key), int):
            raise InputError(f"{where}: {key} is {config.get(key)!r}, expected a whole number")


def _refuse_inexpressible(config: Any) -> None:
    """Refuse what a Hugging Face model has and the original LLaVA does not."""
    text = config.text_config
    rope = dict(text.rope_parameters or {})
    reasons = {
        f"it is a {config.model_type}": config.model_type not in ("llava", "llava_next"),
        f"its language model is a {text.model_type}": text.model_type not in ARCHITECTURES,
        f"its vision tower is a {config.vision_config.model_type}": config.vision_config.model_type
        != "clip_vision_model",
        f"its layers use rope {rope.get('rope_type')}": rope.get("rope_type", "default")
        not in ("default", "linear", "dynamic"),
        "its heads are not hidden_size / num_attention_heads wide": getattr(text, "head_dim", None)
        not in (None, text.hidden_size // text.num_attention_heads),
        "its feed-forward layers have biases": bool(getattr(text, "mlp_bias", False)),
        "its projector is not two layers with biases and gelu": config.projector_hidden_act != "gelu"
        or not config.multimodal_projector_bias,
        "it reads several vision layers": not isinstance(config.vision_feature_layer, int),
        "its output layer is its embedding": bool(text.tie_word_embeddings or config.tie_word_embeddings),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(f"the original LLaVA cannot hold this model: {reason}; use --format hf or gguf")


def _pinpoints(config: dict[str, Any], where: Path) -> list[list[int]]:
    """Return `image_grid_pinpoints` as [height, width]: the original's are [width, height] (its
    select_best_resolution), a list or its text. The order of the list decides between equals."""
    given = config.get("image_grid_pinpoints")
    try:
        listed: Any = ast.literal_eval(given) if isinstance(given, str) else given
        return [[int(height), int(width)] for width, height in listed]
    except (SyntaxError, TypeError, ValueError):
        raise InputError(
            f"{where}: image_grid_pinpoints is {str(given)[:60]!r}, expected a list of [width, height]"
        ) from None


def last_vision_layer(config: Any) -> int:
    """Return the last vision layer whose output the projector reads (hidden state 0 precedes layer 0)."""
    chosen = config.vision_feature_layer
    count = config.vision_config.num_hidden_layers
    indices = [chosen] if isinstance(chosen, int) else chosen
    return max(index - 1 if index >= 0 else count + index for index in indices)
