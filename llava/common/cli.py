"""Define the flags that several commands share, under LLaVA's names. Torch-free.

LLaVA writes `--model-path` but `--top_p` and `--num_beams`; here every flag may be written either way.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any


class FlagParser(argparse.ArgumentParser):
    """A parser that accepts `--like_this` for `--like-this`, and whose help keeps its line breaks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as argparse does, after replacing underscores in the names (not the values) of flags."""
        if args is not None:
            args = [_with_dashes(arg) for arg in args]
        return super().parse_known_args(args, namespace)


def _with_dashes(arg: str) -> str:
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the flags that say which model is loaded and how; `required` says whether one must be named."""
    parser.add_argument(
        "--model-path", required=required, help="a LLaVA folder or Hub name, or a run directory or checkpoint"
    )
    parser.add_argument("--model-base", help="where the base of a run directory lies now, if it moved")
    parser.add_argument("--conv-mode", help="chat template, such as v1 (auto, the default: the model's own)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument("--load-8bit", action="store_true", help="quantise to 8 bits (needs bitsandbytes)")
    parser.add_argument("--load-4bit", action="store_true", help="quantise to 4 bits (needs bitsandbytes)")


def add_sampling_flags(parser: argparse.ArgumentParser, max_new_tokens: int, beams: bool = True) -> None:
    """Add the flags of sampling. The temperature is 0 unless given: an inspection must be repeatable.

    Args:
        parser: The command's.
        max_new_tokens: The default of `--max-new-tokens`.
        beams: Whether the command offers beam search.
    """
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 is greedy, the same answer every time; higher values vary (default: 0)",
    )
    parser.add_argument("--top-p", type=float, help="sample among the likeliest tokens of this joint share")
    if beams:
        parser.add_argument("--num-beams", type=int, default=1, help="beam search, slow (default: 1)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=max_new_tokens,
        help=f"longest answer, in tokens (default: {max_new_tokens})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling, with a temperature (default: 0)")
