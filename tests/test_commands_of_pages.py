"""Every command that a page shows is understood by its program, with all its flags.

Only its words are read here. The commands of the README, the how-tos and the tutorials are run, elsewhere.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llava_inspect.commands import COMMANDS
from tests.support.paths import REPO

PAGES = [*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("playground/*/README.md")]
OURS = re.compile(r"([A-Z_]+=\S* )*(python3? )?(-m )?(llava|data_prep|eval\b|benchmarks|scripts/)")
CHANGED = "CHANGELOG.md"  # speaks of what was
MODULES = {
    "scripts/finetune_lora.sh": "llava_inspect.train",
    "scripts/merge_lora.py": "llava_inspect.merge",
    "scripts/export.py": "llava_inspect.export",
}
ENTRIES = {command.name: command for command in COMMANDS}
EXTRAS = re.findall(r"^([\w-]+) = \[", (REPO / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


class ReadError(Exception):
    """Raised once a command's words have been parsed: it goes no further."""


def commands_of(page: Path) -> Iterator[str]:
    """Yield the commands of a page's blocks, fenced or indented, that are written out in full."""
    text = page.read_text(encoding="utf-8")
    fences = re.compile(r"^ *```(\w*).*?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
    fenced = [block for language, block in fences.findall(text) if language in ("", "bash")]
    indented = re.findall(r"(?:^    .*\n)+", fences.sub("", text), re.MULTILINE)
    for block in [*fenced, *(re.sub("^    ", "", block, flags=re.MULTILINE) for block in indented)]:
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r" (?:&&|\|\|?|<+|>) ", line.strip()):
                if OURS.match(command) and "..." not in command:
                    yield command


def read(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a program of this project read its words; programs of others are passed over."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables before the program
        words.pop(0)
    if not words:
        return
    program, *arguments = words
    monkeypatch.setattr("sys.argv", words)
    if program == "llava-inspect":
        if not arguments or arguments[0] in ("COMMAND", "--version"):
            return
        assert arguments[0] in ENTRIES, command
        ENTRIES[arguments[0]].run(arguments[1:])
    elif program == "scripts/setup.sh":
        assert set(arguments) <= set(EXTRAS), command
    elif program in MODULES:
        importlib.import_module(MODULES[program]).main(arguments)
    elif program in ("python", "python3") and arguments[:1] == ["-m"]:
        name = arguments[1]
        if name.partition(".")[0] not in ("benchmarks", "data_prep", "eval", "llava", "llava_inspect"):
            return
        folder = (REPO / name.replace(".", "/")).is_dir()
        module = importlib.import_module(f"{name}.__main__" if folder else name)
        monkeypatch.setattr("sys.argv", arguments[1:])
        module.main()
    elif program in ("python", "python3") and arguments and arguments[0] in MODULES:
        importlib.import_module(MODULES[arguments[0]]).main(arguments[1:])
    elif program.startswith("scripts/") or (arguments and arguments[0].startswith("scripts/")):
        script = program if program.startswith("scripts/") else arguments[0]
        assert (REPO / script).is_file(), command


def test_there_are_commands() -> None:
    assert sum(len([*commands_of(page)]) for page in PAGES) > 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name == CHANGED:
        return
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def parse_alone(*given: object, parse: Callable[..., object] = parse) -> None:
            parse(*given)
            raise ReadError

        monkeypatch.setattr(argparse.ArgumentParser, name, parse_alone)
    for command in commands_of(page):
        try:
            read(command, monkeypatch)
        except ReadError:
            continue
        except SystemExit as end:
            raise AssertionError(f"{page.name}: {command}") from end
