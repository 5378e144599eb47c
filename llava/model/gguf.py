"""Write a LLaVA-1.5 or 1.6 model as the two GGUF files that llama.cpp and its family read.

    model-<type>.gguf    the language model (arch `llama`), its tokenizer and chat template
    mmproj-<type>.gguf   the CLIP vision tower and the projector (arch `clip`, projector type `mlp`)

Names, keys and layouts are those that llama.cpp's src/llama-arch.cpp and tools/mtmd/clip.cpp look for. Four
of them surprise:

- llama.cpp turns neighbouring pairs (0, 1), (2, 3) by one angle (rotary embedding), Hugging Face the
  pairs (0, d/2), (1, d/2 + 1): the rows of q and k are reordered within each head.
- The vision tower's fc1 is called `ffn_down` and fc2 `ffn_up`, the wrong way round. Old loaders know only
  this order, new ones see by the shapes that it is the old one.
- `clip.vision.feature_layer` counts the vision layers that are computed. Without it llama.cpp takes all
  but the last, which is right for most LLaVAs and silently wrong for others.
- `post_layernorm` is left out: LLaVA takes features from before it, llama.cpp would apply it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from peft.tuners.lora import LoraLayer

from llava.conversation import ConvTemplate
from llava.errors import InputError
from llava.files import atomic_folder, read_json
from llava.model.builder import DTYPES, LoadedModel, load_model, resolve_folder
from llava.model.formats import kind_of
from llava.model.gguf_vocab import read_vocab, write_vocab
from llava.model.run_dir import read_run_info

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
"""How matrices are stored; vectors and norms are float32 always."""
APPROXIMATE = (
    "approximate: llama.cpp cuts LLaVA-1.6 pictures into tiles in its own way and does not put image_newline "
    "between their rows, so answers about pictures differ from ours"
)
_BLOCK = 32  # weights that share a scale in q8_0; a row must be a multiple


@dataclass(frozen=True)
class Exported:
    """What was written, and what a user should know about it."""

    text: Path
    mmproj: Path
    notes: list[str]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, made when it is written. `exact`: float32 whatever the file's type."""

    name: str
    make: Callable[[], torch.Tensor]
    exact: bool = False


def export_gguf(
    model_path: str | Path,
    output: Path,
    *,
    model_base: str | Path | None = None,
    type: GgufType = "f16",
    overwrite: bool = False,
) -> Exported:
    """Write `model_path` (anything that load_model reads; adapters are merged) to the folder `output`.

    `overwrite` replaces an earlier GGUF folder. InputError, and nothing written, for a model that llama.cpp
    cannot compute as we do, or weights that the type cannot hold.
    """
    _need_gguf()
    if type not in get_args(GgufType):
        raise InputError(f"--type {type}: choose one of {', '.join(get_args(GgufType))}")
    _refuse_output(output, overwrite)
    loaded = load_whole(model_path, model_base)
    config = loaded.model.config
    refuse_unsupported(config)
    notes = [APPROXIMATE] if config.model_type == "llava_next" else []
    window = getattr(config.text_config, "sliding_window", None)
    if window is not None:
        notes.append(f"llama.cpp has no sliding window for this model: its context is cut to {window} tokens")
    fresh = output.with_name(f".{output.name}.exported") if output.exists() else output
    with atomic_folder(fresh) as temporary:
        odd = _write(temporary / f"model-{type}.gguf", "llama", type, partial(_text_header, loaded),
                     list(text_tensors(loaded.model)))  # fmt: skip
        odd += _write(temporary / f"mmproj-{type}.gguf", "clip", type, partial(_vision_header, loaded),
                      list(vision_tensors(loaded.model)))  # fmt: skip
    if fresh != output:
        shutil.rmtree(output)
        fresh.replace(output)
    if odd:
        notes.append(f"{len(odd)} matrices have rows of no multiple of {_BLOCK} and are f16: {odd[0]}, ...")
    return Exported(output / f"model-{type}.gguf", output / f"mmproj-{type}.gguf", notes)


def load_whole(model_path: str | Path, model_base: str | Path | None) -> LoadedModel:
    """The model on the CPU: a whole model in the type it is stored in, an adapter merged in float32.

    InputError for a run on a quantised base, whose weights are not those of its folder.
    """
    folder = resolve_folder(model_path)
    kind, dtype = kind_of(folder), torch.float32
    if kind in ("hf", "original"):
        config = read_json(folder / "config.json")
        dtype = DTYPES.get(config.get("dtype") or config.get("torch_dtype"), dtype)
    if kind == "run" and read_run_info(folder).bits is not None:
        raise InputError(f"{folder} was trained on a quantised base; merge it first: scripts/merge_lora.py")
    loaded = load_model(model_path, model_base, device="cpu", dtype=dtype)
    for module in loaded.model.modules():
        if isinstance(module, LoraLayer):
            module.merge()  # in the base's type, float32
    return loaded


def refuse_unsupported(config: Any) -> None:
    """InputError, one line, if llama.cpp's `llama` and `mlp` cannot compute this model."""
    if config.model_type == "llava_onevision":
        raise InputError(
            "GGUF cannot hold LLaVA-OneVision: llama.cpp has no SigLIP tower with its tiles; serve it with "
            "vLLM or SGLang from the Hugging Face folder (--format hf)"
        )
    text, vision = config.text_config, config.vision_config
    layer, layers = config.vision_feature_layer, vision.num_hidden_layers
    rope = text.rope_parameters.get("rope_type", "default")
    wrong = {
        f"its language model is a {text.model_type}": text.model_type not in ("llama", "mistral"),
        f"hidden_act is {text.hidden_act!r}, not 'silu'": text.hidden_act != "silu",
        f"rope_type is {rope!r}": rope not in ("default", "linear", "llama3"),
        f"its vision tower is a {vision.model_type}": vision.model_type != "clip_vision_model",
        f"the vision tower's hidden_act is {vision.hidden_act!r}": vision.hidden_act
        not in ("quick_gelu", "gelu"),
        f"vision_feature_layer is {layer}": not isinstance(layer, int) or not -layers <= layer <= layers,
        "the class token is kept (vision_feature_select_strategy)": config.vision_feature_select_strategy
        != "default",
        "the projector has no bias": not config.multimodal_projector_bias,
        f"projector_hidden_act is {config.projector_hidden_act!r}, not 'gelu'": config.projector_hidden_act
        != "gelu",
    }
    for reason, holds in wrong.items():
        if holds:
            raise InputError(
                f"GGUF cannot hold this model: {reason}; serve the Hugging Face folder with vLLM"
            )


def text_tensors(model: Any) -> Iterator[Tensor]:
    """The language model's tensors by llama.cpp's names, from a LLaVA of transformers 5."""
    config = model.config.text_config
    head_dim = _head_dim(config)
    language = "model.language_model."
    yield _weight(model, language + "embed_tokens", "token_embd")
    frequencies = _rope_frequencies(model, head_dim)
    if frequencies is not None:
        yield Tensor("rope_freqs.weight", lambda: frequencies, exact=True)
    for number in range(config.num_hidden_layers):
        layer, block = f"{language}layers.{number}.", f"blk.{number}."
        for ours, theirs in _TEXT_LAYER.items():
            permuted = head_dim if theirs in ("attn_q", "attn_k") else None
            yield from _weight_and_bias(model, layer + ours, block + theirs, permuted)
    yield _weight(model, language + "norm", "output_norm")
    if not config.tie_word_embeddings:  # else llama.cpp takes token_embd
        yield _weight(model, "lm_head", "output")


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


def vision_tensors(model: Any) -> Iterator[Tensor]:
    """The vision tower's and projector's tensors by the names of llama.cpp's clip.cpp."""
    tower = "model.vision_tower."
    embeddings = model.get_submodule(tower + "embeddings")
    yield Tensor("v.class_embd", lambda: embeddings.class_embedding, exact=True)
    # convolutions and additions take float types only
    yield _weight(model, tower + "embeddings.patch_embedding", "v.patch_embd", exact=True)
    yield _weight(model, tower + "embeddings.position_embedding", "v.position_embd", exact=True)
    yield from _weight_and_bias(model, tower + "pre_layrnorm", "v.pre_ln")
    for number in range(model.config.vision_config.num_hidden_layers):
        for ours, theirs in _VISION_LAYER.items():
            name = f"{tower}encoder.layers.{number}.{ours}"
            yield from _weight_and_bias(model, name, f"v.blk.{number}.{theirs}")
    yield from _weight_and_bias(model, "model.multi_modal_projector.linear_1", "mm.0")
    yield from _weight_and_bias(model, "model.multi_modal_projector.linear_2", "mm.2")
    if model.config.model_type == "llava_next":
        yield Tensor("v.image_newline", lambda: model.model.image_newline, exact=True)


def _plain(model: Any, path: str) -> Any:
    module = model.get_submodule(path)
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _weight(model: Any, path: str, name: str, *, exact: bool = False) -> Tensor:
    return Tensor(f"{name}.weight", lambda: _plain(model, path).weight, exact)


def _weight_and_bias(model: Any, path: str, name: str, head_dim: int | None = None) -> Iterator[Tensor]:
    """`head_dim` is given for the rows that the rotary embedding turns."""

    def made(attribute: str) -> torch.Tensor:
        tensor: torch.Tensor = getattr(_plain(model, path), attribute)
        return tensor if head_dim is None else permute(tensor, head_dim)

    yield Tensor(f"{name}.weight", lambda: made("weight"))
    if getattr(_plain(model, path), "bias", None) is not None:
        yield Tensor(f"{name}.bias", lambda: made("bias"))


def permute(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows (heads x head_dim, ...) from Hugging Face's rotary order to llama.cpp's: row i of a head's first
    half goes to 2 i, row i of its second half to 2 i + 1."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _rope_frequencies(model: Any, head_dim: int) -> torch.Tensor | None:
    """What llama.cpp divides each rotary frequency by, (head_dim / 2,); None where that is 1 throughout."""
    rope = model.config.text_config.rope_parameters
    if rope.get("rope_type", "default") == "default":
        return None
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / rope["rope_theta"] ** steps
    scaled: torch.Tensor = model.model.language_model.rotary_emb.inv_freq
    return plain / scaled.float().cpu()


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _text_header(loaded: LoadedModel, writer: Any) -> None:
    text = loaded.model.config.text_config
    window = getattr(text, "sliding_window", None)
    longest = int(text.max_position_embeddings)
    writer.add_name(loaded.model_id)
    writer.add_vocab_size(text.vocab_size)
    writer.add_context_length(longest if window is None else min(window, longest))
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(_head_dim(text))
    writer.add_value_length(_head_dim(text))
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(_head_dim(text))
    writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
    write_vocab(writer, read_vocab(loaded.tokenizer, text.vocab_size, loaded.template.stop[0]))
    writer.add_chat_template(chat_template(loaded.template))


def chat_template(template: ConvTemplate) -> str:
    """The conv mode as Jinja for llama.cpp and its bindings.

    They put a media marker where a picture goes (`<__media__>`, the server `<__media_...__>`): as text, as
    the text of a part of a content list, or they leave it to the template. Each marker stands on a line of
    its own, as in training.
    """
    return (
        "{% set told = namespace(messages=[], text='') %}"
        "{% for message in messages %}"
        "{% if message.content is string %}{% set told.text = message.content %}"
        "{% else %}{% set told.text = '' %}{% for part in message.content %}"
        "{% if part.text is defined %}{% set told.text = told.text + part.text %}"
        "{% else %}{% set told.text = told.text + '<__media__>' %}{% endif %}{% endfor %}{% endif %}"
        "{% if '<__media' in told.text %}"
        "{% set told.text = told.text.split('__>\\n') | join('__>') %}"
        "{% set told.text = told.text.split('__>') | join('__>\\n') %}{% endif %}"
        "{% set told.messages = told.messages + [{'role': message.role, 'content': told.text}] %}"
        "{% endfor %}{% set messages = told.messages %}" + template.jinja(generation=False)
    )


def _vision_header(loaded: LoadedModel, writer: Any) -> None:
    config, images = loaded.model.config, loaded.image_processor
    vision, layer = config.vision_config, config.vision_feature_layer
    writer.add_name(loaded.model_id)
    writer.add_clip_has_vision_encoder(True)
    writer.add_bool("clip.has_text_encoder", False)  # required by loaders of 2024
    writer.add_bool("clip.has_llava_projector", True)  # likewise
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(vision.image_size)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_block_count(vision.num_hidden_layers)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.layer_norm_eps)
    writer.add_vision_projection_dim(config.text_config.hidden_size)
    writer.add_vision_image_mean([float(value) for value in images.image_mean])
    writer.add_vision_image_std([float(value) for value in images.image_std])
    writer.add_vision_use_gelu(vision.hidden_act == "gelu")
    # hidden_states[k] is what k layers make; -1 is what all of them make
    layers = layer if layer >= 0 else vision.num_hidden_layers + 1 + layer
    writer.add_array("clip.vision.feature_layer", [layers])
    if config.model_type == "llava_next":
        writer.add_description(APPROXIMATE)
        writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
        # Hugging Face writes (height, width), llama.cpp and the original (width, height)
        sides = [side for height, width in config.image_grid_pinpoints for side in (width, height)]
        writer.add_array("clip.vision.image_grid_pinpoints", sides)


def _write(
    path: Path, arch: str, type: GgufType, header: Callable[[Any], None], tensors: list[Tensor]
) -> list[str]:
    """Write one file, a tensor at a time; returns the names of matrices that q8_0 could not take."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    wanted = kinds[type.upper()]
    ftypes = gguf.LlamaFileType
    file_type = {
        "f32": ftypes.ALL_F32, "f16": ftypes.MOSTLY_F16, "bf16": ftypes.MOSTLY_BF16,
        "q8_0": ftypes.MOSTLY_Q8_0,
    }[type]  # fmt: skip
    writer = gguf.GGUFWriter(path, arch)
    header(writer)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    stored, odd = [], []
    for tensor in tensors:
        shape = tensor.make().shape
        kind = kinds.F32 if tensor.exact or len(shape) < 2 else wanted
        if kind == kinds.Q8_0 and shape[-1] % _BLOCK:
            odd.append(tensor.name)
            kind = kinds.F16
        stored.append(kind)
        rows = gguf.quant_shape_to_byte_shape(tuple(shape), kind)
        whole = kind in (kinds.F32, kinds.F16)
        # of other types the writer is told the bytes and finds the shape itself
        told = tuple(shape) if whole else rows
        writer.add_tensor_info(
            tensor.name, told, np.dtype(np.float32 if whole else np.uint8), int(np.prod(rows)), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, stored, strict=True):
        values = tensor.make().detach().float().contiguous().numpy()
        with np.errstate(over="ignore"):
            data = gguf.quantize(values, kind)
        if kind == kinds.F16 and not np.isfinite(data).all():
            raise InputError(f"{tensor.name} does not fit {type}; export with --type bf16")
        writer.write_tensor_data(data)
    writer.close()
    return odd


def _refuse_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already; name another folder or pass --overwrite")
    if not output.is_dir() or {path.suffix for path in output.iterdir()} != {".gguf"}:
        raise InputError(f"{output} is no folder of GGUF files alone and is not overwritten")


def _need_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise InputError("writing GGUF needs the gguf package: pip install 'llava-inspect[gguf]'")
