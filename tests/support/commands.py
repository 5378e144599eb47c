"""Running a command's `main` in the test's own process.

A subprocess that imports torch, transformers and peft takes 5 to 8 seconds to start. Each command has one
test that runs it as a user does; the others call it here.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout

from llava.common.errors import run_command


def run_here(main: Callable[[Sequence[str]], int], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `main` as `run_command` does; the result is that of subprocess.run with captured text."""
    argv = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run_command(lambda: main(argv))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())
