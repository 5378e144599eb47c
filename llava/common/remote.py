"""Files at addresses such as s3://bucket/folder, through fsspec. Torch-free.

Settings and command lines hold an address as a `Path`, like the name of any file; `Path` makes one slash of
two, which `address_of` undoes. So a folder's address can be joined with a name, and what finally opens a file
asks whether it is one here or elsewhere. The credentials are those that the address's own library finds.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")  # one letter alone would be a drive of Windows

_PASSWORD = re.compile(r"[^/]+://[^/@]*:[^/]*@")


class FileFacts(NamedTuple):
    """The size of a file in bytes, and the time of its last change in ns."""

    size: int
    changed: int


class RemoteFile(BytesIO):
    """What a file elsewhere holds; as text it is the file's address, which is how errors name it."""

    def __init__(self, address: str, content: bytes) -> None:
        super().__init__(content)
        self.address = address

    def __str__(self) -> str:
        return self.address


def address_of(path: Path) -> str | None:
    """Return the address that a path stands for, such as `s3://bucket/a.jpg`; None for a file here."""
    match = _ADDRESS.match(path.as_posix())
    return None if match is None else f"{match[1]}://{path.as_posix()[match.end() :]}"


def shown(path: Path) -> str:
    """Return a path as people write it."""
    return address_of(path) or str(path)


def resolved(path: Path) -> Path:
    """Return a path with its folders and links resolved; an address as it is."""
    return path.resolve() if address_of(path) is None else path


def is_file(path: Path) -> bool:
    """Tell whether there is a file at a path, here or elsewhere."""
    address = address_of(path)
    if address is None:
        return path.is_file()
    with _file_system(address) as (system, name):
        return bool(system.isfile(name))


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder at a path, here or elsewhere; elsewhere one has files in it."""
    address = address_of(path)
    if address is None:
        return path.is_dir()
    with _file_system(address) as (system, name):
        return bool(system.isdir(name))


def read_bytes(address: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return what a file holds, or its bytes from `start` up to `end`; negative ones count from its end.

    Raises:
        InputError: It is absent or cannot be read.
    """
    with _file_system(address) as (system, name):
        return bytes(system.cat_file(name, start=start, end=end))


def file_at(path: Path) -> Path | RemoteFile:
    """Return a file here as it is, and one elsewhere with what it holds.

    For what the user named, and for names that `llava.common.files.inside` has checked.
    """
    address = address_of(path)
    return path if address is None else RemoteFile(address, read_bytes(address))


def read_part(path: Path, offset: int, length: int) -> bytes:
    """Return `length` bytes of a file from `offset` on, here or elsewhere; InputError if that fails."""
    address = address_of(path)
    if address is not None:
        return read_bytes(address, offset, offset + length)
    with open_file(path) as file:
        file.seek(offset)
        return file.read(length)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read bytes, here or elsewhere, where only what is read of it is fetched.

    Raises:
        InputError: It is absent, or cannot be read inside the block either.
    """
    address = address_of(path)
    if address is None:
        try:
            with path.open("rb") as file:
                yield file
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
        return
    with _file_system(address) as (system, name), system.open(name, "rb") as file:
        yield file


def facts(path: Path) -> FileFacts:
    """Return a file's size and time, here or elsewhere; InputError if it is absent."""
    address = address_of(path)
    if address is None:
        try:
            found = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        return FileFacts(found.st_size, found.st_mtime_ns)
    with _file_system(address) as (system, name):
        return _facts_of(system.info(name))


def list_files(folder: Path) -> dict[str, FileFacts]:
    """Return all files below a folder elsewhere, by their names relative to it, in few requests."""
    address = address_of(folder)
    if address is None:
        raise ValueError(f"{folder} is a folder here")
    with _file_system(address) as (system, root):
        system.invalidate_cache(root)  # what it remembers may be older than what others have sent
        found = system.find(root, detail=True)
    return {posixpath.relpath(name, root): _facts_of(info) for name, info in sorted(found.items())}


def fetch(path: Path, folder: Path) -> Path:
    """Copy a file from elsewhere into `folder`, unless it is there with the size and time it has now.

    Returns:
        The copy; for a file here the file itself.
    """
    address = address_of(path)
    if address is None:
        return path
    size, changed = facts(path)
    copy = folder / f"{size}-{changed}-{path.name}"
    if not copy.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.partial")
        with _file_system(address) as (system, name):
            system.get_file(name, str(partial))
        partial.replace(copy)
    return copy


def send_file(source: Path, target: Path) -> None:
    """Copy a file from here to an address; there it is whole or absent."""
    address = address_of(target)
    if address is None:
        raise ValueError(f"{target} is a file here")
    with _file_system(address) as (system, name):
        system.put_file(str(source), name)


def remove_file(path: Path) -> None:
    """Delete a file at an address."""
    address = address_of(path)
    if address is None:
        raise ValueError(f"{path} is a file here")
    with _file_system(address) as (system, name):
        system.rm_file(name)


def _facts_of(info: dict[str, Any]) -> FileFacts:
    """Each library has its own name for the time; without any, the content's tag stands for it."""
    for key in ("LastModified", "mtime", "last_modified", "updated", "created"):
        if value := info.get(key):
            seconds = value.timestamp() if hasattr(value, "timestamp") else value
            if isinstance(seconds, (int, float)):
                return FileFacts(int(info["size"]), int(seconds * 1e9))
    return FileFacts(int(info["size"]), 0)


@contextmanager
def _file_system(address: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of an address and the name within it; what fails inside is an InputError."""
    if _PASSWORD.match(address):  # it would be printed with the address, and stand in outputs
        raise InputError(
            "an address with a password in it is not taken; leave it out, and give it in the environment or "
            "the configuration file of the address's library"
        )
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(f"{address}: addresses need fsspec: {how_to_install('cloud')}") from None
    try:
        system, name = url_to_fs(address)
    except ImportError as error:
        raise InputError(f"{address}: {one_line(error)}; {how_to_install('cloud')}") from None
    except ValueError:
        raise InputError(f"{address}: no address of a kind that is known, such as s3:// or gs://") from None
    try:
        yield system, name
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{address}: no such file or folder") from None
    except Exception as error:  # each library has errors of its own, of networks and credentials
        why = one_line(error)[:200]
        remedy = "check the network, the address and the credentials (docs/cloud.md)"
        raise InputError(f"{address}: cannot be reached ({why}); {remedy}") from None
