"""The base of an original adapter that was trained on a language model alone, as the original's released LoRA
and pretrained projector folders were: --model-base names Vicuna, and the adapter's folder has all the rest.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from llava.common.errors import InputError
from llava.common.files import read_json, write_json
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN, is_original
from llava.model.original import find_tower
from llava.model.shards import open_file, shards_of

_LANGUAGE_MODELS = ("llama", "mistral")
_TOKENIZER = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_IMAGE_WEIGHTS = ("model.mm_projector.", "model.image_newline")


def is_language_model(folder: Path) -> bool:
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    return (
        isinstance(config, dict) and config.get("model_type") in _LANGUAGE_MODELS and not is_original(config)
    )


def with_projector_of(adapter: Path, language: Path) -> Path:
    """A whole model in the original's format, of links: the language model's weights and tokenizer, the
    adapter's settings, projector and vision tower. It lasts as long as this process.

    InputError if the adapter's folder has no settings of the original's or no projector.
    """
    alone = f"{language} is a language model without a vision tower, and {adapter}"
    settings = read_json(adapter / "config.json") if (adapter / "config.json").is_file() else None
    if not isinstance(settings, dict) or not is_original(settings):
        raise InputError(f"{alone} has no config.json of the original LLaVA; name a LLaVA as --model-base")
    beside = next((adapter / n for n in (NON_LORA_WEIGHTS, PROJECTOR_BIN) if (adapter / n).is_file()), None)
    tensors = open_file(beside) if beside is not None else {}
    named = {stored.removeprefix("base_model.model."): tensor for stored, tensor in tensors.items()}
    projector = {name: tensor.read() for name, tensor in named.items() if name.startswith(_IMAGE_WEIGHTS)}
    if not projector:
        raise InputError(f"{alone} has no projector; name a LLaVA as --model-base")
    tower = find_tower(adapter, settings)
    if tower is None:
        raise InputError(f"{alone} neither; name a LLaVA as --model-base")
    folder = Path(tempfile.mkdtemp(prefix="llava-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    places: dict[str, str] = {}
    for shard in shards_of(language):
        link = folder / f"language-{shard.name}"
        link.symlink_to(shard.resolve())
        places |= dict.fromkeys(open_file(shard), link.name)
    save_file(projector, folder / "projector.safetensors", metadata={"format": "pt"})
    places |= dict.fromkeys(projector, "projector.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    for name in _TOKENIZER:
        if (language / name).is_file():
            (folder / name).symlink_to((language / name).resolve())
    (folder / "vision_tower").symlink_to(tower.resolve())
    settings["mm_vision_tower"] = "vision_tower"
    write_json(folder / "config.json", read_json(language / "config.json") | settings)
    return folder
