"""`llava-inspect COMMAND` (or `python -m llava_inspect COMMAND`): the whole road, a command a step."""

from __future__ import annotations

import difflib
import shlex
import shutil
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from llava import __version__
from llava.common.cli import started_as
from llava.common.errors import InputError
from llava.common.launch import run_process
from llava_inspect.commands import COMMANDS

EXAMPLE = """examples:
  llava-inspect run photos
or a step at a time:
  llava-inspect inspect --source photos --output before.html
  llava-inspect convert --source photos --recipe insulator --output data
  llava-inspect train tiny_cpu data_path=data/train.json val_path=data/val.json image_folder=data \\
      output_dir=run
  llava-inspect merge --model-path run --save-model-path merged
  llava-inspect infer --model-path merged --image-folder data --question-file data/questions_test.jsonl \\
      --answers-file answers.jsonl
  llava-inspect score --answers-file answers.jsonl --truth-file data/truth_test.jsonl --output scores
  llava-inspect chat --model-path merged --image-file photo.jpg

`llava-inspect COMMAND --help` tells more."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(program_name()))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"llava-inspect {__version__}")
        return 0
    name, *rest = arguments
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        names = [command.name for command in COMMANDS]
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(names)}"
        raise InputError(f"no command {name!r}; {hint}")
    with started_as(f"{program_name()} {name}"):
        return command.run(rest)


def program_name() -> str:
    """Return how this program was started, as its help and errors name it, so that what they say can be
    typed: .venv/bin/llava-inspect where the environment is not activated."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("llava_inspect", "__main__.py"):
        return "python -m llava_inspect"
    found = shutil.which("llava-inspect")
    if started.name != "llava-inspect" or not started.exists() or (found and started.samefile(found)):
        return "llava-inspect"
    return shlex.quote(sys.argv[0])


def help_text(program: str) -> str:
    """Return the table of commands by group, and the road as an example."""
    lines = [f"usage: {program} COMMAND [...]", "", "Teach LLaVA your inspection domain.", ""]
    for group, commands in groupby(COMMANDS, key=lambda command: command.group):
        lines += [f"{group}:", *(f"  {command.name:<10} {command.summary}" for command in commands), ""]
    return "\n".join([*lines, EXAMPLE.replace("llava-inspect", program)])


def entry_point() -> None:
    """Run the console script; one of several processes that train or answer ends as torchrun needs it."""
    run_process(main)


if __name__ == "__main__":
    entry_point()
