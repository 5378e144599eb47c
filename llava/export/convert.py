"""Write a LLaVA in the other format: the original's from Hugging Face's, and back; or an adapter, merged.

Both ways keep every bit of every tensor, unless another type is asked for. A model in several types is
refused without one; only a vision tower in a folder of its own follows the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch

from llava.common.errors import InputError
from llava.common.files import write_text
from llava.export.merge import merge_adapters
from llava.export.writers import (
    Companions,
    TensorStream,
    read_companions,
    refuse_output,
    require_client_name,
    stored_dtype,
    write_hf,
    write_original,
)
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import DTYPES, require_complete
from llava.model.folder import ModelFolder, open_model_folder
from llava.model.run_dir import DtypeName
from llava.model.shards import DEFAULT_SHARD, new_folder

Format = Literal["llava", "hf"]
"""The original LLaVA's, or Hugging Face's."""


def export(
    model_path: str | Path | ModelFolder,
    output: Path,
    to: Format,
    *,
    model_base: str | Path | None = None,
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD,
) -> list[str]:
    """Write a model in the format `to`.

    Args:
        model_path: A whole model in the other format, or an adapter, which is merged.
        output: The folder to write.
        to: The format.
        model_base: The base of an adapter, if it is not where the adapter says.
        dtype: Of the weights; by default the type that they are stored in.
        overwrite: Replace an earlier model folder.
        max_shard_size: In bytes, of each weights file.

    Returns:
        Notes for the user, a line each.

    Raises:
        InputError: The model is damaged or the format cannot hold it. Nothing is written then.
    """
    folder = open_model_folder(model_path)
    folder.require_llava()
    if not folder.is_model:
        return merge_adapters(
            folder, output, model_base=model_base, dtype=dtype, overwrite=overwrite, save_format=to,
            max_shard_size=max_shard_size,
        )  # fmt: skip
    if model_base is not None:
        raise InputError(f"{folder.name} is a whole model and takes no --model-base")
    if (folder.kind == "hf") == (to == "hf"):
        raise InputError(f"{folder.name} is in that format already: nothing to export")
    if to == "llava":
        require_client_name(output, folder.config)
    refuse_output(output, [folder], overwrite)
    companions = read_companions(folder)
    tensors = folder.open_tensors()
    require_complete(tensors, folder)
    target_dtype, notes = (DTYPES[dtype], []) if dtype else stored_dtype(folder, tensors)
    cast = any(tensor.dtype != target_dtype for tensor in tensors.values())
    stream = _cast(((name, tensor.read()) for name, tensor in tensors.items()), target_dtype)
    with new_folder(output, overwrite=overwrite) as temporary:
        if to == "llava":
            notes += write_original(temporary, output, companions, stream, target_dtype, max_shard_size)
        else:
            notes += write_hf(temporary, companions, stream, target_dtype, max_shard_size)
        weights = f"cast to {str(target_dtype)[6:]}" if cast else "the same, bit for bit"
        write_text(temporary / "README.md", _card(output, folder, to, companions, weights, notes))
    return notes


def _cast(tensors: TensorStream, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors:
        rounded = tensor.to(dtype)
        if not torch.isfinite(rounded).all():
            raise InputError(f"{name} does not fit {str(dtype)[6:]}; export with --dtype bfloat16 or float32")
        yield name, rounded


def _card(
    output: Path, source: ModelFolder, to: Format, companions: Companions, weights: str, notes: Iterable[str]
) -> str:
    """Return the README.md of the folder; `weights` says how its tensors compare with those of `source`."""
    name = get_model_name_from_path(source.path.resolve().as_posix())
    use = (
        f"python -m llava.serve.cli --model-path {output.name} --image-file picture.jpg"
        if to == "llava"
        else f"transformers.{companions.config.architectures[0]}.from_pretrained({output.name!r})"
    )
    form = "the original LLaVA's format" if to == "llava" else "Hugging Face's format"
    lines = "".join(f"- {line}\n" for line in notes)
    return f"""# {output.name}

`{name}` in {form}, exported with LLaVA Inspect. Its tensors are {weights}.

- Conversation template: `{companions.template.name}`
{lines}
```
{use}
```
"""
