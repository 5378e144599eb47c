"""Running a command's `main` in the test's own process.

A subprocess that imports torch, transformers and peft takes 5 to 8 seconds to start. Each command has one
test that runs it as a user does; the others call it here.
"""

from __future__ import annotations

import io
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout

from llava.common.errors import run_command
from llava_inspect import run_commands
from llava_inspect.__main__ import main as llava_inspect
from llava_inspect.run_steps import Step


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


def do_as_printed(step: Step) -> int:
    """Do a step of `llava-inspect run` in this process, by the command that it prints."""
    program, *arguments = shlex.split(run_commands.typed(step.arguments))
    assert program == "llava-inspect"
    return llava_inspect(arguments)
