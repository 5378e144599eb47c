"""Read and write files: a crash never leaves half of one, and an error names the bad line. Torch-free."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from llava.common.errors import InputError
from llava.common.remote import RemoteFile, address_of, shown

Model = TypeVar("Model", bound=BaseModel)


def require_here(path: Path) -> None:
    """Raise InputError for an address where something is to be written: a folder of that name would be made
    here."""
    if address_of(path) is not None:
        raise InputError(f"{shown(path)}: this is written to a folder here; name one, and copy it afterwards")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; on success it is renamed to `path`, else removed.

    Raises:
        InputError: `path` cannot be written.
    """
    require_here(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    if path.is_dir():
        temporary.unlink()
        raise InputError(f"{path} is a folder; name a file to write")
    try:
        yield temporary
        with _write_errors(path):
            temporary.replace(path)
    except OSError as error:
        if error.errno in _DISK_FULL:  # raised in the block, by a write
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an InputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block succeeds.

    With `overwrite` an existing `path` stays as it is until the new folder is complete, and is renamed before
    it is removed, so that no half of it is ever visible.

    Raises:
        InputError: `path` cannot be written, or exists and is not to be overwritten.
    """
    require_here(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; name another folder or remove it first")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    path = path if path.name else path.resolve()  # `.` has no name
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    try:
        yield temporary
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON of plain values or pydantic models (aliases used, unset optional fields left out)."""

    def plain(item: Any) -> Any:
        if isinstance(item, BaseModel):
            return item.model_dump(mode="json", by_alias=True, exclude_none=True)
        raise TypeError(f"{type(item).__name__} is not JSON")

    text = json.dumps(value, default=plain, ensure_ascii=False, indent=indent)
    # a UTF-8 file cannot hold half of a surrogate pair but as an escape
    return _LONE_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented."""
    write_text(path, to_json(value, indent=1) + "\n")


def write_json_list(path: Path, items: Iterable[Any]) -> None:
    """Write what `write_json` does for a list, without all items in memory at the same time."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "["
        for item in items:
            file.write(f"{separator}\n " + to_json(item, indent=1).replace("\n", "\n "))
            separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(to_json(row) + "\n" for row in rows)


@contextmanager
def read_errors(path: Path | RemoteFile) -> Iterator[None]:
    """Turn an OSError inside the block into an InputError that names `path`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_text(path: Path | RemoteFile) -> str:
    """Return the file's text; InputError with the file's name if it is absent or not UTF-8."""
    with read_errors(path):
        try:
            if isinstance(path, RemoteFile):
                return path.getvalue().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def first_problem(error: ValidationError) -> str:
    """Return one line for the first problem that pydantic found.

    It is `field: what is wrong`, or `what is wrong` alone where several fields do not go together.
    """
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    # pydantic's own words for it name a class of ours
    message = "Input should be an object" if problem["type"] == "model_type" else problem["msg"]
    return f"{field}{': ' if field else ''}{message.removeprefix('Value error, ')}{more}"


# An escaped pair of surrogates, one alone, any other escape. JSON has backslashes only in strings.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<alone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


def read_json(path: Path | RemoteFile) -> Any:
    """Read one JSON value.

    Raises:
        InputError: with the file's name (and line); it is not JSON, or JSON that Python or a file cannot
            hold: nested too deeply, with numbers of thousands of digits or with halves of surrogate pairs.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets as deep
        raise InputError(f"{path}: JSON that cannot be used ({error})") from None
    for escape in _ESCAPE.finditer(text):
        if escape["alone"]:
            line = text.count("\n", 0, escape.start()) + 1
            raise InputError(f"{path}, line {line}: {escape[0]} is half of a character; write it as UTF-8")
    return value


def read_json_list(path: Path, model: type[Model]) -> list[Model]:
    """Read a JSON list of `model`s; InputError with the index and id of the first bad item."""
    items = read_json(path)
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a JSON list of records, found {type(items).__name__}")
    adapter = TypeAdapter(model)
    records = []
    for index, item in enumerate(items):
        try:
            records.append(adapter.validate_python(item))
        except ValidationError as error:
            name = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
            raise InputError(f"{path}, record {index}{name}: {first_problem(error)}") from None
    return records


def read_jsonl(path: Path | RemoteFile, model: type[Model]) -> list[Model]:
    """Read one `model` per line, skipping blank lines; InputError with the first bad line's number."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(model.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {first_problem(error)}") from None
    return rows


def inside(root: Path, relative: str) -> Path:
    """Return `root/relative`; InputError for absolute names, addresses and any that lead out of `root`.

    `root` may be an address (`llava.common.remote`).
    """
    if address_of(root) is not None:
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise InputError(f"{relative!r} is outside {shown(root)}; use a name relative to that folder")
        return root / relative
    if address_of(Path(relative)) is not None:  # nothing is fetched because a file of records says so
        raise InputError(f"{relative!r} is outside {root}; use a name relative to that folder")
    joined = (root / relative).resolve()
    if Path(relative).is_absolute() or not joined.is_relative_to(root.resolve()):
        raise InputError(f"{relative!r} is outside {root}; use a name relative to that folder")
    return root / relative


def sha256(path: Path | RemoteFile) -> str:
    """Return the hash of a file's content, in hexadecimal."""
    if isinstance(path, RemoteFile):
        return hashlib.sha256(path.getbuffer()).hexdigest()
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
