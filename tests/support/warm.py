"""Python processes that start warm: forked from one that has imported torch, transformers and peft.

A fresh Python takes 4 to 6 seconds of a core for these imports. Where a test needs processes of its own (they
are killed, sit at a terminal, train together), it takes them from here. Each command has one test that starts
it as a user does.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.paths import REPO

_POPEN = subprocess.Popen  # for which a test may put `warm_popen`


class WarmProcess:
    """A process like one of subprocess.Popen: `python ARGUMENTS`, where these begin with -m, -c or a file.

    Args:
        arguments: What follows `python`.
        stdin, stdout, stderr: Files, or their numbers; /dev/null by default.
        env: Its environment; this process's by default.
        terminal: Make stdin, a pseudo-terminal, its own: it gets the signals of keys.
        folder: Where it starts; this process's current folder by default.
    """

    def __init__(
        self,
        *arguments: object,
        stdin: int | IO | None = None,
        stdout: int | IO | None = None,
        stderr: int | IO | None = None,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.args = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        request = {
            "arguments": self.args,
            "environment": dict(os.environ if env is None else env),
            "folder": str(folder or Path.cwd()),
            "terminal": terminal,
        }
        self._told, theirs = socket.socketpair()
        with Path(os.devnull).open("r+b") as nothing, theirs:
            files = [nothing if file is None else file for file in (stdin, stdout, stderr)]
            numbers = [file if isinstance(file, int) else file.fileno() for file in files]
            socket.send_fds(_server(), [json.dumps(request).encode()], [*numbers, theirs.fileno()])
        self._lines = self._told.makefile("r")
        self.pid = int(self._lines.readline())

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended, negative after a signal."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_warm(
    *arguments: object, input: str = "", env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end; the result is that of subprocess.run with captured text."""
    [done] = _run_together(arguments, [env], input, timeout)
    return done


def run_as_torchrun(processes: int, *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """Run so many processes of `python ARGUMENTS`, with the variables that torchrun sets for each. As
    torchrun does, it ends them all when one has failed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    common |= {"TORCHELASTIC_RUN_ID": "test"}
    envs = [os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return _run_together(arguments, envs, "", 300)


def _run_together(
    arguments: Sequence[object], envs: Sequence[Mapping[str, str] | None], input: str, timeout: float
) -> list[subprocess.CompletedProcess[str]]:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "input"
        given.write_text(input)
        running = []
        try:
            for number, env in enumerate(envs):
                said, complained = Path(folder) / f"out{number}", Path(folder) / f"err{number}"
                with given.open() as stdin, said.open("w") as stdout, complained.open("w") as stderr:
                    process = WarmProcess(*arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=env)
                running.append((process, said, complained))
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                codes = [process.poll() for process, *_ in running]
                if any(codes) or None not in codes:
                    break
                time.sleep(0.01)
        finally:
            for process, *_ in running:
                process.kill()
        return [
            subprocess.CompletedProcess(
                process.args, process.wait(), said.read_text(), complained.read_text()
            )
            for process, said, complained in running
        ]


def warm_popen(command: Sequence[str], **options: object) -> WarmProcess | subprocess.Popen:
    """Start what subprocess.Popen starts, warm if it is this Python; for modules that call it themselves."""
    program, *arguments = command
    if program != sys.executable:
        return _POPEN(command, **options)  # type: ignore[call-overload]
    assert Path(str(options.pop("cwd", Path.cwd()))) == Path.cwd()
    return WarmProcess(*arguments, **options)  # type: ignore[arg-type]


@contextmanager
def warm_program(path: Path, *arguments: object) -> Iterator[None]:
    """Have a program at `path` that does, warm, what `python ARGUMENTS` and those of its call would: for
    scripts and launchers that start it by its name."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as calls,
    ):
        address = f"{folder}/calls"
        calls.bind(address)
        calls.listen()
        path.write_text(PROGRAM.format(python=sys.executable, address=address), encoding="utf-8")
        path.chmod(0o755)

        def answer(call: socket.socket, message: bytes, files: list[int]) -> None:
            more, environment, where = json.loads(message)
            with call:
                process = WarmProcess(
                    *arguments, *more,
                    stdin=files[0], stdout=files[1], stderr=files[2], env=environment, folder=Path(where),
                )  # fmt: skip
                for file in files:
                    os.close(file)
                call.send(str(process.wait()).encode())

        def answer_calls() -> None:
            while True:
                call, _ = calls.accept()
                message, files, _, _ = socket.recv_fds(call, 2**20, 3)
                if not message:
                    call.close()
                    return
                threading.Thread(target=answer, args=(call, message, files), daemon=True).start()

        _server()  # once, not by two calls at once
        thread = threading.Thread(target=answer_calls, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
                last.connect(address)
            thread.join()


PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as call:
    call.connect({address!r})
    request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()])
    socket.send_fds(call, [request.encode()], [0, 1, 2])
    sys.exit(int(call.recv(100)))
"""


@functools.cache
def _server() -> socket.socket:
    """Start the server once for the tests of this process; it ends with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.warm_server", str(theirs.fileno())]
        # Its stdout is no file, in which Python could seek: a forked process's own may be a pipe.
        server = _POPEN(
            command,
            cwd=REPO,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
