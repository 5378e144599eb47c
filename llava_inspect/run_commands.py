"""Do the steps of a run, each by its command, which is printed; what is done is not done again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from llava.common.cli import IN_A_RUN, command_name
from llava.common.errors import InputError
from llava.common.locks import lock as lock_file
from llava_inspect.run_log import Log
from llava_inspect.run_steps import Step


def do_step(
    make_steps: Callable[[], Sequence[Step]],
    index: int,
    inputs: Mapping[str, str],
    log: Log,
    lock: int,
    *,
    again: bool = False,
) -> None:
    """Do a step unless it is done; ends the process if its command fails.

    Args:
        make_steps: Returns all steps, by what earlier ones wrote.
        index: Which of them to do.
        inputs: A fingerprint of each input of the run.
        log: What was done before.
        lock: The lock of `only_run_in`.
        again: Do it even if it is done.
    """
    steps = make_steps()
    step = steps[index]
    is_done = log.is_done(step, inputs) and not again
    print_title(index, len(steps), step, " (done)" if is_done else "")
    if is_done:
        return
    if log.changed(step, inputs):
        remove(step.parts)
        step = make_steps()[index]
    log.write(step, inputs)
    begun = time.monotonic()
    print(f"  $ {typed(step.arguments)}", flush=True)
    code = run_command_of(step, lock)
    if code:
        stop(step, code)
    log.write(step, inputs, round(time.monotonic() - begun, 1))
    print(f"  ({duration(time.monotonic() - begun)})", flush=True)


def print_title(index: int, total: int, step: Step, state: str) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{index + 1}/{total} {step.title}{state}", style="bold")


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_command_of(step: Step, lock: int) -> int:
    """Run a step's command to its end, and return its exit code as a shell does.

    Ctrl-C reaches the command as well, which ends in its own way (training saves its state first), so here it
    is only waited for; SIGTERM reaches this process alone and is passed on.
    """
    started = Path(sys.argv[0])
    # the console script by itself, so that messages name commands as the user writes them; on Windows it is
    # a program that names itself without its .exe
    is_script = started.name == "llava-inspect" and started.is_file()
    command = [sys.executable, *([started] if is_script else ["-m", "llava_inspect"]), *step.arguments]
    inherited = () if os.name == "nt" else (lock,)
    with subprocess.Popen(command, pass_fds=inherited, env=os.environ | {IN_A_RUN: "1"}) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    code = process.wait()
                    return code if code >= 0 else 128 - code
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def stop(step: Step, code: int) -> NoReturn:
    """End as the step's command did, which has said why."""
    when = "the same command" if code > 128 else "when that is put right, the same command"
    print(f"stopped at {step.name}; {when} goes on from there", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def only_run_in(output: Path) -> Iterator[int]:
    """Yield a lock on the folder, which the commands of the steps hold too.

    So one that outlives its run (which was killed alone) is not disturbed by the next; on Windows it may be.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("wb")
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror}); name a folder") from None
    with lock as file:
        try:
            lock_file(file.fileno())
        except OSError:
            raise InputError(
                f"{output}: another run, or a command that it started, is still at work"
            ) from None
        yield file.fileno()


def typed(arguments: Sequence[str]) -> str:
    """Return a command of llava-inspect as the user can type it."""
    name, *rest = arguments
    return f"{command_name(name, f'llava-inspect {name}')} {shlex.join(rest)}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
