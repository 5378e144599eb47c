"""The tensors of the two GGUF files: their names, the order of their rows, their types, a file of them.

Names and layouts are those that llama.cpp's src/llama-arch.cpp and tools/mtmd/clip.cpp look for. Two of them
surprise:

- llama.cpp turns neighbouring pairs (0, 1), (2, 3) by one angle (rotary embedding), Hugging Face the
  pairs (0, d/2), (1, d/2 + 1): the rows of q and k are reordered within each head.
- The vision tower's fc1 is called `ffn_down` and fc2 `ffn_up`, the wrong way round. Old loaders know only
  this order, new ones see by the shapes that it is the old one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava.common.errors import InputError
from llava.model.formats import EMBEDDING, HEAD, LANGUAGE, PROJECTOR, VISION

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
"""How matrices are stored; vectors and norms are float32 always."""
LlamaCppBuild = Literal["current", "stock"]
"""The builds of llama.cpp that a file is for, by where they put CLIP's class token: `current` those since May
2025 (its pull request 13321), `stock` those before, and others that read the file as CLIP has it."""
BUILD_KEY = "llava_inspect.llamacpp"
"""The key of the mmproj file that names its builds."""
BLOCK = 32  # weights that share a scale in q8_0; a row must be a multiple
ROPE_FACTORS = "rope_freqs.weight"

POSITIONS = f"{VISION}embeddings.position_embedding.weight"
_SINGLE = {
    EMBEDDING: "token_embd.weight",
    f"{LANGUAGE}norm.weight": "output_norm.weight",
    HEAD: "output.weight",
    f"{VISION}embeddings.class_embedding": "v.class_embd",
    f"{VISION}embeddings.patch_embedding.weight": "v.patch_embd.weight",
    POSITIONS: "v.position_embd.weight",
    "model.image_newline": "v.image_newline",
}
_MODULES = {
    f"{VISION}pre_layrnorm": "v.pre_ln",
    f"{PROJECTOR}linear_1": "mm.0",
    f"{PROJECTOR}linear_2": "mm.2",
}
_TEXT_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_VISION_LAYER = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_down",
    "mlp.fc2": "ffn_up",
}
_LAYER = re.compile(
    rf"(?:(?P<text>{re.escape(LANGUAGE)})|{re.escape(VISION)}encoder\.)layers\.(?P<number>\d+)\."
    r"(?P<part>.+)\.(?P<end>weight|bias)"
)
_EXACT = ("v.class_embd", "v.patch_embd.weight", "v.position_embd.weight", "v.image_newline", ROPE_FACTORS)
"""float32 in files of any type: convolutions and additions take float types only."""


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor of transformers 5."""
    path, _, end = name.rpartition(".")
    if name in _SINGLE:
        return _SINGLE[name]
    if path in _MODULES:
        return f"{_MODULES[path]}.{end}"
    layer = _LAYER.fullmatch(name)
    parts = _TEXT_LAYER if layer and layer["text"] else _VISION_LAYER
    if layer is None or layer["part"] not in parts:
        raise InputError(f"GGUF has no place for {name}; serve the Hugging Face folder with vLLM")
    block = "blk" if layer["text"] else "v.blk"
    return f"{block}.{layer['number']}.{parts[layer['part']]}.{layer['end']}"


def is_turned(name: str) -> bool:
    """Return whether the rotary embedding turns what a tensor of the file (by its name there) makes."""
    return name.startswith("blk.") and name.split(".")[2] in ("attn_q", "attn_k")


def permute(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder rows (heads x head_dim, ...) from Hugging Face's rotary order to llama.cpp's: row i of a
    head's first half goes to 2 i, row i of its second half to 2 i + 1."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def place_positions(name: str, tensor: torch.Tensor, build: LlamaCppBuild) -> torch.Tensor:
    """Return a tensor of transformers 5, if it is CLIP's positions (1 + patches, width) with its rows where
    `build` looks for them.

    CLIP adds row 0 to the class token, which comes first, and row 1 + i to patch i. Since May 2025 llama.cpp
    puts the class token behind the patches and still adds row i to what stands at place i (its issue 25814):
    each patch gets its neighbour's position. With the rows moved up by one and row 0 behind them, patches
    and class token get their own again, and attention does not care for their order.

    What stays wrong: llama.cpp then takes places 1 to n for the n patches, which are patches 1 to n - 1 and
    the class token. Patch 0, the top left corner, never reaches the language model, the others stand one
    place early, and what the class token became stands last. No file can mend that.
    """
    return torch.roll(tensor, -1, dims=0) if name == POSITIONS and build == "current" else tensor


def rope_factors(text: Any) -> torch.Tensor | None:
    """Return what llama.cpp divides each rotary frequency by, (head_dim / 2,); None where that is 1
    throughout."""
    rope = text.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    steps = torch.arange(0, head_dim(text), 2, dtype=torch.float32) / head_dim(text)
    plain = 1.0 / rope["rope_theta"] ** steps
    scaled, _ = ROPE_INIT_FUNCTIONS[kind](text, torch.device("cpu"))
    return plain / scaled


def head_dim(text: Any) -> int:
    """Return the head dimension of the language model whose config is `text`."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


class GgufFile:
    """Writes a GGUF file: keys and values go to `writer`, tensors are announced, all that is written by
    `start`, and the tensors' values are added in the same order. `odd` are the matrices that q8_0 cannot
    hold."""

    def __init__(self, path: Path, arch: str, type: GgufType) -> None:
        import gguf

        self._gguf: Any = gguf
        self._type = type
        self._kinds: dict[str, Any] = {}
        self._left: Iterator[str] = iter(())
        self.odd: list[str] = []
        self.writer: Any = gguf.GGUFWriter(path, arch)
        file_types = gguf.LlamaFileType
        self.writer.add_file_type(
            {
                "f32": file_types.ALL_F32, "f16": file_types.MOSTLY_F16, "bf16": file_types.MOSTLY_BF16,
                "q8_0": file_types.MOSTLY_Q8_0,
            }[type]
        )  # fmt: skip
        self.writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def announce(self, name: str, shape: tuple[int, ...]) -> None:
        kinds = self._gguf.GGMLQuantizationType
        kind = kinds.F32 if name in _EXACT or len(shape) < 2 else kinds[self._type.upper()]
        if kind == kinds.Q8_0 and shape[-1] % BLOCK:
            self.odd.append(name)
            kind = kinds.F16
        self._kinds[name] = kind
        rows = self._gguf.quant_shape_to_byte_shape(shape, kind)
        whole = kind in (kinds.F32, kinds.F16)
        # of other types the writer is told the bytes and finds the shape itself
        stored_shape, unit = (shape, np.float32) if whole else (rows, np.uint8)
        self.writer.add_tensor_info(name, stored_shape, np.dtype(unit), int(np.prod(rows)), raw_dtype=kind)

    def start(self) -> None:
        self._left = iter(self._kinds)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Raise an InputError if the values do not fit the type."""
        kind = self._kinds[name]
        assert next(self._left) == name  # the writer goes by order alone
        with np.errstate(over="ignore"):
            data = self._gguf.quantize(tensor.float().contiguous().numpy(), kind)
        if kind == self._gguf.GGMLQuantizationType.F16 and not np.isfinite(data).all():
            raise InputError(f"{name} does not fit {self._type}; export with --type bf16")
        self.writer.write_tensor_data(data)

    def close(self) -> None:
        self.writer.close()
