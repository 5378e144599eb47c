"""The command lines: one parser for every command, and the flags that several share. Torch-free.

LLaVA writes `--model-path` but `--top_p` and `--num_beams`; here every flag may be written either way.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from llava.common.photo_cache import DEFAULT_GB, user_cache_folder

IN_A_RUN = "LLAVA_INSPECT_IN_A_RUN"
"""The environment variable by which a command knows that `llava-inspect run` started it."""

_started_as: ContextVar[str | None] = ContextVar("started_as", default=None)


@contextmanager
def started_as(program: str) -> Iterator[None]:
    """Within, help and errors name commands as `program`, such as `llava-inspect convert`."""
    token = _started_as.set(program)
    try:
        yield
    finally:
        _started_as.reset(token)


def command_name(name: str, otherwise: str) -> str:
    """Return how the user starts another command: `llava-inspect NAME` within llava-inspect, else
    `otherwise`, such as the script in a checkout that does the same."""
    program = _started_as.get()
    return f"{program.rpartition(' ')[0]} {name}" if program else otherwise


def print_next(command: str) -> None:
    """Print the command that the user would go on with; nothing in a step of `llava-inspect run`, which goes
    on by itself."""
    if IN_A_RUN not in os.environ:
        print(f"next: {command}")


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: its help ends with examples, and `--like_this` is taken for `--like-this`."""

    def __init__(
        self, prog: str, description: str, *, notes: str = "", examples: Sequence[str] = (), **options: Any
    ) -> None:
        """Set up the parser.

        Args:
            prog: How the command is started, such as `python -m data_prep convert`; under `started_as`
                that name is taken instead.
            description: What the command does, in a sentence or two.
            notes: What else its help should say, before the examples.
            examples: The arguments of an example each; a line break becomes a continued line.
            options: argparse.ArgumentParser's other options.
        """
        prog = _started_as.get() or prog
        lines = [f"  {prog} {example}".replace("\n", " \\\n      ") for example in examples]
        shown = "\n".join(["examples:", *lines]) if examples else ""
        super().__init__(
            prog=prog,
            description=description.strip(),
            epilog="\n\n".join(part.strip("\n") for part in (notes, shown) if part),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as argparse does, after rewriting underscores in the names (not the values) of flags."""
        if args is not None:
            args = [_with_dashes(arg) for arg in args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End as other bad input does, in one line: argparse would print all flags first."""
        self.exit(2, f"error: {message}; {self.prog} --help shows all flags\n")


def _with_dashes(arg: str) -> str:
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the flags that say which model to use and how to load it; `required`: whether one must be given."""
    parser.add_argument(
        "--model-path", required=required, help="a LLaVA folder or Hub name, or a run directory or checkpoint"
    )
    parser.add_argument("--model-base", help="where the base of a run directory lies now, if it moved")
    parser.add_argument("--conv-mode", help="chat template, such as v1 (auto, the default: the model's own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument("--load-8bit", action="store_true", help="quantise to 8 bits (needs bitsandbytes)")
    parser.add_argument("--load-4bit", action="store_true", help="quantise to 4 bits (needs bitsandbytes)")


def add_cache_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what is kept here of files at addresses."""
    parser.add_argument(
        "--cache-folder",
        type=Path,
        default=user_cache_folder(),
        metavar="DIR",
        help="keeps photos from addresses such as s3://, and what is still to be sent to one "
        "(default: llava-inspect in the user's cache folder)",
    )
    parser.add_argument(
        "--cache-gb",
        type=_gigabytes,
        default=DEFAULT_GB,
        metavar="GB",
        help=f"photos kept in it at most; 0 keeps none (default: {DEFAULT_GB:g})",
    )


def _gigabytes(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no size; give 0 or more gigabytes")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a flag's whole number, which must not be below `least`."""

    def read(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is too low; give {least} or more")
        return value

    read.__name__ = "int"  # for argparse's error
    return read


def _temperature(text: str) -> float:
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no temperature; give 0 (greedy) or a number above")
    return value


def _top_p(text: str) -> float:
    if not 0 < (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; give a number above 0 and at most 1")
    return value


_temperature.__name__ = _top_p.__name__ = _gigabytes.__name__ = "float"


def add_sampling_flags(parser: argparse.ArgumentParser, max_new_tokens: int, beams: bool = True) -> None:
    """Add the flags of sampling. The temperature is 0 unless given: an inspection must be repeatable."""
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=0.0,
        help="0 is greedy, the same answer every time; higher values vary (default: 0)",
    )
    parser.add_argument("--top-p", type=_top_p, help="sample among the likeliest tokens of this joint share")
    if beams:
        parser.add_argument("--num-beams", type=at_least(1), default=1, help="beam search, slow (default: 1)")
    parser.add_argument(
        "--max-new-tokens",
        type=at_least(1),
        default=max_new_tokens,
        help=f"longest answer, in tokens (default: {max_new_tokens})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling, with a temperature (default: 0)")
