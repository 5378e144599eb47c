"""Locks on open files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    _msvcrt: Any = import_module("msvcrt")
else:
    _msvcrt = None

_FAR = 1 << 30
"""Where Windows locks a byte: nobody may write to a locked one, and no file here is so long."""


def lock(file: int) -> None:
    """Lock an open file, by its descriptor, until it is closed or the process ends.

    On Linux and macOS a process that inherits the descriptor holds the lock too; on Windows it does not.

    Raises:
        BlockingIOError: Another process has locked it.
        OSError: Its file system has no locks.
    """
    if _msvcrt is None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    before = os.lseek(file, 0, os.SEEK_CUR)
    os.lseek(file, _FAR, os.SEEK_SET)
    try:
        _msvcrt.locking(file, _msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(*error.args) from None
    finally:
        os.lseek(file, before, os.SEEK_SET)
