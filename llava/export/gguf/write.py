"""Write a LLaVA-1.5 or 1.6 model as the two GGUF files that llama.cpp and its family read.

    model-<type>.gguf    the language model (arch `llama`), its tokenizer and chat template
    mmproj-<type>.gguf   the CLIP vision tower and the projector (arch `clip`, projector type `mlp`)

Keys are those that llama.cpp's src/llama-arch.cpp and tools/mtmd/clip.cpp look for, tensors are
llava.export.gguf.tensors' business. Three things surprise:

- `clip.vision.feature_layer` counts the vision layers that are computed. Without it llama.cpp takes all
  but the last, which is right for most LLaVAs and silently wrong for others.
- `post_layernorm` is left out: LLaVA takes features from before it, llama.cpp would apply it.
- CLIP's positions are moved by a row for llama.cpp's builds of today (`tensors.place_positions`).

Tensors stream: each is read, merged with the adapter if there is one, and written, so that memory holds one
of them in float32, however large the model is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from yaml import YAMLError

from llava.common.cli import command_name
from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.conversation import ConvTemplate
from llava.export.gguf.tensors import (
    BLOCK,
    BUILD_KEY,
    ROPE_FACTORS,
    GgufFile,
    GgufType,
    LlamaCppBuild,
    gguf_name,
    head_dim,
    is_turned,
    permute,
    place_positions,
    rope_factors,
)
from llava.export.gguf.vocab import read_vocab, spaces_differ, write_vocab
from llava.export.merge import find_sources, merged_tensors
from llava.export.writers import Companions, read_companions
from llava.mm_utils import get_model_name_from_path
from llava.model.adapters import Adapter, notes_on_base, read_adapter
from llava.model.builder import empty_model, make_processor
from llava.model.folder import ModelFolder, open_model_folder
from llava.model.formats import HEAD, VISION
from llava.model.shards import new_folder

APPROXIMATE = (
    "approximate: llama.cpp cuts LLaVA-1.6 pictures into tiles in its own way and does not put image_newline "
    "between their rows, so answers about pictures differ from ours"
)


@dataclass(frozen=True)
class Exported:
    """Holds what was written, and what a user should know about it."""

    text: Path
    mmproj: Path
    notes: list[str]


@dataclass(frozen=True)
class GgufSource:
    """Holds a model that is to be written: what belongs to it and its tensors under their names in memory,
    float32, one at a time in the order of `shapes`. `notes` is what its adapter has to say."""

    name: str
    license: str | None
    companions: Companions
    shapes: dict[str, tuple[int, ...]]
    tensors: Iterator[tuple[str, torch.Tensor]]
    notes: list[str]


def export_gguf(
    model_path: str | Path | ModelFolder,
    output: Path,
    *,
    model_base: str | Path | None = None,
    type: GgufType = "f16",
    build: LlamaCppBuild = "current",
    overwrite: bool = False,
) -> Exported:
    """Write a model as the two GGUF files.

    Args:
        model_path: A whole model in either format, or an adapter, which is merged.
        output: The folder to write.
        model_base: The base of an adapter, if it is not where the adapter says.
        type: How matrices are stored.
        build: The builds of llama.cpp that the files are for.
        overwrite: Replace an earlier folder of GGUF files.

    Raises:
        InputError: llama.cpp cannot compute the model as we do, or the type cannot hold its weights. Nothing
            is written then.
    """
    _require_gguf()
    if type not in get_args(GgufType):
        raise InputError(f"--type {type}: choose one of {', '.join(get_args(GgufType))}")
    _refuse_output(output, overwrite)
    source = open_source(model_path, model_base)
    notes = _notes(source)
    with new_folder(output, overwrite=overwrite) as temporary:
        odd = _write(temporary, source, type, build)
    if odd:
        notes.append(f"{len(odd)} matrices have rows of no multiple of {BLOCK} and are f16: {odd[0]}, ...")
    return Exported(output / f"model-{type}.gguf", output / f"mmproj-{type}.gguf", notes)


def open_source(model_path: str | Path | ModelFolder, model_base: str | Path | None) -> GgufSource:
    """Open the model to write. InputError for what cannot be loaded, what GGUF cannot hold, and a run on a
    quantised base, whose weights are not those of its folder."""
    folder = open_model_folder(model_path)
    base, run = folder, None
    if not folder.is_model:
        [found] = find_sources([folder], model_base)
        base, run = found.base, found.run
        if found.info is not None and found.info.bits is not None:
            merge = command_name("merge", "scripts/merge_lora.py")
            raise InputError(f"{folder} was trained on a quantised base; merge it first: {merge}")
    elif model_base is not None:
        raise InputError(f"{folder.name} is a whole model and takes no --model-base")
    config = base.config
    refuse_unsupported(config)
    model = empty_model(config)
    adapters: list[tuple[Adapter, float]] = []
    notes: list[str] = []
    if base is not folder:
        adapter = read_adapter(folder, model)
        adapters, notes = [(adapter, 1.0)], list(notes_on_base(adapter, base.path))
    companions = read_companions(base, run)
    make_processor(
        config, companions.tokenizer, companions.image_processor, companions.template
    )  # its checks
    left_out = {HEAD} if config.tie_word_embeddings else set()  # llama.cpp takes token_embd
    stored = base.open_tensors()
    shapes = {
        name: tensor.shape
        for name, tensor in stored.items()
        if name not in left_out and not name.startswith(f"{VISION}post_layernorm.")
    }
    merged = merged_tensors(base, stored, model, folder.run_info, adapters, torch.float32)
    return GgufSource(
        name=get_model_name_from_path(folder.path.resolve().as_posix()),
        license=_license(folder.path),
        companions=companions,
        shapes=shapes,
        tensors=((name, tensor) for name, tensor in merged if name in shapes),
        notes=notes,
    )


def _license(folder: Path) -> str | None:
    """Return the licence that the model card (README.md) in the folder names."""
    import gguf

    try:
        found = gguf.Metadata.load_model_card(folder).get("license")
    except (YAMLError, OSError, ValueError):  # a card is for people: a broken one stops nothing
        return None
    return found if isinstance(found, str) else None


def _notes(source: GgufSource) -> list[str]:
    config, notes = source.companions.config, list(source.notes)
    if config.model_type == "llava_next":
        notes.append(APPROXIMATE)
    window = getattr(config.text_config, "sliding_window", None)
    if window is not None:
        notes.append(f"llama.cpp has no sliding window for this model: its context is cut to {window} tokens")
    if spaces_differ(source.companions.tokenizer):
        notes.append(
            "llama.cpp puts a space before text that follows a special token or a picture, this model's "
            "tokenizer does not: prompts are read a little differently"
        )
    stop = source.companions.template.stop[0]
    if stop not in source.companions.tokenizer.get_vocab():
        notes.append(f"answers end with {stop!r}, which is no token: give it to clients as a stop text")
    return notes


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


def _text_header(source: GgufSource, writer: Any) -> None:
    given = source.companions
    text = given.config.text_config
    window = getattr(text, "sliding_window", None)
    longest = int(text.max_position_embeddings)
    writer.add_vocab_size(text.vocab_size)
    writer.add_context_length(longest if window is None else min(window, longest))
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(head_dim(text))
    writer.add_value_length(head_dim(text))
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim(text))
    writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
    write_vocab(writer, read_vocab(given.tokenizer, text.vocab_size, given.template.stop[0]))
    writer.add_chat_template(chat_template(given.template))


def chat_template(template: ConvTemplate) -> str:
    """Return the conv mode as Jinja for llama.cpp and its bindings.

    They put a media marker where an image goes (`<__media__>`, the server `<__media_...__>`): as text, as
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


def _vision_header(source: GgufSource, writer: Any) -> None:
    config, images = source.companions.config, source.companions.image_processor
    vision, layer = config.vision_config, config.vision_feature_layer
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


def _write(folder: Path, source: GgufSource, type: GgufType, build: LlamaCppBuild) -> list[str]:
    """Write both files, a tensor at a time; returns the names of matrices that q8_0 could not take."""
    text = GgufFile(folder / f"model-{type}.gguf", "llama", type)
    vision = GgufFile(folder / f"mmproj-{type}.gguf", "clip", type)
    with closing(text), closing(vision):
        for writer, kind in ((text.writer, "model"), (vision.writer, "mmproj")):
            writer.add_type(kind)
            writer.add_name(source.name)
            if source.license is not None:
                writer.add_license(source.license)
        _text_header(source, text.writer)
        _vision_header(source, vision.writer)
        vision.writer.add_string(BUILD_KEY, build)
        factors = rope_factors(source.companions.config.text_config)
        if factors is not None:
            text.announce(ROPE_FACTORS, tuple(factors.shape))
        places = {name: gguf_name(name) for name in source.shapes}
        files = {name: vision if place.startswith(("v.", "mm.")) else text for name, place in places.items()}
        for name, shape in source.shapes.items():
            files[name].announce(places[name], shape)
        text.start()
        vision.start()
        if factors is not None:
            text.add(ROPE_FACTORS, factors)
        size = head_dim(source.companions.config.text_config)
        for name, tensor in source.tensors:
            rows = permute(tensor, size) if is_turned(places[name]) else tensor
            files[name].add(places[name], place_positions(name, rows, build))
    return text.odd + vision.odd


def _refuse_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already; name another folder or pass --overwrite")
    if not output.is_dir() or any(path.suffix != ".gguf" for path in output.iterdir()):
        raise InputError(f"{output} is no folder of GGUF files alone and is not overwritten")


def _require_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"writing GGUF needs the gguf package: {how_to_install('gguf')}")
