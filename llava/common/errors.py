"""One way to tell a user that the input is at fault: one line on stderr, exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable


class InputError(Exception):
    """The input is at fault. The message is one line: which file, line or field, and the remedy."""


def one_line(error: BaseException, most: int = 200) -> str:
    """What `error` says without line breaks, at most `most` characters of it; its kind if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


# What the disk, its owner or the length of a name refuses: no mistake of the program, wherever it comes up.
_REFUSED = {"ENAMETOOLONG", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO"}


def user_message(error: Exception) -> str | None:
    """What to tell the user of `error`; None for a mistake of the program: its traceback tells more."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _REFUSED:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return None


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: 0 done, 2 bad input (see `fault`), 130 interrupted."""
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        told = user_message(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        code = 2
    sys.exit(code or 0)
