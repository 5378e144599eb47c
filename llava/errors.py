"""One way to tell a user that the input is at fault: one line on stderr, exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(Exception):
    """The input is at fault. The message is one line: which file, line or field, and the remedy."""


def one_line(error: BaseException, most: int = 200) -> str:
    """What `error` says without line breaks, at most `most` characters of it; its kind if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: 0 done, 2 bad input (`InputError`), 130 interrupted."""
    try:
        code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
