"""Read a folder in the original LLaVA's format (liuhaotian/llava-v1.5-*, -v1.6-*) as Hugging Face's LLaVA.

Such a folder has the language model, the projector and the mm_* settings. The vision tower's weights may be
among them; its config and picture settings are in a folder of its own that `mm_vision_tower` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from llava.common.errors import InputError, one_line
from llava.common.files import read_json
from llava.model.formats import (
    LANGUAGE,
    PROJECTOR,
    ROW_MULTIPLE,
    UNUSABLE,
    VISION,
    hf_config,
    in_memory,
    kind_of,
)
from llava.model.sentencepiece import tokenizer_of_pieces
from llava.model.shards import StoredTensor, check_floating, open_file, open_weights, some

EMBEDDING, HEAD = f"{LANGUAGE}embed_tokens.weight", "lm_head.weight"
EXTRA_ROWS = Path("huggingface") / "extra_rows.safetensors"
"""Beside an original folder that we wrote: the rows of EMBEDDING and HEAD behind the original vocabulary,
which Hugging Face's form has. In a folder of its own, so that no client takes it for a shard."""
_OTHER_HALF = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")
"""What a whole CLIP has besides the vision tower."""
_CLIP_L_336 = "openai/clip-vit-large-patch14-336"
"""The tower of every released LLaVA-1.5 and 1.6: known here, so that a checkpoint that has its weights
inside needs no other folder."""


def original_config(folder: Path) -> Any:
    """The LlavaConfig or LlavaNextConfig that an original folder stands for; InputError if none does."""
    config = read_json(folder / "config.json")
    tower = find_tower(folder, config)
    try:
        vision = _known_tower() if tower is None else CLIPVisionConfig.from_pretrained(str(tower))
    except UNUSABLE as error:
        raise InputError(
            f"{tower}: no usable config.json of a CLIP vision tower ({one_line(error)})"
        ) from None
    if not isinstance(config.get("vocab_size"), int):
        raise InputError(f"{folder / 'config.json'}: vocab_size is {config.get('vocab_size')!r}")
    return hf_config(config, vision, _rows(folder, config["vocab_size"]), folder / "config.json")


def original_tokenizer(folder: Path) -> Any:
    return tokenizer_of_pieces(folder)


def original_image_processor(folder: Path) -> Any:
    """The vision tower's pictures, padded to a square (1.5) or in tiles (1.6) as the config says."""
    config = read_json(folder / "config.json")
    tower, made = find_tower(folder, config), original_config(folder)
    try:
        if tower is None:
            values = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336)
        else:
            values = AutoImageProcessor.from_pretrained(str(tower), backend="pil")
        given: dict[str, Any] = {
            key: getattr(values, key)
            for key in ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
        }
        processor: Any = (
            LlavaImageProcessorPil(**given, do_pad=True)
            if made.model_type == "llava"
            else LlavaNextImageProcessorPil(**given, image_grid_pinpoints=made.image_grid_pinpoints)
        )
    except UNUSABLE as error:
        raise InputError(
            f"{tower}: no usable preprocessor_config.json of a CLIP vision tower ({one_line(error)})"
        ) from None
    return processor


def find_tower(folder: Path, config: dict[str, Any]) -> Path | None:
    """The folder that `mm_vision_tower` names: in `folder`, or as it stands; a Hub name is fetched.

    A checkpoint that was moved keeps the place where the tower was, so the last part of the name counts
    first. None for the one that is known here. InputError with the remedy for any other that is absent.
    """
    name = config.get("mm_vision_tower") or config.get("vision_tower")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{folder / 'config.json'}: mm_vision_tower is {name!r}; name the vision tower's folder"
        )
    for place in (folder / Path(name).name, folder / name, Path(name)):
        if (place / "config.json").is_file():
            return place
    if name == _CLIP_L_336 and kind_of(folder) == "original" and has_tower_inside(folder):
        return None
    from llava.model.builder import resolve_folder  # here: builder imports this module

    try:
        return resolve_folder(name)
    except InputError:
        raise InputError(
            f"{folder}: its vision tower {name!r} is not here; put that folder at {folder / Path(name).name}"
        ) from None


def original_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of an original folder and its tower, under their names in memory, with `<image>`, `<pad>`
    and the padding behind the vocabulary's rows. They may be stored in different types.

    The tower's weights inside the checkpoint are its own (it may have been trained) and go before the
    tower folder's. InputError where the rows are neither the tokenizer's nor the config's.
    """
    config = read_json(folder / "config.json")
    tensors = _named(folder, original=True)
    if not any(name.startswith(VISION) for name in tensors):
        tensors |= _tower_tensors(find_tower(folder, config), folder)
    check_floating(tensors, folder)
    if not any(name.startswith(PROJECTOR) for name in tensors):
        raise InputError(
            f"{folder}: the weights have no mm_projector; this is a checkpoint that the original's trainer "
            "did not finish"
        )
    vocabulary = len(original_tokenizer(folder)) - 2  # without <image> and <pad>
    for name in (EMBEDDING, HEAD):
        if name in tensors:
            rows = tensors[name].shape[0]
            if not rows == vocabulary == config.get("vocab_size"):
                raise InputError(
                    f"{folder}: {name} has {rows} rows, the tokenizer {vocabulary} tokens and config.json "
                    f"vocab_size {config.get('vocab_size')}: the vocabulary was resized, save all as one"
                )
            tensors[name] = _with_extra_rows(folder, name, tensors[name], _rows(folder, rows))
    return tensors


def whole_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a whole model in either format under their names in memory."""
    if kind_of(folder) == "original":
        return original_tensors(folder)
    tensors = _named(folder, original=False)
    check_floating(tensors, folder)
    return tensors


def _named(folder: Path, *, original: bool) -> dict[str, StoredTensor]:
    """The tensors of `folder`, spelled either way, under their names in memory."""
    tensors: dict[str, StoredTensor] = {}
    for stored, tensor in open_weights(folder).items():
        name = in_memory(stored, original=original)
        if name in tensors:
            raise InputError(
                f"{folder}: two tensors are {name}, one of them stored as {stored}; it mixes two models"
            )
        if name is not None:
            tensors[name] = tensor
    return tensors


def require_whole(tensors: Mapping[str, StoredTensor], config: Any, folder: Path) -> None:
    """InputError listing what is left over on either side unless `tensors` are a model of `config`'s."""
    with torch.device("meta"):
        expected: dict[str, Any] = AutoModelForImageTextToText.from_config(config).state_dict()
    missing = expected.keys() - tensors.keys()
    if config.tie_word_embeddings:
        missing -= {HEAD}
    shapes = [
        f"{name} {tensors[name].shape} where the config needs {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != tuple(expected[name].shape)
    ]
    problems = {
        "missing": missing,
        "unexpected": tensors.keys() - expected.keys(),
        "of another shape": shapes,
    }
    told = [f"{len(names)} {kind}: {some(names)}" for kind, names in problems.items() if names]
    if told:
        raise InputError(f"{folder}: its tensors are not those of its config.json; {'; '.join(told)}")


def _tower_tensors(tower: Path | None, folder: Path) -> dict[str, StoredTensor]:
    if tower is None:
        raise InputError(f"{folder}: the weights of its vision tower are not there")
    tensors = {}
    for stored, tensor in open_weights(tower).items():
        name = stored.removeprefix("vision_model.")
        if stored.startswith(_OTHER_HALF) or in_memory(stored) is None:
            continue
        tensors[VISION + name] = tensor
    return tensors


def _rows(folder: Path, vocabulary: int) -> int:
    """The rows in Hugging Face's form: as they were where we wrote the folder, else with two more tokens
    and up to the next multiple."""
    extra = folder / EXTRA_ROWS
    if extra.is_file():
        kept = open_file(extra)
        if EMBEDDING not in kept:
            raise InputError(f"{extra}: lacks {EMBEDDING}; remove the file")
        return vocabulary + kept[EMBEDDING].shape[0]
    return -(-(vocabulary + 2) // ROW_MULTIPLE) * ROW_MULTIPLE


def _with_extra_rows(folder: Path, name: str, tensor: StoredTensor, rows: int) -> StoredTensor:
    """`tensor` (vocabulary, width) with rows behind it: those kept in the folder, else its mean row. Nothing
    reads them of the embedding, and a mean row of the output layer is never the likeliest."""

    def read() -> torch.Tensor:
        own = tensor.read()
        whole = torch.empty(rows, own.shape[1], dtype=own.dtype)
        whole[: len(own)] = own
        if (folder / EXTRA_ROWS).is_file():
            whole[len(own) :] = open_file(folder / EXTRA_ROWS)[name].read()
        else:
            whole[len(own) :] = own.mean(dim=0, dtype=torch.float32)
        return whole

    return StoredTensor((rows, tensor.shape[1]), tensor.dtype, read)


def has_tower_inside(folder: Path) -> bool:
    return any((in_memory(name, original=True) or "").startswith(VISION) for name in open_weights(folder))


def _known_tower() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
