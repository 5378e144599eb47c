"""The doors of the project: what each says of itself, how soon, and what it says of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava import __version__
from llava.common.cli import CommandParser, command_name, started_as
from llava.common.errors import InputError
from llava_inspect.__main__ import main, program_name
from llava_inspect.commands import COMMANDS

NAMES = [command.name for command in COMMANDS]
MODULES = [
    "eval.infer",
    "eval.score",
    "eval.benchmarks",
    "llava.train",
    "llava.serve.cli",
    "llava.eval.run_llava",
]
DOORS = [
    "llava-inspect",
    *(f"llava-inspect {name}" for name in NAMES),
    "python -m llava_inspect",
    "python -m llava_inspect convert",
    "python -m data_prep",
    *(f"python -m data_prep {name}" for name in ("scenes", "inspect", "convert", "check")),
    *(f"python -m {name}" for name in MODULES),
    "python scripts/merge_lora.py",
    "python scripts/export.py",
]
HEAVY = ["torch", "transformers", "peft", "datasets", "accelerate", "ray", "openai"]

# Starts every door with --help in one process, and says what each printed, how it ended and what it loaded.
ASK_ALL = f"""
import contextlib, io, json, runpy, sys

def start(door):
    program, *words = door.split()
    if program == "llava-inspect":
        from llava_inspect.__main__ import entry_point
        sys.argv = [program, *words, "--help"]
        entry_point()
    elif words[0] == "-m":
        sys.argv = ["-m", *words[2:], "--help"]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*words, "--help"]
        runpy.run_path(words[0], run_name="__main__")

answers = {{}}
for door in {DOORS}:
    code = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            start(door)
        except SystemExit as end:
            code = end.code or 0
    answers[door] = [code, printed.getvalue(), [name for name in {HEAVY} if name in sys.modules]]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(repo: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", ASK_ALL]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("door", DOORS)
def test_help_has_examples_under_the_name_that_was_called(answers: dict[str, Any], door: str) -> None:
    code, text, heavy = answers[door]
    assert code == 0
    assert text.startswith(f"usage: {door} ")
    assert f"\nexamples:\n  {door}" in text
    assert heavy == []  # what these load takes seconds


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_commands_and_their_help_agree(answers: dict[str, Any], name: str) -> None:
    assert f"\n  {name:<9} " in answers["llava-inspect"][1]


def test_no_command_shows_the_help_with_exit_code_2(repo: Path) -> None:
    command = [sys.executable, "-m", "llava_inspect"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("usage: python -m llava_inspect COMMAND")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llava-inspect {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: no command 'trian'; did you mean 'train'?"),
        (["xyz"], f"error: no command 'xyz'; choose from {', '.join(NAMES)}"),
        (["train", "tiny_cqu"], "error: tiny_cqu: no such file, and no config of that name ships: "),
        (["convert", "--source", ".", "--output", "new", "--recipe", "insulators"],
         "error: insulators: no such file, and no recipe of that name ships: "),
        (["recipes", "tiny_cpu"], "error: tiny_cpu: no such file, and no recipe of that name ships: "),
        (["configs", "--output", "my.yaml"], "error: --output my.yaml: name the training config to copy"),
        (["compare", "one"], "error: name two runs or more to compare"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_exit_code_2(repo: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "llava_inspect", *arguments]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_mistaken_command_of_data_prep(repo: Path) -> None:
    command = [sys.executable, "-m", "data_prep", "convrt"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: no command 'convrt'; choose inspect, convert, check or scenes\n"


def test_started_as_names_the_program_within_alone() -> None:
    def parser() -> CommandParser:
        return CommandParser("python -m own", "What it does.", examples=["--a b\n--c", ""])

    assert parser().prog == "python -m own" and command_name("merge", "a script") == "a script"
    with started_as("llava-inspect own"):
        assert parser().prog == "llava-inspect own"
        assert "  llava-inspect own --a b \\\n      --c\n  llava-inspect own" in parser().format_help()
        assert command_name("merge", "a script") == "llava-inspect merge"
    with pytest.raises(InputError), started_as("llava-inspect own"):
        raise InputError("a mistake")
    assert parser().prog == "python -m own"


def test_commands_are_named_as_they_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the environment activated, `llava-inspect` alone would not be found."""
    program = tmp_path / "our env" / "bin" / "llava-inspect"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_name() == f"'{program}'"
    with started_as(f"{program_name()} run"):
        assert command_name("chat", "a script") == f"'{program}' chat"
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_name() == "llava-inspect"


def test_flags_are_read_with_dashes_and_underscores() -> None:
    parser = CommandParser("own", "What it does.")
    parser.add_argument("--model-path")
    assert parser.parse_args(["--model_path", "a_b"]).model_path == "a_b"
    assert parser.parse_args(["--model-path=a_b"]).model_path == "a_b"


def test_a_missing_or_unknown_flag_is_one_line(repo: Path) -> None:
    for flags, message in (
        ([], "the following arguments are required: --format, --model-path, --output"),
        (
            ["--format", "hf", "--model-path", "a", "--output", "b", "--nope"],
            "unrecognized arguments: --nope",
        ),
    ):
        command = [sys.executable, "-m", "llava_inspect", "export", *flags]
        done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr == f"error: {message}; python -m llava_inspect export --help shows all flags\n"
