"""Photos at an address, kept here for the second time that they are wanted: a folder of bounded size.

A file is kept under a name made of its address, size and time, so that a photo that has changed is fetched
again. The folder may be used by any number of threads and processes, and deleted at any time: what is not
there is fetched.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from llava.common.remote import FileFacts, RemoteFile, address_of, facts, read_bytes

DEFAULT_GB = 10.0
_CHECKED = 20  # the size is looked at after every such part of the limit
_ABANDONED = 86_400.0  # seconds after which a partial file belongs to nobody


def user_cache_folder() -> Path:
    """Return where this user's programs keep what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llava-inspect"


class PhotoCache:
    """The files of a folder of at most `gigabytes`; those that were read longest ago go first.

    Each further process that writes at the same time may exceed the limit by a twentieth.
    """

    def __init__(self, folder: Path, gigabytes: float) -> None:
        self._folder = folder
        self._limit = int(gigabytes * 1e9)
        self._lock = threading.Lock()
        self._unchecked = self._limit  # bytes written since the size was looked at: it never was

    def read(self, path: Path) -> RemoteFile:
        """Return what a file at an address holds now; InputError if it cannot be fetched."""
        address = address_of(path)
        if address is None:
            raise ValueError(f"{path} is a file here")
        self._check_size(0)  # an earlier command may have left more than this one may keep
        known = facts(path)
        file = self._folder / hashlib.sha256(repr((address, *known)).encode()).hexdigest()[:40]
        with suppress(OSError):
            content = file.read_bytes()
            if len(content) == known.size:
                os.utime(file)  # it was used: the time decides which file goes
                return RemoteFile(address, content)
        content = read_bytes(address)
        self._keep(file, content, known)
        return RemoteFile(address, content)

    def _keep(self, file: Path, content: bytes, known: FileFacts) -> None:
        """Write a file, unless it changed while it was fetched. A disk that takes none only costs time."""
        if len(content) != known.size or len(content) >= self._limit:
            return
        partial = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(file)
        except OSError:
            with suppress(OSError):
                partial.unlink()
        self._check_size(len(content))

    def _check_size(self, written: int) -> None:
        """Make room if that was not done for a twentieth of the limit."""
        with self._lock:
            self._unchecked += written
            if self._unchecked * _CHECKED >= self._limit:
                self._unchecked = 0
                self._make_room()

    def _make_room(self) -> None:
        """Delete files until what is written before the next check fits, too."""
        kept: list[tuple[float, int, str]] = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):  # another process was faster
                    state = entry.stat()
                    if not entry.name.startswith("."):
                        kept.append((state.st_mtime, state.st_size, entry.path))
                    elif time.time() - state.st_mtime > _ABANDONED:
                        Path(entry.path).unlink()
        excess = sum(size for _, size, _ in kept) - (self._limit - self._limit // _CHECKED)
        for _, size, name in sorted(kept):
            if excess <= 0:
                return
            with suppress(OSError):
                Path(name).unlink()
            excess -= size


_in_use = PhotoCache(user_cache_folder() / "photos", DEFAULT_GB)


def use_cache(folder: Path, gigabytes: float) -> None:
    """Keep photos in a folder of `folder` from now on, in this process."""
    global _in_use
    _in_use = PhotoCache(folder / "photos", gigabytes)


def photo_at(path: Path) -> Path | RemoteFile:
    """Return a photo here as it is, and one elsewhere with what it holds, from the cache if it is there."""
    return path if address_of(path) is None else _in_use.read(path)
