"""What only Linux and macOS have is used nowhere without a look at which system this is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import REPO
from tests.test_architecture import MODULES

ABSENT_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "crypt", "syslog"}
ABSENT = {
    "os": {
        *(
            "fork",
            "getuid",
            "geteuid",
            "getgid",
            "killpg",
            "getpgid",
            "setsid",
            "sysconf",
            "statvfs",
            "mkfifo",
            "pread",
        ),
        *("sched_getaffinity", "uname", "getloadavg", "nice", "wait", "O_DIRECTORY", "O_NOFOLLOW", "WNOHANG"),
        *("kill", "execv", "execvp"),  # which do something else there
    },
    "signal": {
        "SIGKILL",
        "SIGHUP",
        "SIGALRM",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPIPE",
        "alarm",
        "pause",
        "setitimer",
    },
    "select": {"poll", "epoll"},
}
CHECKS = ('os.name == "nt"', 'os.name != "nt"', "if WINDOWS", "hasattr(select")

# With what Windows lacks taken away from the project's modules: photos are rendered and converted, and two
# processes contend for a lock.
AS_ON_WINDOWS = """
import builtins, fcntl, os, select, sys, types
from pathlib import Path

def locking(file, mode, count):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, os.lseek(file, 0, os.SEEK_CUR))
    except BlockingIOError as error:
        raise PermissionError(*error.args) from None

import psutil, subprocess  # which know what system this is
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
real_import = builtins.__import__

def windows_import(name, globals=None, *rest, **more):
    ours = (globals or {}).get("__name__", "").startswith(("llava", "data_prep", "eval"))
    if ours and name in ("fcntl", "resource", "pwd", "grp", "termios"):
        raise ImportError(name)
    return real_import(name, globals, *rest, **more)

builtins.__import__ = windows_import
for name in ("fork", "sched_getaffinity", "getuid", "geteuid", "sysconf", "killpg"):
    delattr(os, name)
del select.poll

from llava_inspect.__main__ import main
assert main(["scenes", "--output", "photos", "--count", "6", "--workers", "1"]) == 0
convert = ["convert", "--source", "photos", "--recipe", "insulator", "--output", "data", "--workers", "1"]
assert main(convert) == 0

from llava.common.locks import lock
file = open("lock", "a+b", buffering=0)
file.write(b"ab")
lock(file.fileno())
file.write(b"c")
ask = "import fcntl; fcntl.lockf(open('lock', 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 << 30)"
asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
assert "BlockingIOError" in asked.stderr, asked.stderr
assert Path("lock").read_bytes() == b"abc"
"""


# What a file must have for a look at its syntax to be worth the time.
SUSPECT = re.compile(
    rf"import ({'|'.join(ABSENT_MODULES)})|from ({'|'.join(ABSENT_MODULES)})"
    + "".join(rf"|\b{module}\.({'|'.join(names)})\b" for module, names in ABSENT.items())
    + r"|read_text\(\)|write_text\(|open\(\"[rwax]"
)


def functions_around(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield each node with the function that it is in, or else the module."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        node, around = waiting.pop()
        yield node, around
        inner = node if isinstance(node, ast.FunctionDef) else around
        waiting += [(child, inner) for child in ast.iter_child_nodes(node)]


def problems(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if not SUSPECT.search(text):
        return
    tree = ast.parse(text)
    tried = {
        id(line)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(handler) for handler in node.handlers)
        for line in node.body
    }
    for node, around in functions_around(tree):
        place = f"{path.relative_to(REPO)}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in tried:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            yield from (f"{place}: imports {name}" for name in names if name in ABSENT_MODULES)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in ABSENT.get(node.value.id, ()):
                code = ast.get_source_segment(text, around) or text
                if not any(check in code for check in CHECKS):
                    yield f"{place}: uses {node.value.id}.{node.attr}"
        elif (
            isinstance(node, ast.Call)
            and opens_text(node)
            and "encoding" not in {k.arg for k in node.keywords}
        ):
            yield f"{place}: opens text without an encoding"


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text, and passes no encoding by its place."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    first = call.args[0] if call.args else None
    if name == "open" and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return "b" not in first.value and ":" not in first.value  # a tar file's mode has a colon
    return isinstance(call.func, ast.Attribute) and (
        (name == "read_text" and not call.args) or (name == "write_text" and len(call.args) < 2)
    )


def test_what_windows_lacks_is_not_used_unawares() -> None:
    assert [problem for path in MODULES.values() for problem in problems(path)] == []


def test_commands_and_locks_work_without_what_windows_lacks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "train.json").is_file()
