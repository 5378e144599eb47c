"""Read and write run.json, which says what an adapter belongs to and how it came about. Torch-free.

A run directory and every `checkpoint-N` in it hold adapter_config.json, adapter_model.safetensors,
projector.safetensors (if trained), run.json, config.yaml, the tokenizer and the image processor: each loads
and merges alone. Nothing is inferred from a folder's name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from llava.common.errors import InputError
from llava.common.files import first_problem, read_json, sha256, write_json
from llava.common.settings import Settings

RUN_FILE = "run.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PROJECTOR_WEIGHTS = "projector.safetensors"

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
)

_PACKAGES = ("llava-inspect", "torch", "transformers", "peft", "accelerate", "safetensors", "pillow", "numpy")
_HASH_WHOLE_UP_TO = 1 << 30  # bytes
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 20  # a larger file has room for them


DtypeName = Literal["float32", "bfloat16", "float16"]


class LoraSettings(Settings):
    """The LoRA part of a training config. Targets are the last name of a Linear layer; the layers are looked
    up by full path, so a language target never touches the vision tower."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank, so that high ranks learn at the pace of low ones
    (rsLoRA, arXiv 2312.03732)."""
    use_dora: bool = False
    """Train each row's length beside the direction that A and B change (DoRA, arXiv 2402.09353): closer to
    full fine-tuning at low ranks, slower."""
    language_targets: list[str] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    vision_targets: list[str] = Field(default_factory=list)
    vision_layers: int | None = Field(default=None, ge=1)
    """Adapters go on so many of the vision tower's last layers that are read; on all if null. Nothing is
    computed backwards through the layers before them."""


class BaseInfo(Settings):
    """The base model of a run: `path` is where it was found, `name` what the user called it, `revision` the
    Hub commit if it came from there."""

    path: str
    name: str
    revision: str | None = None
    fingerprint: str


class RunInfo(Settings):
    """The content of run.json."""

    schema_version: Literal[1] = 1
    base: BaseInfo
    conv_mode: str
    projector_trained: bool
    lora: LoraSettings
    bits: Literal[4, 8] | None = None
    """The base's language model was read in so many bits a weight (`dtype` is what it was quantised from)."""
    dtype: DtypeName | None = None
    """Of the frozen weights and the arithmetic."""
    step: int | None = None
    notes: list[str] = Field(default_factory=list)
    """What somebody should know who uses the result, in sentences: that the run was too short."""
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    data: dict[str, str] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)


def write_run_info(folder: Path, info: RunInfo) -> None:
    write_json(folder / RUN_FILE, info)


def read_run_info(folder: Path) -> RunInfo:
    """Read run.json; InputError naming the file if it is absent, unreadable or of another schema."""
    path = folder / RUN_FILE
    try:
        return RunInfo.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None


def is_run_dir(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def copy_processor_files(source: Path, target: Path) -> None:
    """Copy what turns text and images into a model's inputs: tokenizer, image processor, chat template."""
    for name in PROCESSOR_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide a result."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout that holds `folder`, `-dirty` if changed; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def data_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the sha256 of each file by its path."""
    return {str(path): sha256(path) for path in paths}


def fingerprint(folder: Path, config: Any) -> str:
    """Return a sha256 that changes with the architecture or any weight of the model in `folder`.

    It covers `config`, the content of config.json, without what saving or moving rewrites, and each weights
    file: its size, its safetensors header (tensor names, shapes, types) and its content. Files over 1 GiB are
    sampled (16 evenly spread MiB) so that a 34B base does not take minutes.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_lasting(config), sort_keys=True).encode())
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise InputError(f"{folder} has no weights: neither *.safetensors nor pytorch_model*.bin")
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        if size <= _HASH_WHOLE_UP_TO:
            digest.update(sha256(path).encode())
            continue
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                header = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(header, size)))
            for sample in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _lasting(config: Any) -> Any:
    """Return the config without keys that differ between savings, or places, of one and the same model."""
    if not isinstance(config, dict):
        return config
    volatile = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "mm_vision_tower"}
    return {key: _lasting(value) for key, value in config.items() if key not in volatile}
