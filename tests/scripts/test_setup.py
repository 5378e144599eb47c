"""scripts/setup.sh: when it installs, and when it leaves .venv as it is. The environment is a stand-in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def clone(repo: Path, tmp_path: Path) -> Path:
    """Set up a folder with setup.sh, the pins, and a .venv whose Python only writes down its arguments."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(repo / name, tmp_path / name)
    write_program(tmp_path / ".venv/bin/python", f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    write_program(tmp_path / ".venv/bin/llava-inspect", "#!/bin/sh\n")
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def installs(clone: Path, *extras: str) -> list[str]:
    """Run setup.sh; return what it had pip install."""
    (clone / "calls").write_text("", encoding="utf-8")
    subprocess.run(["scripts/setup.sh", *extras], cwd=clone, check=True, capture_output=True)
    calls = (clone / "calls").read_text(encoding="utf-8").splitlines()
    return [call.split("--editable ")[1] for call in calls if "pip install" in call]


def test_what_is_installed_is_not_installed_again(clone: Path) -> None:
    assert installs(clone, "dev") == [".[dev]"]
    assert installs(clone, "dev") == []
    assert installs(clone) == []  # the extras include what is needed without them
    assert installs(clone, "quant") == [".[quant]"]
    assert installs(clone, "dev") == []


def test_an_unknown_extra_is_refused_with_those_that_there_are(clone: Path) -> None:
    done = subprocess.run(
        ["scripts/setup.sh", "gguf", "quannt"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and not (clone / "calls").exists()
    assert done.stderr.startswith("error: there is no extra quannt; choose from wandb tensorboard quant ")


def test_changed_pins_are_installed(clone: Path) -> None:
    assert installs(clone, "dev") == [".[dev]"]
    with (clone / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("# another\n")
    assert installs(clone, "quant") == [".[quant]"]
    assert installs(clone, "dev") == [".[dev]"]


def test_a_folder_that_moved_is_installed_again(clone: Path) -> None:
    assert installs(clone) == ["."]
    write_program(clone / ".venv/bin/llava-inspect", "#!/where/it/was/.venv/bin/python\n")
    assert installs(clone) == ["."]
