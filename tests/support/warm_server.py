"""Forks Python processes that have imported torch, transformers and peft; `tests.support.warm` starts it.

`python -m tests.support.warm_server FD` reads requests from a socket. For each it forks a process that leaves
`requested` with the request, runs it and exits as Python does, but for freeing its memory.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import tempfile
import threading
from types import ModuleType
from typing import Any

IMPORTED_FIRST = (
    "llava.train.finetune",
    "llava.inference.live",
    "llava.export.merge",
    "eval.answering.local",
)


def requested(channel: socket.socket) -> dict[str, Any]:
    """Wait for requests; returns in a process forked for one of them, and nowhere else."""
    watching = 0
    while True:
        message, files, _, _ = socket.recv_fds(channel, 2**20, 4)
        while watching and os.waitpid(-1, os.WNOHANG if message else 0)[0]:
            watching -= 1
        if not message:
            os._exit(0)  # the tests are over
        if os.fork() == 0:
            channel.close()
            _fork_and_watch(*files)
            return dict(json.loads(message))
        watching += 1
        for file in files:
            os.close(file)


def _fork_and_watch(stdin: int, stdout: int, stderr: int, told: int) -> None:
    """Fork once more, return in the child and tell the tests its number and, at its end, its exit code."""
    child = os.fork()
    if child:
        for file in (stdin, stdout, stderr):
            os.close(file)
        os.write(told, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(told)
    for number, file in enumerate((stdin, stdout, stderr)):
        os.dup2(file, number)
        os.close(file)


def run(arguments: list[str], environment: dict[str, str], folder: str, terminal: bool) -> None:
    """Do what Python does with `arguments`: -m MODULE ..., -c CODE ... or FILE ..."""
    if terminal:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found anew, where the environment says
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.modules.pop(arguments[1], None)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), vars(main))
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def leave(code: object) -> None:
    """Exit after the exit handlers and all threads, as Python does. Freeing 400 MB would take 0.4 s more."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    for name in IMPORTED_FIRST:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a forked process copies none of it
    request = requested(socket.socket(fileno=int(sys.argv[1])))
    try:
        run(**request)
    except SystemExit as stop:
        leave(stop.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        leave(1)
    leave(0)
