"""Find a model's folder: a path on this machine, or a Hub name that is fetched into the Hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from llava.common.errors import InputError, one_line
from llava.common.shipped import find_shipped
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SMALL_FILES = ["*.json", "*.model", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors", NON_LORA_WEIGHTS, PROJECTOR_BIN]
_OLD_WEIGHT_FILES = ["*.bin"]


def resolve_folder(model_path: str | Path, *, weights: bool = True) -> Path:
    """Return the local folder of a path or Hub name (`owner/name`).

    With `weights=False` only the small files (configs, tokenizer) are fetched from the Hub. InputError if
    there is no such folder here and the Hub does not give it.
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
        patterns = _SMALL_FILES + (_WEIGHT_FILES if weights else [])
        folder = Path(snapshot_download(str(model_path), allow_patterns=patterns))
        if weights and not any(folder.glob("*model*.safetensors")):  # an older repository
            snapshot_download(str(model_path), allow_patterns=_OLD_WEIGHT_FILES)
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"{model_path} is no folder here and the Hub does not give it: {one_line(error)}"
        ) from None


def is_hub_name(name: str) -> bool:
    """Return whether `name` has the form of a Hub name, `owner/name`."""
    return _HUB_NAME.fullmatch(name) is not None
