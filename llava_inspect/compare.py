"""`llava-inspect compare RUN RUN ...`: what `eval.score --compare` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser
from llava.common.errors import InputError


def main(argv: Sequence[str]) -> int:
    parser = CommandParser(
        "llava-inspect compare",
        "Print one table over runs that were scored against the same truth, and what differs from the first.",
        examples=["runs/a/scores runs/b/scores"],
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="scores.json, or the folder that holds it"
    )
    runs = parser.parse_args(argv).runs
    if len(runs) < 2:
        raise InputError("name two runs or more to compare")

    from eval.compare import compare_runs

    compare_runs(runs)
    return 0
