"""Report bad input in one way: one line on stderr, exit code 2."""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input. The message is one line: which file, line or field, and the remedy."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return the error's message (its class if empty) without line breaks, cut to `limit` characters."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


# Refused by the disk, by permissions or for a name's length: no mistake of the program, wherever raised.
_ENVIRONMENT_ERRORS = {"ENAMETOOLONG", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO"}


def user_message(error: Exception) -> str | None:
    """Return the message for the user; None for a mistake of the program, whose traceback says more."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _ENVIRONMENT_ERRORS:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return None


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: 0 done, 2 bad input (see `user_message`), 130 interrupted, 141 if
    nobody reads the output any more (`| head`)."""
    collect_less()
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        if not _reader_is_gone():
            raise  # another pipe broke, to a process that died
        # What is left in the buffer would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141  # as a shell reports SIGPIPE
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = 2
    sys.exit(code or 0)


def collect_less() -> None:
    """Look for garbage seldom: importing torch and transformers makes a million objects that stay, and every
    look at them takes time, an eighth of a command's start."""
    gc.set_threshold(10_000)


def _reader_is_gone() -> bool:
    """Return whether standard output is a pipe that nobody reads; on Windows, which cannot tell, it is."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
