"""`python -m eval.prelabels`: what a survey found, as pre-labels for labelling tools."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from eval.prelabels.formats import add_format_flags, write_formats
from eval.prelabels.labels import is_label, prelabels_of, read_findings
from llava.common.cli import CommandParser
from llava.common.errors import InputError, run_command

NOTES = """A finding with a box becomes a box, one without a label of the whole photo, where the format has
such. Taken are findings of a kind that are a defect or are left to a person. Pre-labels are no labels: a
person goes through them, and what they export is read by inspect and convert."""
EXAMPLES = [
    "--findings runs/survey/findings.json",
    "--findings runs/survey/findings.json --format label-studio --output prelabels",
]


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m eval.prelabels",
        "Write what a survey found as pre-labels: a folder for each labelling tool.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    parser.add_argument("--findings", type=Path, required=True, help="findings.json of a survey")
    add_format_flags(parser)
    parser.add_argument(
        "--output", type=Path, help="folder to write (default: prelabels beside the findings)"
    )
    args = parser.parse_args(argv)
    args.output = args.output or args.findings.parent / "prelabels"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    findings = read_findings(args.findings)
    labels = prelabels_of(findings, args.photos or Path(findings.photos_folder))
    count = sum(map(is_label, findings.findings))
    if not count:
        raise InputError(
            f"{args.findings}: no finding is of a kind and not sound: there is nothing to pre-label"
        )
    print(f"{count} of {len(findings.findings)} findings are of a kind, and a defect or left to a person")
    labelled = labels.only(photo.name for photo in labels.photos if photo.labels)
    write_formats(labelled, args.output, args.format, every_photo=False)
    return 0


if __name__ == "__main__":
    run_command(main)
