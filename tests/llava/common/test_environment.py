"""A forgotten `. .venv/bin/activate`: commands go on in the checkout's own Python, or say one line.

`python -S` stands in for a Python without the packages, a shell script for the one in .venv.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llava.common import environment
from llava.common.environment import how_to_install
from tests.support.paths import REPO

COPIED = (
    "llava/__init__.py", "llava/common/__init__.py", "llava/common/environment.py", "eval/__init__.py",
    "eval/infer.py", "data_prep/__init__.py", "data_prep/__main__.py", "llava_inspect/__init__.py",
    "llava_inspect/__main__.py", "scripts/setup.sh", "scripts/merge_lora.py",
)  # fmt: skip
MODULES = ("eval.infer", "data_prep", "llava_inspect")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, check=False)


def test_commands_go_on_in_the_checkouts_own_python(checkout: Path) -> None:
    own = checkout / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho "own Python: $@"\n')
    own.chmod(0o755)
    for module in MODULES:
        done = start(checkout, "-m", module, "--help")
        assert done.stdout == f"own Python: -S -m {module} --help\n", done.stderr
    script = checkout / "scripts/merge_lora.py"
    assert start(Path("/"), str(script), "--help").stdout == f"own Python: -S {script} --help\n"
    # in a program of somebody else nothing of this kind happens
    assert start(checkout, "-c", "import llava; print(llava.__version__)").stdout[0].isdigit()


def test_without_one_they_say_how_to_set_it_up(checkout: Path) -> None:
    for arguments in (*(["-m", module] for module in MODULES), ["scripts/merge_lora.py"]):
        done = start(checkout, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: this Python lacks what is needed: run scripts/setup.sh, then . .venv/bin/activate\n"
        )


def test_an_extra_is_installed_where_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(environment.sys, "prefix", str(REPO / ".venv"))
    assert how_to_install("gguf") == "scripts/setup.sh gguf"
    monkeypatch.chdir("/")
    assert how_to_install("gguf") == f"{REPO}/scripts/setup.sh gguf"
    monkeypatch.setattr(environment.sys, "prefix", "/usr")
    assert how_to_install("gguf") == "pip install 'llava-inspect[gguf]'"
