"""Weights on disk, one tensor at a time: safetensors or `.bin` shards in, safetensors shards out.

A folder's tensors are known by name, shape and type before any is read; reading one leaves no other in
memory. What is wrong with the files is said in one line that names the file.
"""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llava.common.errors import InputError, one_line
from llava.common.files import atomic_folder, read_json, write_json
from llava.model.formats import name_in_memory

DEFAULT_SHARD = 5_000_000_000  # bytes; what `5GB` means to Hugging Face
_SAFETENSORS, _BIN = "model.safetensors", "pytorch_model.bin"
_NUMBERED = re.compile(r".+-(\d{5})-of-(\d{5})\.(?:safetensors|bin)")
_REOPEN_AFTER = 8 << 20  # bytes
_NO_TORCH_FILE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
_SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not in memory yet. `read` gives it whole, a copy of its own."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    def __getitem__(self, _everything: Any) -> torch.Tensor:
        """`tensor[...]`, the way transformers reads a tensor that it is to put in place."""
        return self.read()


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """Open the tensors of a model's folder by their stored names.

    Whichever it has, in this order: `model.safetensors`, `model.safetensors.index.json` and its shards,
    numbered `model-*.safetensors`, and the same of `pytorch_model.bin`. InputError naming the file that is
    missing, cut short, no tensor file, or that holds anything but tensors.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in shards_of(folder):
        for name, tensor in open_file(path).items():
            if name in tensors:
                raise InputError(f"{path}: {name} is in another shard too; the folder mixes two models")
            tensors[name] = tensor
    return tensors


def open_model_tensors(folder: Path, *, original: bool = False) -> dict[str, StoredTensor]:
    """Open the tensors of a model's folder, stored under Hugging Face's or the `original` names, under their
    names in memory."""
    tensors: dict[str, StoredTensor] = {}
    for stored, tensor in open_weights(folder).items():
        name = name_in_memory(stored, original=original)
        if name in tensors:
            raise InputError(
                f"{folder}: two tensors are {name}, one of them stored as {stored}; it mixes two models"
            )
        if name is not None:
            tensors[name] = tensor
    return tensors


def shards_of(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, each of them there. A whole file goes before shards, as
    transformers reads them. InputError as `open_weights`."""
    for whole in (_SAFETENSORS, _BIN):
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if index.is_file():
            return _indexed(folder, index)
        stem, _, suffix = whole.rpartition(".")
        numbered = sorted(folder.glob(f"{stem}-*.{suffix}"))
        if numbered:
            return _complete(numbered)
    raise InputError(f"{folder} has no weights: neither {_SAFETENSORS} nor {_BIN}, nor shards of them")


def _indexed(folder: Path, index: Path) -> list[Path]:
    """Return the shards that an index names, each of them there and with the tensors that it is said to
    have."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise InputError(f"{index}: no weight_map of tensors and their files; fetch it again")
    paths = []
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:
            raise InputError(f"{index}: {shard!r} is not a file of this folder")
        if not (folder / shard).is_file():
            count = sum(place == shard for place in places.values())
            raise InputError(f"{folder / shard} is missing ({count} tensors of the model); fetch it again")
        held = open_file(folder / shard)
        lost = [name for name, place in places.items() if place == shard and name not in held]
        if lost:
            raise InputError(f"{folder / shard}: lacks {some(lost)}, which {index.name} says it has")
        paths.append(folder / shard)
    return paths


def _complete(paths: list[Path]) -> list[Path]:
    """Return numbered shards without an index, if all that their names promise are there."""
    found = {int(match[1]): int(match[2]) for path in paths if (match := _NUMBERED.fullmatch(path.name))}
    total = max(found.values(), default=len(paths))
    absent = sorted(set(range(1, total + 1)) - set(found)) if found else []
    if absent:
        raise InputError(
            f"{paths[0].parent}: shard {absent[0]} of {total} is missing ({paths[0].name} is there)"
        )
    return paths


def open_file(path: Path) -> dict[str, StoredTensor]:
    """Open the tensors of one safetensors or `.bin` file."""
    try:
        with path.open("rb") as file:
            if file.read(24).startswith(b"version https://git-lfs"):
                raise InputError(f"{path} is a Git LFS pointer, not the weights; fetch them: git lfs pull")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        # pread, not mmap: pages of a mapped file count as the process's memory beside what is made of them
        file: Any = safe_open(str(path), framework="pt", device="cpu", backend="pread")
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (no mapping)
            part = file.get_slice(name)
            dtype = _SAFE_DTYPES.get(part.get_dtype())
            if dtype is None:
                raise InputError(f"{path}: {name} is {part.get_dtype()}; weights of that type are not read")
            tensors[name] = StoredTensor(tuple(part.get_shape()), dtype, partial(file.get_tensor, name))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cut short or damaged ({one_line(error)}); fetch it again") from None
    return tensors


def _open_bin(path: Path) -> dict[str, StoredTensor]:
    shard = _BinFile(path)
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, partial(shard.read, name))
        for name, tensor in shard.open().items()
    }


class _BinFile:
    """A `.bin` file, mapped into memory and mapped anew after every _REOPEN_AFTER bytes: what was read of a
    mapped file counts as the process's memory until it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # transformers reads in several threads
        self._tensors: dict[str, torch.Tensor] = {}
        self._read = 0

    def open(self) -> dict[str, torch.Tensor]:
        try:
            content = torch.load(str(self._path), map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise InputError(
                f"{self._path}: holds pickled objects that are no tensors, which could run code; refused. "
                "Take the model as safetensors"
            ) from None
        except _NO_TORCH_FILE as error:
            raise InputError(
                f"{self._path}: cut short, damaged or no torch file ({one_line(error)}); fetch it again"
            ) from None
        if not isinstance(content, dict):
            raise InputError(f"{self._path}: holds a {type(content).__name__}, not tensors by name")
        for name, value in content.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise InputError(f"{self._path}: {name!r} is a {type(value).__name__}, not a tensor")
        return content

    def read(self, name: str) -> torch.Tensor:
        with self._lock:
            if not self._tensors:
                self._tensors = self.open()
            tensor = self._tensors[name].detach().clone()
            self._read += tensor.nbytes
            if self._read > _REOPEN_AFTER:
                self._tensors, self._read = {}, 0
            return tensor


def check_floating(tensors: Mapping[str, StoredTensor], folder: Path) -> None:
    """Raise an InputError unless all are floating-point weights. They may differ in type: whoever
    reads them casts each to the type that is wanted."""
    odd = sorted(name for name, tensor in tensors.items() if not tensor.dtype.is_floating_point)
    if odd:
        kind = str(tensors[odd[0]].dtype).removeprefix("torch.")
        raise InputError(f"{folder}: {some(odd)} are {kind}, no floating-point weights; take the unquantised")


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an `atomic_folder` for weights: a disk without room, permission or health is one line, an
    InputError."""
    try:
        with atomic_folder(path, overwrite=overwrite) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not written: {one_line(error)}") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file with the permissions of any new file: since 0.8 safetensors itself leaves it
    to its owner alone (its issue 782)."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(mode)


class ShardWriter:
    """Writes tensors to `folder` as they come: `model.safetensors`, or numbered shards of at most
    `max_shard_size` bytes and their index.

    One shard is in memory at a time (a tensor larger than `max_shard_size` is a shard of its own). The folder
    exists; whoever writes gives a temporary one and renames it when `close` has returned.
    """

    def __init__(self, folder: Path, max_shard_size: int = DEFAULT_SHARD) -> None:
        self._folder = folder
        self._max_shard_size = max_shard_size
        self._shard: dict[str, torch.Tensor] = {}
        self._held = self._total = self._written = 0
        self._places: dict[str, int] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self._held and self._held + tensor.nbytes > self._max_shard_size:
            self._flush()
        self._shard[name] = tensor.contiguous()
        self._places[name] = self._written + 1
        self._held += tensor.nbytes
        self._total += tensor.nbytes

    def close(self) -> None:
        self._flush()
        if self._written == 1:
            (self._folder / "shard-1").replace(self._folder / _SAFETENSORS)
            return
        names = {n: f"model-{n:05d}-of-{self._written:05d}.safetensors" for n in range(1, self._written + 1)}
        for number, name in names.items():
            (self._folder / f"shard-{number}").replace(self._folder / name)
        index = {
            "metadata": {"total_size": self._total},
            "weight_map": {name: names[number] for name, number in sorted(self._places.items())},
        }
        write_json(self._folder / f"{_SAFETENSORS}.index.json", index)

    def _flush(self) -> None:
        self._written += 1
        write_tensors(self._folder / f"shard-{self._written}", self._shard)
        self._shard, self._held = {}, 0


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], max_shard_size: int = DEFAULT_SHARD
) -> None:
    """Write all `tensors` by a ShardWriter."""
    writer = ShardWriter(folder, max_shard_size)
    for name, tensor in tensors:
        writer.add(name, tensor)
    writer.close()


def parse_size(text: str) -> int:
    """Return the bytes of `5GB`, `500MB` (decimal, as Hugging Face counts) or `2GiB`; InputError for
    anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(K|M|G)(i?)B", text.strip(), re.IGNORECASE)
    size = (
        int(float(match[1]) * (1024 if match[3] else 1000) ** ("KMG".index(match[2].upper()) + 1))
        if match
        else 0
    )
    if size <= 0:
        raise InputError(f"{text!r} is no size; write it like 5GB or 500MB")
    return size


def some(names: Iterable[str], limit: int = 8) -> str:
    """Return a text of the first names and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
