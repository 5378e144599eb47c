"""The checkout's own Python environment, and how to add to it. Needs nothing but the standard library.

A command that a checkout starts with another Python (a forgotten `. .venv/bin/activate`) goes on in .venv.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = os.name == "nt"
SETUP = ROOT / "scripts" / ("setup.ps1" if WINDOWS else "setup.sh")
"""Absent where the packages were installed from a wheel."""
OWN_PYTHON = ROOT / ".venv" / ("Scripts/python.exe" if WINDOWS else "bin/python")


def leave_foreign_python() -> None:
    """Start the command that this process is again with the checkout's own Python, if this one cannot run it.

    Nothing happens in a program that merely imports the packages, nor where they come from a wheel.
    """
    if is_command(sys.argv) and SETUP.is_file() and importlib.util.find_spec("omegaconf") is None:
        start_again()  # every command needs OmegaConf, and no Python has it by chance


def is_command(argv: list[str]) -> bool:
    """Tell whether a process's arguments are those of `python -m PACKAGE...` or of a Python script in
    scripts/. While Python looks for the module that -m names, argv[0] is `-m` itself."""
    return argv[:1] == ["-m"] or (bool(argv) and Path(argv[0]).resolve().parent == SETUP.parent)


def start_again() -> NoReturn:
    """Replace this process by the same command in the checkout's Python; exit with a line if it has none."""
    command = getattr(sys, "orig_argv", None)  # since Python 3.10
    if command and OWN_PYTHON.is_file() and not is_own_python():
        again = [str(OWN_PYTHON), *command[1:]]
        if WINDOWS:  # whose execv returns to the terminal while the command still runs
            sys.exit(subprocess.call(again))
        os.execv(OWN_PYTHON, again)
    activate = OWN_PYTHON.with_name("Activate.ps1" if WINDOWS else "activate")
    print(
        f"error: this Python lacks what is needed: run {_shown(SETUP)}, then . {_shown(activate)}",
        file=sys.stderr,
    )
    sys.exit(2)


def is_own_python() -> bool:
    """Tell whether this process runs in the checkout's own environment."""
    return Path(sys.prefix).resolve() == OWN_PYTHON.parents[1].resolve()


def how_to_install(extra: str) -> str:
    """Return the command that installs one of the extras of pyproject.toml, such as `gguf`, where this
    process would find it."""
    return f"{_shown(SETUP)} {extra}" if is_own_python() else f"pip install 'llava-inspect[{extra}]'"


def _shown(path: Path) -> Path:
    """Return a path of the checkout as it is shown: relative where the checkout is the current folder."""
    return path.relative_to(ROOT) if Path.cwd() == ROOT else path
