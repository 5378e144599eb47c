"""The folder that uploads lie in until they are read: private to the process's user, and always wiped."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from llava.common.locks import lock

PREFIX = "llava-inspect-web-"


class PrivateFolder:
    """A new temporary folder that only this user may enter.

    The lock on it lives as long as the process. So one whose process was killed, and could not wipe it, is
    known by its free lock, and the next start wipes it.
    """

    def __init__(self) -> None:
        """Wipe what killed processes of this user left, and make the folder."""
        _wipe_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))  # with mode 0700
        self._lock: int | None = _open_lock(self.path)
        lock(self._lock)

    def wipe(self) -> None:
        """Delete the folder with all that is in it; twice does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            shutil.rmtree(self.path, ignore_errors=True)  # Windows keeps a file that is open

    def wipe_older(self, seconds: float) -> None:
        """Delete the files that were written more than so many seconds ago."""
        for path in self.path.rglob("*"):
            with suppress(OSError):
                if path.is_file() and path.stat().st_mtime < time.time() - seconds:
                    self.delete(path)

    def delete(self, path: Path) -> None:
        """Delete a file of the folder, and the folder that it lay in if that is empty now."""
        if self.holds(path):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()

    def holds(self, path: Path) -> bool:
        """Whether a path lies in the folder."""
        return path.resolve().is_relative_to(self.path.resolve())


def _wipe_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            # on Windows each user has a folder of temporary files
            if path.is_symlink() or (os.name != "nt" and path.stat().st_uid != os.getuid()):
                continue
            left = _open_lock(path)
        except OSError:
            continue
        try:
            lock(left)
        except BlockingIOError:
            os.close(left)  # its process runs
        else:
            os.close(left)
            shutil.rmtree(path, ignore_errors=True)


def _open_lock(folder: Path) -> int:
    """Open what is locked: the folder itself, on Windows, which opens none, a file in it."""
    if os.name == "nt":
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
