"""`llava-inspect configs` and `llava-inspect recipes`: list what ships, or copy one to change it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import yaml

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import read_text, write_text
from llava.common.shipped import CONFIGS, RECIPES, find_config, find_recipe, names_in, shipped_root

_SHIPPED = {
    "configs": (CONFIGS, find_config, "training config", "llava15_7b_lora"),
    "recipes": (RECIPES, find_recipe, "recipe", "insulator"),
}


def main(argv: Sequence[str]) -> int:
    command, *rest = argv
    folder, find, noun, example = _SHIPPED[command]
    parser = CommandParser(
        f"llava-inspect {command}",
        f"List the {noun}s that ship, or copy one to change it.",
        examples=["", f"{example} --output my.yaml"],
    )
    parser.add_argument("name", nargs="?", type=Path, help=f"the {noun} to print or copy")
    parser.add_argument("--output", type=Path, metavar="FILE.yaml", help="copy it to this new file")
    args = parser.parse_args(rest)
    if args.name is None:
        if args.output is not None:
            raise InputError(f"--output {args.output}: name the {noun} to copy")
        for name in names_in(folder):
            print(f"{name:<26} {first_comment(shipped_root() / folder / f'{name}.yaml')}")
        return 0
    path = find(args.name)
    if not path.resolve().is_relative_to(shipped_root() / folder):
        raise InputError(f"{path} does not ship; choose from {', '.join(names_in(folder))}")
    if args.output is None:
        print(read_text(path), end="")
        return 0
    copy_with_bases(path, args.output)
    return 0


def first_comment(path: Path) -> str:
    """Return the first sentence of the comment that a YAML file begins with, shortened to a line."""
    lines = takewhile(lambda line: line.startswith("# "), read_text(path).splitlines())
    text = " ".join(line.removeprefix("# ") for line in lines)
    sentence = re.split(r"(?<!\b[A-Z])\. ", text, maxsplit=1)[0]  # "Y. Huang" is one word of it
    return textwrap.shorten(sentence.removesuffix("."), 80, placeholder=" ...")


def copy_with_bases(path: Path, output: Path) -> None:
    """Copy a YAML file and, beside the copy, the files that it extends.

    No file is changed that is there: a base with the same content is kept, all else is refused before
    anything is written.
    """
    if output.exists():
        raise InputError(f"{output} exists already; name another file")
    bases = dict(_bases(path, output.parent))
    if output in bases:
        raise InputError(f"{output}: {path.stem} extends a file of that name; name another file")
    for target, source in bases.items():
        if target.exists() and read_text(target) != read_text(source):
            raise InputError(f"{target} differs from the {source.name} that ships; use another folder")

    for target, source in {output: path, **bases}.items():
        if not target.exists():
            write_text(target, read_text(source))
            print(f"{target} (a copy of {source.name})")


def _bases(path: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files that a YAML file extends, and theirs, each after its place below `folder`."""
    settings = yaml.safe_load(read_text(path))
    names = settings.get("extends") if isinstance(settings, dict) else None
    for name in [names] if isinstance(names, str) else names or []:
        yield folder / name, path.parent / name
        yield from _bases(path.parent / name, (folder / name).parent)
