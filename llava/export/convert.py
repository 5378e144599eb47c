"""Write a LLaVA in the other format: the original's from Hugging Face's, and back.

Tensors stream from the one to the other, a shard in memory at a time. What the original LLaVA needs beside
them (PyPI llava-torch 1.2.2.post1, transformers 4.37.2):

    config.json         the language model's, the mm_* settings, `mm_vision_tower` an absolute path: the
                        original asks whether it exists as it stands, from wherever it is started
    tokenizer.model     its slow tokenizer; the vocabulary has exactly its rows, pictures are -200 there
    vision_tower/       the CLIP tower with its config and picture settings
    the folder's name   decides the class and the conv mode there

Both ways keep every bit of every tensor, unless another type is asked for. A model in several types is
refused without one; only a vision tower in a folder of its own follows the model's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from llava.common.errors import InputError
from llava.common.files import read_json, write_json, write_text
from llava.conversation import ConvTemplate
from llava.mm_utils import get_model_name_from_path
from llava.model import formats
from llava.model.builder import (
    DTYPES,
    load_config,
    load_image_processor,
    load_tokenizer,
    resolve_folder,
    template_of_model,
)
from llava.model.formats import HUB_SPELLING, VISION, kind_of, spelled
from llava.model.original import EMBEDDING, EXTRA_ROWS, HEAD, has_tower_inside, require_whole, whole_tensors
from llava.model.run_dir import DtypeName
from llava.model.sentencepiece import read_pieces
from llava.model.shards import (
    DEFAULT_SHARD,
    ShardWriter,
    StoredTensor,
    new_folder,
    some,
    write_shards,
    write_tensors,
)

Named = Iterable[tuple[str, torch.Tensor]]
"""Tensors under their names in memory, one after the other."""

_TOWER = "vision_tower"
_CLIENT_MODES = (("llama-2", "llava_llama_2"), ("mistral", "mistral_instruct"), ("v1.6-34b", "chatml_direct"),
                 ("v1", "llava_v1"), ("mpt", "mpt"))  # fmt: skip
"""The conv mode that the original's cli.py takes for what is in the folder's name, the first that is."""
_IMAGES = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")


@dataclass(frozen=True)
class Companions:
    """What goes beside the tensors: the Hugging Face config, and what makes texts and pictures its inputs.
    `pieces` is the tokenizer.model, if the source has it."""

    config: Any
    tokenizer: Any
    image_processor: Any
    template: ConvTemplate
    pieces: Path | None


def export(
    model_path: str | Path,
    output: Path,
    to: Literal["llava", "hf"],
    *,
    model_base: str | Path | None = None,
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD,
) -> list[str]:
    """Write `model_path` (a whole model in the other format, or an adapter, merged) to the folder `output`.

    `dtype` defaults to the type that the tensors are stored in. Returns what the user is to be told, a line
    each. InputError, and nothing written, where the model is damaged or the format cannot hold it.
    """
    folder = resolve_folder(model_path)
    kind = kind_of(folder)
    if kind not in ("hf", "original"):
        from llava.export.merge import merge  # here: merge writes original folders by this module

        return merge(
            folder, output, model_base=model_base, dtype=dtype, overwrite=overwrite, save_format=to,
            max_shard_size=max_shard_size,
        )  # fmt: skip
    if model_base is not None:
        raise InputError(f"{model_path} is a whole model and takes no --model-base")
    if (kind == "hf") == (to == "hf"):
        raise InputError(f"{model_path} is in that format already: nothing to export")
    if to == "llava":
        require_client_name(output, load_config(folder))
    refuse_output(output, [folder], overwrite)
    companions = read_companions(folder)
    tensors = whole_tensors(folder)
    require_whole(tensors, companions.config, folder)
    asked, told = (DTYPES[dtype], []) if dtype else stored_dtype(folder, tensors)
    changed = any(tensor.dtype != asked for tensor in tensors.values())
    stream = _cast(((name, tensor.read()) for name, tensor in tensors.items()), asked)
    with new_folder(output, overwrite=overwrite) as temporary:
        if to == "llava":
            told += write_original(temporary, output, companions, stream, asked, max_shard_size)
        else:
            write_hf(temporary, companions, stream, asked, max_shard_size)
        same = f"cast to {str(asked)[6:]}" if changed else "the same, bit for bit"
        write_text(temporary / "README.md", _card(output, folder, to, companions, same, told))
    return told


def read_companions(folder: Path, config: Any = None, template: ConvTemplate | None = None) -> Companions:
    """The companions that a model's folder has (a run's, with its base's `config` and its `template`)."""
    config = load_config(folder) if config is None else config
    tokenizer = load_tokenizer(folder)
    pieces = folder / "tokenizer.model"
    return Companions(
        config=config,
        tokenizer=tokenizer,
        image_processor=load_image_processor(folder),
        template=template or template_of_model(folder, config, tokenizer),
        pieces=pieces if pieces.is_file() else None,
    )


def write_original(
    target: Path,
    output: Path,
    companions: Companions,
    tensors: Named,
    dtype: torch.dtype,
    max_shard_size: int = DEFAULT_SHARD,
) -> list[str]:
    """Write the original's format to the folder `target`, which is to be renamed to `output`. The tensors
    are of `dtype`. Returns what the user is to be told."""
    require_client_name(output, companions.config)
    config, tokenizer = companions.config, companions.tokenizer
    tower_place = output.resolve() / _TOWER
    settings = formats.original_config(config, str(tower_place), _context(companions))
    rows = _vocabulary(companions)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
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
        language.add(spelled(name, "original"), tensor)
    language.close()
    tower.close()
    write_tensors(target / EXTRA_ROWS, extra)
    kind = str(dtype).removeprefix("torch.")
    write_json(target / "config.json", settings | ids | {"torch_dtype": kind})
    write_json(target / "generation_config.json", ids)
    _write_slow_tokenizer(target, companions)
    _write_tower_settings(target / _TOWER, companions, kind)
    told = [
        f"{_TOWER}/ is named by its absolute path; if {output} moves, change mm_vision_tower in config.json"
    ]
    taken = _client_mode(output)
    if taken != companions.template.name:
        told.append(
            f"the original client takes the conv mode {taken} for this folder's name; start it with "
            f"--conv-mode {companions.template.name}"
        )
    return told


def write_hf(
    target: Path,
    companions: Companions,
    tensors: Named,
    dtype: torch.dtype,
    max_shard_size: int = DEFAULT_SHARD,
) -> None:
    """Write Hugging Face's format to the folder `target`. The tensors are of `dtype`."""
    config, tokenizer = companions.config, companions.tokenizer
    anyres = config.model_type == "llava_next"
    write_shards(target, ((spelled(name, HUB_SPELLING), tensor) for name, tensor in tensors), max_shard_size)
    config.architectures = [f"Llava{'Next' if anyres else ''}ForConditionalGeneration"]
    write_config(target, config, dtype)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    write_json(target / "generation_config.json", ids | {"pad_token_id": tokenizer.pad_token_id})
    tokenizer.save_pretrained(str(target))
    if companions.pieces is not None:
        shutil.copyfile(companions.pieces, target / "tokenizer.model")
    write_text(target / "chat_template.jinja", companions.template.jinja())
    images = companions.image_processor.to_dict()
    images["image_processor_type"] = f"Llava{'Next' if anyres else ''}ImageProcessor"  # in every release
    write_json(target / "preprocessor_config.json", images)
    processor = {
        "processor_class": f"Llava{'Next' if anyres else ''}Processor",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }
    write_json(target / "processor_config.json", processor)


def write_config(target: Path, config: Any, dtype: torch.dtype) -> None:
    """config.json of a model with weights of `dtype`, which transformers 4 understands too: it knows the
    rotary positions and the type under older names, and takes its defaults where those are absent."""
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
    """InputError if the original client would not know the folder by its name: it needs `llava`, and `v1`, or
    `mistral` for a Mistral, which no other may have."""
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


def _client_mode(output: Path) -> str:
    name = get_model_name_from_path(str(output.resolve())).lower()
    return next((mode for part, mode in _CLIENT_MODES if part in name), "llava_v0")


def _vocabulary(companions: Companions) -> int:
    """The rows of the original vocabulary. InputError if tokenizer.model is not what the model was made with,
    or the tokenizer has more than its pieces before `<image>`."""
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
    images = {key: values[key] for key in _IMAGES} | {
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


def stored_dtype(folder: Path, tensors: Mapping[str, StoredTensor]) -> tuple[torch.dtype, list[str]]:
    """The one type of `folder`'s tensors, and what the user is to be told; InputError if they are several."""
    beside = kind_of(folder) == "original" and not has_tower_inside(folder)
    own: dict[torch.dtype, list[str]] = {}
    for name, tensor in tensors.items():
        if not (beside and name.startswith(VISION)):
            own.setdefault(tensor.dtype, []).append(name)
    if len(own) > 1:
        parts = [f"{str(kind)[6:]} ({some(names, 2)})" for kind, names in own.items()]
        raise InputError(
            f"{folder}: its tensors are in several types, {', '.join(parts)}; choose with --dtype"
        )
    (kind,) = own
    if all(tensor.dtype == kind for tensor in tensors.values()):
        return kind, []
    return kind, [f"the vision tower's weights, stored in another type, become {str(kind)[6:]} as the others"]


def _cast(tensors: Named, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        rounded = tensor.to(dtype)
        if not torch.isfinite(rounded).all():
            raise InputError(f"{name} does not fit {str(dtype)[6:]}; export with --dtype bfloat16 or float32")
        yield name, rounded


def refuse_output(output: Path, read: Sequence[Path], overwrite: bool) -> None:
    """InputError unless a model folder may be written to `output` while the folders `read` are read."""
    if output.name in ("", ".."):
        raise InputError(f"{output} has no name of its own; name the new folder itself")
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already; name another folder or pass --overwrite")
    if not _is_whole_model(output):
        raise InputError(f"{output} is not a model folder and is not overwritten")
    for folder in read:
        if folder.resolve().is_relative_to(output.resolve()):
            raise InputError(f"{output} holds {folder}, which is read; name another folder")


def _is_whole_model(folder: Path) -> bool:
    try:
        return kind_of(folder) in ("hf", "original")
    except InputError:
        return False


def _card(
    output: Path, source: Path, to: str, companions: Companions, tensors: str, told: Iterable[str]
) -> str:
    """README.md of the folder; `tensors` is how its tensors compare with those of `source`."""
    name = get_model_name_from_path(source.resolve().as_posix())
    use = (
        f"python -m llava.serve.cli --model-path {output.name} --image-file picture.jpg"
        if to == "llava"
        else f"transformers.{companions.config.architectures[0]}.from_pretrained({output.name!r})"
    )
    form = "the original LLaVA's format" if to == "llava" else "Hugging Face's format"
    notes = "".join(f"- {line}\n" for line in told)
    return f"""# {output.name}

`{name}` in {form}, exported with LLaVA Inspect. Its tensors are {tensors}.

- Conversation template: `{companions.template.name}`
{notes}
```
{use}
```
"""
