"""Write the files of a LLaVA folder, in the original's format or Hugging Face's.

Tensors stream in, a shard in memory at a time. What the original LLaVA needs beside them (PyPI llava-torch
1.2.2.post1, transformers 4.37.2):

    config.json         the language model's, the mm_* settings, `mm_vision_tower` an absolute path: the
                        original asks whether it exists as it stands, from wherever it is started
    tokenizer.model     its slow tokenizer; the vocabulary has exactly its rows, images are -200 there
    vision_tower/       the CLIP tower with its config and image settings
    the folder's name   decides the class and the conv mode there
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.common.errors import InputError
from llava.common.files import read_json, write_json
from llava.conversation import ConvTemplate, get_template
from llava.mm_utils import get_model_name_from_path
from llava.model.folder import ModelFolder
from llava.model.formats import EMBEDDING, HEAD, HUB_SPELLING, VISION, stored_name, to_original_config
from llava.model.original import EXTRA_ROWS, has_tower_inside
from llava.model.processor_files import fill_vocabulary, save_processor_files
from llava.model.sentencepiece import read_pieces
from llava.model.shards import DEFAULT_SHARD, ShardWriter, StoredTensor, some, write_shards, write_tensors

TensorStream = Iterable[tuple[str, torch.Tensor]]
"""Tensors under their names in memory, one after the other."""

_TOWER = "vision_tower"
_CLIENT_MODES = (("llama-2", "llava_llama_2"), ("mistral", "mistral_instruct"), ("v1.6-34b", "chatml_direct"),
                 ("v1", "llava_v1"), ("mpt", "mpt"))  # fmt: skip
"""The conv mode that the original's cli.py takes for what is in the folder's name, the first that is."""
_IMAGE_SETTINGS = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")


@dataclass(frozen=True)
class Companions:
    """Holds what goes beside the tensors: the Hugging Face config, and what makes texts and images its
    inputs. `pieces` is the tokenizer.model, if the source has it."""

    config: Any
    tokenizer: Any
    image_processor: Any
    template: ConvTemplate
    pieces: Path | None


def read_companions(base: ModelFolder, run: ModelFolder | None = None) -> Companions:
    """Read the companions of a whole model; of a `run` on it, whose tokenizer, image processor and template
    go before the base's."""
    own = base if run is None else run
    info = own.run_info
    return Companions(
        config=base.config,
        tokenizer=own.tokenizer,
        image_processor=own.image_processor,
        template=base.template if info is None else get_template(info.conv_mode),
        pieces=own.pieces,
    )


def write_original(
    target: Path,
    output: Path,
    companions: Companions,
    tensors: TensorStream,
    dtype: torch.dtype,
    max_shard_size: int = DEFAULT_SHARD,
) -> list[str]:
    """Write a model in the original's format.

    Args:
        target: The folder to write to, which the caller renames to `output`.
        output: The final folder, whose absolute path and name the files refer to.
        companions: What goes beside the tensors.
        tensors: All tensors of the model, of type `dtype`.
        dtype: Their type.
        max_shard_size: In bytes, of each weights file.

    Returns:
        Notes for the user, a line each.

    Raises:
        InputError: The format cannot hold the model, or the original client would not know it by its name.
    """
    require_client_name(output, companions.config)
    tower_place = output.resolve() / _TOWER
    settings = to_original_config(companions.config, str(tower_place), _context(companions))
    rows = _vocabulary(companions)
    _write_original_tensors(target, tensors, rows, max_shard_size)
    tokenizer = companions.tokenizer
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    dtype_name = str(dtype).removeprefix("torch.")
    write_json(target / "config.json", settings | ids | {"torch_dtype": dtype_name})
    write_json(target / "generation_config.json", ids)
    _write_slow_tokenizer(target, companions)
    _write_tower_settings(target / _TOWER, companions, dtype_name)
    notes = [
        f"{_TOWER}/ is named by its absolute path; if {output} moves, change mm_vision_tower in config.json"
    ]
    client_mode = _client_mode(output)
    if client_mode != companions.template.name:
        notes.append(
            f"the original client takes the conv mode {client_mode} for this folder's name; start it with "
            f"--conv-mode {companions.template.name}"
        )
    return notes


def _write_original_tensors(target: Path, tensors: TensorStream, rows: int, max_shard_size: int) -> None:
    """Write the language model and projector, the tower in its own folder, and the rows behind the original
    vocabulary of `rows` tokens apart from both."""
    (target / _TOWER).mkdir()
    (target / EXTRA_ROWS).parent.mkdir()
    language = ShardWriter(target, max_shard_size)
    tower = ShardWriter(target / _TOWER, max_shard_size)
    extra: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if name.startswith(VISION):
            tower.add("vision_model." + name.removeprefix(VISION), tensor)
            continue
        if name in (EMBEDDING, HEAD):
            extra[name] = tensor[rows:].clone()
            tensor = tensor[:rows].clone()
        language.add(stored_name(name, "original"), tensor)
    language.close()
    tower.close()
    write_tensors(target / EXTRA_ROWS, extra)


def write_hf(
    target: Path,
    companions: Companions,
    tensors: TensorStream,
    dtype: torch.dtype,
    max_shard_size: int = DEFAULT_SHARD,
) -> list[str]:
    """Write a model of an original folder in Hugging Face's format.

    Args:
        target: The folder to write to.
        companions: What goes beside the tensors.
        tensors: All tensors of the model, of type `dtype`.
        dtype: Their type.
        max_shard_size: In bytes, of each weights file.

    Returns:
        Notes for the user, a line each.
    """
    tokenizer = companions.tokenizer
    write_hub_tensors(target, tensors, max_shard_size)
    write_config(target, companions.config, dtype)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    write_json(target / "generation_config.json", ids | {"pad_token_id": tokenizer.pad_token_id})
    save_processor_files(
        target,
        config=companions.config,
        tokenizer=tokenizer,
        image_processor=companions.image_processor,
        template=companions.template,
        pieces=companions.pieces,
    )
    return fill_vocabulary(target, companions.config.text_config.vocab_size)


def write_hub_tensors(target: Path, tensors: TensorStream, max_shard_size: int) -> None:
    """Write shards under the names of the Hub's folders, which every release of transformers reads."""
    hub = ((stored_name(name, HUB_SPELLING), tensor) for name, tensor in tensors)
    write_shards(target, hub, max_shard_size)


def write_config(target: Path, config: Any, dtype: torch.dtype) -> None:
    """Write config.json of a model with weights of `dtype`, which transformers 4 understands too: it knows
    the rotary positions and the type under older names, and takes its defaults where those are absent."""
    config = copy.deepcopy(config)
    for part in (config, config.text_config, config.vision_config):
        part.dtype = dtype
    config.save_pretrained(str(target))
    values = read_json(target / "config.json")
    rope = dict(config.text_config.rope_parameters or {})
    values["torch_dtype"] = values["dtype"]
    values["text_config"]["rope_theta"] = rope.pop("rope_theta", 10000.0)
    if rope.get("rope_type", "default") != "default":
        values["text_config"]["rope_scaling"] = rope
    write_json(target / "config.json", values)


def require_client_name(output: Path, config: Any) -> None:
    """Raise an InputError if the original client would not know the folder by its name: it needs `llava`,
    and `v1`, or `mistral` for a Mistral, which no other may have."""
    name = get_model_name_from_path(str(output.resolve())).lower()
    mistral = config.text_config.model_type == "mistral"
    needed = ("llava", "mistral") if mistral else ("llava", "v1")
    spoilt = ("mpt",) if mistral else ("mistral", "mpt")
    remedy = f"e.g. {output.with_name('llava-v1.6-mistral' if mistral else 'llava-v1.5-mine')}"
    for part in needed:
        if part not in name:
            raise InputError(
                f"the original client goes by the folder's name: {name!r} must contain {part!r}; {remedy}"
            )
    for part in spoilt:
        if part in name:
            raise InputError(
                f"the original client goes by the folder's name: {name!r} must not contain {part!r}; {remedy}"
            )


def stored_dtype(folder: ModelFolder, tensors: Mapping[str, StoredTensor]) -> tuple[torch.dtype, list[str]]:
    """Return the one type of the folder's tensors, and notes for the user; InputError if they are several."""
    outside = folder.is_original and not has_tower_inside(folder.path)
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name, tensor in tensors.items():
        if not (outside and name.startswith(VISION)):
            by_dtype.setdefault(tensor.dtype, []).append(name)
    if len(by_dtype) > 1:
        parts = [f"{str(dtype)[6:]} ({some(names, 2)})" for dtype, names in by_dtype.items()]
        raise InputError(
            f"{folder}: its tensors are in several types, {', '.join(parts)}; choose with --dtype"
        )
    (dtype,) = by_dtype
    if all(tensor.dtype == dtype for tensor in tensors.values()):
        return dtype, []
    return dtype, [
        f"the vision tower's weights, stored in another type, become {str(dtype)[6:]} as the others"
    ]


def refuse_output(output: Path, sources: Sequence[ModelFolder], overwrite: bool) -> None:
    """Raise an InputError unless a model folder may be written to `output` while the folders `sources` are
    read."""
    if output.name in ("", ".."):
        raise InputError(f"{output} has no name of its own; name the new folder itself")
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already; name another folder or pass --overwrite")
    if not _is_model(output):
        raise InputError(f"{output} is not a model folder and is not overwritten")
    for folder in sources:
        if folder.path.resolve().is_relative_to(output.resolve()):
            raise InputError(f"{output} holds {folder}, which is read; name another folder")


def _is_model(folder: Path) -> bool:
    try:
        return ModelFolder.open(folder).is_model
    except InputError:
        return False


def _client_mode(output: Path) -> str:
    name = get_model_name_from_path(str(output.resolve())).lower()
    return next((mode for part, mode in _CLIENT_MODES if part in name), "llava_v0")


def _vocabulary(companions: Companions) -> int:
    """Return the rows of the original vocabulary. InputError if tokenizer.model is not what the model was
    made with, or the tokenizer has more than its pieces before `<image>`."""
    if companions.pieces is None:
        raise InputError(
            "the original client needs tokenizer.model, which the model's folder has not; copy it from the "
            "language model that the model is made of"
        )
    pieces, image = read_pieces(companions.pieces), int(companions.config.image_token_id)
    same = len(pieces) == image and [pieces.id_to_piece(i) for i in range(image)] == (
        companions.tokenizer.convert_ids_to_tokens(list(range(image)))
    )
    if not same:
        raise InputError(
            f"{companions.pieces} has {len(pieces)} pieces, <image> is token {image}, or their texts differ: "
            "the original format has the SentencePiece model's tokens and no others"
        )
    return image


def _context(companions: Companions) -> int:
    longest = int(companions.config.text_config.max_position_embeddings)
    return min(int(companions.tokenizer.model_max_length), longest)


def _write_slow_tokenizer(target: Path, companions: Companions) -> None:
    tokenizer = companions.tokenizer
    if companions.pieces is not None:
        shutil.copyfile(companions.pieces, target / "tokenizer.model")
    first = tokenizer("a")["input_ids"][0]
    special = {
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "unk_token": tokenizer.unk_token,
    }
    special["pad_token"] = tokenizer.unk_token
    write_json(target / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": first == tokenizer.bos_token_id,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": True,  # a space before the text after a special token, as in ours and the Hub's
        "model_max_length": _context(companions),
        "padding_side": "right",
        "sp_model_kwargs": {},
        "chat_template": companions.template.jinja(),
    }
    write_json(target / "tokenizer_config.json", settings | special)


def _write_tower_settings(target: Path, companions: Companions, dtype: str) -> None:
    vision = companions.config.vision_config.to_dict()
    newer = ("dtype", "transformers_version", "_name_or_path", "id2label", "label2id", "problem_type")
    plain = {key: value for key, value in vision.items() if key not in newer and value is not None}
    write_json(target / "config.json", plain | {"architectures": ["CLIPVisionModel"], "torch_dtype": dtype})
    values = companions.image_processor.to_dict()
    side = companions.config.vision_config.image_size
    images = {key: values[key] for key in _IMAGE_SETTINGS} | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
    }
    write_json(target / "preprocessor_config.json", images)
