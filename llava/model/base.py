"""Find the base model of an adapter: where the run or the adapter says it is, or where the user does.

An original adapter may have been trained on a language model alone, as the original's released LoRA and
pretrained projector folders were: --model-base names Vicuna, and the adapter's folder has all the rest.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from llava.common.errors import InputError
from llava.common.files import write_json
from llava.model.folder import ModelFolder
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN, is_original
from llava.model.hub import resolve_folder
from llava.model.original import fetch_tower, find_tower
from llava.model.run_dir import BaseInfo, RunInfo
from llava.model.shards import open_file, shards_of

_TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_PROJECTOR_NAMES = ("model.mm_projector.", "model.image_newline")


def base_info(base: ModelFolder) -> BaseInfo:
    """Return what a run records of its base model, by which `find_base` finds and knows it again."""
    commit = re.search(r"snapshots/([0-9a-f]{40})$", base.path.resolve().as_posix())
    return BaseInfo(
        path=str(base.path.resolve()),
        name=base.name,
        revision=commit.group(1) if commit else None,
        fingerprint=base.fingerprint,
    )


def find_base(adapter: ModelFolder, model_base: str | Path | None) -> ModelFolder:
    """Return the base model of a run directory or of another tool's adapter.

    `model_base` replaces what the adapter recorded. InputError if the base is not found, is no whole model
    or, for a run, has other weights than the run was trained on.
    """
    if adapter.run_info is not None:
        return _find_base_of_run(adapter, adapter.run_info, model_base)
    from llava.model.adapters import recorded_base  # here: it imports peft, which a run's base does not need

    named = model_base or recorded_base(adapter)
    if named is None:
        raise InputError(f"{adapter} is an adapter and does not say of what; name its base with --model-base")
    base = _open_base(adapter, named, model_base)
    if base.kind == "language_model" and adapter.kind != "peft_adapter":
        base = with_projector_of(adapter, base)
    base.require_model()
    return base


def _find_base_of_run(run: ModelFolder, info: RunInfo, model_base: str | Path | None) -> ModelFolder:
    recorded = Path(info.base.path)
    if model_base is None and recorded.is_dir():
        base = ModelFolder.open(recorded)
    else:
        base = _open_base(run, model_base or info.base.name, model_base)
    base.require_model()
    if base.fingerprint != info.base.fingerprint:
        raise InputError(
            f"{run} was trained on {info.base.name} and {base} holds other weights (fingerprints differ); "
            "name the right base with --model-base"
        )
    return base


def _open_base(adapter: ModelFolder, named: str | Path, model_base: str | Path | None) -> ModelFolder:
    try:
        path = resolve_folder(named)
    except InputError as error:
        remedy = "" if model_base else "; say where it is with --model-base"
        raise InputError(f"the base of {adapter} is not found: {error}{remedy}") from None
    return ModelFolder.open(path, str(named))


def with_projector_of(adapter: ModelFolder, language: ModelFolder) -> ModelFolder:
    """Make a whole model in the original's format, of links: the language model's weights and tokenizer, the
    adapter's settings, projector and vision tower. It lasts as long as this process.

    InputError if the adapter's folder has no settings of the original's or no projector.
    """
    alone = f"{language} is a language model without a vision tower, and {adapter}"
    if adapter.settings is None or not is_original(adapter.settings):
        raise InputError(f"{alone} has no config.json of the original LLaVA; name a LLaVA as --model-base")
    beside = next(
        (adapter.path / n for n in (NON_LORA_WEIGHTS, PROJECTOR_BIN) if (adapter.path / n).is_file()), None
    )
    tensors = open_file(beside) if beside is not None else {}
    named = {stored.removeprefix("base_model.model."): tensor for stored, tensor in tensors.items()}
    projector = {name: tensor.read() for name, tensor in named.items() if name.startswith(_PROJECTOR_NAMES)}
    if not projector:
        raise InputError(f"{alone} has no projector; name a LLaVA as --model-base")
    tower = find_tower(adapter.path, adapter.settings) or fetch_tower(adapter.path)
    folder = Path(tempfile.mkdtemp(prefix="llava-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    places: dict[str, str] = {}
    for shard in shards_of(language.path):
        link = folder / f"language-{shard.name}"
        _link(link, shard)
        places |= dict.fromkeys(open_file(shard), link.name)
    save_file(projector, folder / "projector.safetensors", metadata={"format": "pt"})
    places |= dict.fromkeys(projector, "projector.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    for name in _TOKENIZER_FILES:
        if (language.path / name).is_file():
            _link(folder / name, language.path / name)
    _link(folder / "vision_tower", tower)
    settings = (language.settings or {}) | adapter.settings | {"mm_vision_tower": "vision_tower"}
    write_json(folder / "config.json", settings)
    return ModelFolder(folder, language.name, "original", settings)


def _link(link: Path, target: Path) -> None:
    """Make a symbolic link, or a copy where Windows does not let this user make links."""
    try:
        link.symlink_to(target.resolve())
    except OSError:
        if target.is_dir():
            shutil.copytree(target, link)
        else:
            shutil.copy(target, link)
