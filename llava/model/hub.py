"""Find a model's folder: a path on this machine, or a Hub name that is fetched into the Hub's cache.

Where the Hub cannot be reached, a model is brought in a folder: `wanted_files` says which of its files are
loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from llava.common.cli import command_name
from llava.common.errors import InputError, one_line
from llava.common.shipped import find_shipped
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SMALL_FILES = ("*.json", "*.model", "*.jinja")
"""Configs, tokenizer, image processor, chat template."""
WEIGHT_FILES = ("*.safetensors", NON_LORA_WEIGHTS, PROJECTOR_BIN)
_OLD_WEIGHT_FILES = ("*.bin",)
_REFUSED: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, HFValidationError, OSError)
"""What huggingface_hub raises where the Hub gives nothing: the bases of its own error are those of the HTTP
library, which another release of it changes."""


class HubError(InputError):
    """The Hub does not give what was asked of it: it cannot be reached (`unreachable`), or it refuses."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def resolve_folder(model_path: str | Path, *, weights: bool = True) -> Path:
    """Return the local folder of a path or Hub name (`owner/name`).

    With `weights=False` only the small files (configs, tokenizer) are fetched from the Hub. InputError if
    there is no such folder here, a HubError if the Hub does not give it either.
    """
    path = find_shipped(Path(model_path).expanduser())
    if path.is_dir():
        return path
    if path.is_file():
        raise InputError(f"{path} is a file; name the model's folder")
    # `runs/first` looks like a Hub name too: where `runs` is a folder here, a folder was meant
    if not is_hub_name(str(model_path)) or path.parent.is_dir():
        raise InputError(f"{path}: no such model folder")
    try:
        patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
        folder = Path(snapshot_download(str(model_path), allow_patterns=patterns))
        if weights and not any(folder.glob("*model*.safetensors")):  # an older repository
            snapshot_download(str(model_path), allow_patterns=list(_OLD_WEIGHT_FILES))
        return folder
    except _REFUSED as error:
        raise _explained(str(model_path), error) from None


def is_hub_name(name: str) -> bool:
    """Return whether `name` has the form of a Hub name, `owner/name`."""
    return _HUB_NAME.fullmatch(name) is not None


def wanted_files(names: Iterable[str]) -> list[str]:
    """Choose the files of a model's repository that are loaded: of the weights those in .safetensors, of
    which .bin files are copies; nothing for other programs (ONNX, Flax)."""
    top = [name for name in names if "/" not in name]
    safe = any(fnmatch(name, "*model*.safetensors") for name in top)
    patterns = [*SMALL_FILES, *WEIGHT_FILES, *(() if safe else _OLD_WEIGHT_FILES)]
    chosen = [name for name in top if any(fnmatch(name, pattern) for pattern in patterns)]
    return sorted(name for name in chosen if not (safe and name.endswith(".bin.index.json")))


def list_files(name: str) -> dict[str, int]:
    """Ask the Hub for the files of model `name` that are loaded, and their bytes; HubError if it
    does not say."""
    try:
        files = HfApi().model_info(name, files_metadata=True).siblings or []
    except _REFUSED as error:
        raise _explained(name, error) from None
    sizes = {file.rfilename: file.size or 0 for file in files}
    return {file: sizes[file] for file in wanted_files(sizes)}


def fetch_files(name: str, files: Iterable[str], folder: Path) -> None:
    """Download files of model `name` into `folder`; what is there already is not fetched again. HubError if
    the Hub does not give them."""
    try:
        snapshot_download(name, allow_patterns=list(files), local_dir=folder)
    except _REFUSED as error:
        raise _explained(name, error) from None


def fetch_folder(name: str, choose: Callable[[Sequence[str]], list[str]]) -> Path:
    """Return the folder of model `name` in the Hub's cache, with those of its files that `choose` takes of
    their names; HubError if the Hub does not give them."""
    try:
        files = HfApi().model_info(name).siblings or []
        wanted = choose([file.rfilename for file in files])
        return Path(snapshot_download(name, allow_patterns=wanted))
    except _REFUSED as error:
        raise _explained(name, error) from None


def _explained(name: str, error: BaseException) -> HubError:
    """Say why the Hub does not give model `name`, and what to do."""
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{name} is no folder here, and the Hub has no model of that name or shows it only after "
            "`hf auth login`"
        )
    if isinstance(error, HFValidationError):
        return HubError(f"{name} is no folder here and no name that the Hub could have: {one_line(error)}")
    fetch = command_name("fetch", "python -m llava_inspect fetch")
    return HubError(
        f"{name} is no folder here, and the Hub cannot be reached from this machine "
        f"({one_line(error.__cause__ or error, 80)}); `{fetch} {name} --list` says which files to bring from "
        "one that reaches it",
        unreachable=True,
    )
