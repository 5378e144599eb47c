"""Read the parts of a folder in the original LLaVA's format (liuhaotian/llava-v1.5-*, -v1.6-*).

Such a folder has the language model, the projector and the mm_* settings. The vision tower's weights may be
among them; its config and image settings are in a folder of its own that `mm_vision_tower` names.

Every function takes the folder and what was read of it before (`settings` is its config.json), which
llava.model.folder keeps together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from llava.common.errors import InputError, one_line
from llava.model.formats import (
    EMBEDDING,
    HEAD,
    PROJECTOR,
    ROW_MULTIPLE,
    UNUSABLE,
    VISION,
    name_in_memory,
    to_hf_config,
)
from llava.model.hub import resolve_folder
from llava.model.shards import StoredTensor, check_floating, open_file, open_model_tensors, open_weights

EXTRA_ROWS = Path("huggingface") / "extra_rows.safetensors"
"""Beside an original folder that we wrote: the rows of EMBEDDING and HEAD behind the original vocabulary,
which Hugging Face's form has. In a folder of its own, so that no client takes it for a shard."""
_NOT_VISION = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")
"""How the names of a whole CLIP's tensors begin that are not the vision tower's."""
_CLIP_L_336 = "openai/clip-vit-large-patch14-336"
"""The tower of every released LLaVA-1.5 and 1.6. Its settings are known here, so that a checkpoint with its
weights inside needs no other folder."""


def find_tower(folder: Path, settings: dict[str, Any]) -> Path | None:
    """Return the folder that `mm_vision_tower` names: in `folder`, or as it stands; a Hub name is fetched.

    A checkpoint that was moved keeps the place where the tower was, so the last part of the name counts
    first. None for _CLIP_L_336 where it is not on this machine: `fetch_tower` gets it if its weights are
    needed. InputError with the remedy for any other that is absent.
    """
    name = settings.get("mm_vision_tower") or settings.get("vision_tower")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"{folder / 'config.json'}: mm_vision_tower is {name!r}; name the vision tower's folder"
        )
    for place in (folder / Path(name).name, folder / name, Path(name)):
        if (place / "config.json").is_file():
            return place
    return None if name == _CLIP_L_336 else fetch_tower(folder, name)


def fetch_tower(folder: Path, name: str = _CLIP_L_336) -> Path:
    """Return the folder of the tower of Hub name `name`; InputError saying where to put it for `folder`."""
    try:
        return resolve_folder(name)
    except InputError:
        raise InputError(
            f"{folder}: its vision tower {name!r} is not here; put that folder at {folder / Path(name).name}"
        ) from None


def read_original_config(folder: Path, settings: dict[str, Any], tower: Path | None) -> Any:
    """Return the LlavaConfig or LlavaNextConfig that an original folder stands for.

    `tower` is `find_tower`'s. InputError if Hugging Face's LLaVA has no counterpart.
    """
    try:
        vision = _clip_l_336_config() if tower is None else CLIPVisionConfig.from_pretrained(str(tower))
    except UNUSABLE as error:
        raise InputError(
            f"{tower}: no usable config.json of a CLIP vision tower ({one_line(error)})"
        ) from None
    vocabulary = settings.get("vocab_size")
    if not isinstance(vocabulary, int):
        raise InputError(f"{folder / 'config.json'}: vocab_size is {vocabulary!r}")
    return to_hf_config(settings, vision, _hf_rows(folder, vocabulary), folder / "config.json")


def read_original_image_processor(tower: Path | None, config: Any) -> Any:
    """Return the image processor of an original folder whose Hugging Face config is `config`: the vision
    tower's settings, images padded to a square (1.5) or in tiles (1.6)."""
    try:
        if tower is None:
            values = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336)
        else:
            values = AutoImageProcessor.from_pretrained(str(tower), backend="pil")
        given: dict[str, Any] = {
            key: getattr(values, key)
            for key in ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
        }
        if config.model_type == "llava":
            return LlavaImageProcessorPil(**given, do_pad=True)
        return LlavaNextImageProcessorPil(**given, image_grid_pinpoints=config.image_grid_pinpoints)
    except UNUSABLE as error:
        raise InputError(
            f"{tower}: no usable preprocessor_config.json of a CLIP vision tower ({one_line(error)})"
        ) from None


def open_original_tensors(
    folder: Path, settings: dict[str, Any], tower: Path | None, tokenizer: Any
) -> dict[str, StoredTensor]:
    """Open the tensors of an original folder and its tower, under their names in memory.

    `<image>`, `<pad>` and the padding come behind the vocabulary's rows. Tensors may be stored in different
    types. The tower's weights inside the checkpoint are its own (it may have been trained) and go before
    those of the tower's folder.

    Args:
        folder: The original folder.
        settings: Its config.json.
        tower: `find_tower`'s folder.
        tokenizer: The folder's tokenizer, `<image>` and `<pad>` included.

    Raises:
        InputError: The weights are damaged or incomplete, or their rows are neither the tokenizer's nor the
            config's.
    """
    tensors = open_model_tensors(folder, original=True)
    if not any(name.startswith(VISION) for name in tensors):
        tensors |= _open_tower_tensors(tower or fetch_tower(folder))
    check_floating(tensors, folder)
    if not any(name.startswith(PROJECTOR) for name in tensors):
        raise InputError(
            f"{folder}: the weights have no mm_projector; this is a checkpoint that the original's trainer "
            "did not finish"
        )
    vocabulary = len(tokenizer) - 2  # without <image> and <pad>
    for name in (EMBEDDING, HEAD):
        if name in tensors:
            rows = tensors[name].shape[0]
            if not rows == vocabulary == settings.get("vocab_size"):
                raise InputError(
                    f"{folder}: {name} has {rows} rows, the tokenizer {vocabulary} tokens and config.json "
                    f"vocab_size {settings.get('vocab_size')}: the vocabulary was resized, save all as one"
                )
            tensors[name] = _with_extra_rows(folder, name, tensors[name], _hf_rows(folder, rows))
    return tensors


def has_tower_inside(folder: Path) -> bool:
    """Return whether an original folder's own weights contain the vision tower's."""
    names = (name_in_memory(stored, original=True) for stored in open_weights(folder))
    return any(name is not None and name.startswith(VISION) for name in names)


def _open_tower_tensors(tower: Path) -> dict[str, StoredTensor]:
    tensors = {}
    for stored, tensor in open_weights(tower).items():
        name = stored.removeprefix("vision_model.")
        if stored.startswith(_NOT_VISION) or name_in_memory(stored) is None:
            continue
        tensors[VISION + name] = tensor
    return tensors


def _hf_rows(folder: Path, vocabulary: int) -> int:
    """Return the number of rows in Hugging Face's form: as they were where we wrote the folder, else with
    two more tokens and up to the next multiple."""
    extra = folder / EXTRA_ROWS
    if extra.is_file():
        kept = open_file(extra)
        if EMBEDDING not in kept:
            raise InputError(f"{extra}: lacks {EMBEDDING}; remove the file")
        return vocabulary + kept[EMBEDDING].shape[0]
    return -(-(vocabulary + 2) // ROW_MULTIPLE) * ROW_MULTIPLE


def _with_extra_rows(folder: Path, name: str, tensor: StoredTensor, rows: int) -> StoredTensor:
    """Return `tensor` (vocabulary, width) with rows behind it: those kept in the folder, else its mean row.
    Nothing reads them of the embedding, and a mean row of the output layer is never the likeliest."""

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


def _clip_l_336_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
