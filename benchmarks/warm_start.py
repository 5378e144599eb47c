"""Start `python -m MODULE` by forking a process that has imported torch and the rest already.

On a rented GPU the 10 to 15 seconds of imports that each process begins with would be most of the time. This
process imports them once and never touches CUDA, which no fork survives; each forked process sets up its own.
`take_over` puts `run` in place of subprocess.run, so that a benchmark that starts its contenders by their
command lines starts them so. A command with another PYTHONPATH than this process's has other libraries, and
starts cold; so does everything after `take_over(warm=False)`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

IMPORTED = (
    "llava.train.finetune", "llava.inference.chat", "transformers.models.llava.modeling_llava", "peft",
    "torch.profiler", "trl.trainer.sft_trainer", "datasets",
)  # fmt: skip
DEADLINE = "BENCHMARK_DEADLINE"
"""The variable that holds when (time.time()) a process must have ended those that it started."""
CUT = 124  # the exit code of a process that was ended at the deadline, as `timeout` has it
_RUN = subprocess.run
_WARM = False


def import_all() -> list[str]:
    """Import what contenders need; return what there is none of."""
    absent = []
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a library that is broken here is its contender's to tell
            absent.append(f"{name} ({type(error).__name__}: {error})"[:200])
    gc.collect()
    gc.freeze()  # so that a collection in a forked process copies none of it
    return absent


def take_over(*, warm: bool) -> None:
    """Let subprocess.run start Python modules by `run`, forked if `warm`."""
    global _WARM
    _WARM = warm
    subprocess.run = run  # type: ignore[assignment]  # for the commands that benchmarks give


class Process:
    """A process of `command`, [sys.executable, "-m", MODULE, ...], with a way to end it and all that it
    started. `stdout` and `stderr` are numbers of files."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int) -> None:
        self.returncode: int | None = None
        self._cold: subprocess.Popen | None = None
        if _WARM and env.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
            sys.stdout.flush()
            sys.stderr.flush()
            self.pid = os.fork()
            if self.pid == 0:
                _become(command, env, stdout, stderr)
        else:
            self._cold = subprocess.Popen(list(command), env=dict(env), stdout=stdout, stderr=stderr)
            self.pid = self._cold.pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None and self._cold is not None:
            self.returncode = self._cold.poll()
        elif self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, until: float) -> int:
        """Wait for its end, and end it at the time `until`; return the exit code, CUT if it was ended."""
        while self.poll() is None:
            if time.time() > until:
                self.kill()
                return CUT
            time.sleep(0.05)
        return int(self.returncode or 0)

    def kill(self) -> None:
        """End it and the processes that it started."""
        try:
            family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        while self.poll() is None:
            time.sleep(0.02)


def run(
    command: Any, *, env: Mapping[str, str] | None = None, stdout: Any = None, stderr: Any = None,
    capture_output: bool = False, text: bool = False, check: bool = False, **options: Any,
) -> subprocess.CompletedProcess:  # fmt: skip
    """Do what subprocess.run does, and end a Python module at the deadline."""
    if options or not _is_module(command):
        given = {"env": env, "stdout": stdout, "stderr": stderr} if not capture_output else {"env": env}
        return _RUN(command, **given, capture_output=capture_output, text=text, check=check, **options)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        captures_out, captures_err = (capture_output or pipe == subprocess.PIPE for pipe in (stdout, stderr))
        to = out.fileno() if captures_out else 1 if stdout is None else _number(stdout)
        merged = stderr == subprocess.STDOUT
        said = err.fileno() if captures_err else to if merged else 2 if stderr is None else _number(stderr)
        code = Process(command, os.environ if env is None else env, to, said).wait(deadline())
        found: list[Any] = []
        for captured, file in ((captures_out, out), (captures_err, err)):
            file.seek(0)
            content = file.read() if captured else None
            found.append(content.decode(errors="replace") if text and content is not None else content)
    if check and code:
        raise subprocess.CalledProcessError(code, command, *found)
    return subprocess.CompletedProcess(command, code, *found)


def deadline() -> float:
    """Return the time by which what this process starts must have ended."""
    return float(os.environ.get(DEADLINE, "inf"))


def _is_module(command: Any) -> bool:
    return isinstance(command, list) and len(command) > 2 and command[1] == "-m"


def _number(file: Any) -> int:
    if file == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    return int(file if isinstance(file, int) else file.fileno())


def _become(command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int) -> None:
    """Run the module in this forked process, and exit as Python does but for freeing its memory."""
    code: Any = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        new = dict(env)  # which may be os.environ itself
        os.environ.clear()
        os.environ.update(new)
        for inherited in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # no public list
            inherited.atexit = False  # temporary folders are those of the process that made them
        tempfile.tempdir = None  # found anew, where the environment says
        module, sys.argv = command[2], list(command[2:])
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]  # as Python's own exit does
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code if isinstance(code, int) else int(code is not None))
