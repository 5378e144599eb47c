"""Make a novelty bank, with which answering also says how new each photo is: `python -m eval.novelty`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from eval.answering.questions import read_questions
from llava.common.cli import CommandParser, add_model_flags, command_name, print_next
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path, inside, read_json_list, read_jsonl
from llava.common.records import Record, Truth

if TYPE_CHECKING:
    from argparse import Namespace

    from llava.novelty.bank import NoveltyBank
    from llava.novelty.build import KnownPicture

NOTES = """DATA is a folder that `convert` made. The bank is filled from the pictures of its train.json; the
sound pictures of its calibration split, or else of val.json, say which distances are usual, by groups.
Make it with the model that will answer, merged, on the kind of device where it will: the file is refused
by any other."""
EXAMPLES = [
    "--model-path runs/merged --data runs/data --output runs/novelty.safetensors",
]


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m eval.novelty",
        "Learn what a model's training pictures look like, to tell photos of something never seen.",
        notes=NOTES,
        examples=EXAMPLES,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that convert made")
    parser.add_argument("--output", type=Path, required=True, metavar="BANK", help="file to write")
    parser.add_argument(
        "--vectors", type=int, default=2000, metavar="N", help="size of the bank (default: 2000)"
    )
    add_model_flags(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    if args.output.exists():
        raise InputError(f"{args.output} exists already; name another file or remove it first")
    training = known_pictures(args.data / "train.json")
    calibration, split = calibration_pictures(args.data)
    if not any(picture.sound for picture in calibration):
        print(f"note: no picture of {split} is sound; all of them calibrate", file=sys.stderr)
    with atomic_path(args.output) as temporary:  # before the work: it may not be writable
        bank = make_bank(args, training, calibration)
        bank.save(temporary)
    print(
        f"{args.output}: {len(bank.vectors)} vectors of {len(training)} training pictures, calibrated on "
        f"{split}: {bank.p_value.groups} groups of pictures, so that the smallest p-value is "
        f"{bank.p_value.smallest:.2g}",
        file=sys.stderr,
    )
    infer = command_name("infer", "python -m eval.infer")
    print_next(f"{infer} --novelty {args.output} --model-path {args.model_path} ...")
    return 0


def make_bank(
    args: Namespace, training: Sequence[KnownPicture], calibration: Sequence[KnownPicture]
) -> NoveltyBank:
    """Load the model and make a bank with it, with progress bars."""
    from llava.inference.model_runner import ModelRunner
    from llava.model.builder import load_model
    from llava.novelty.build import BankSettings, build_bank

    loaded = load_model(
        args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        settings = BankSettings(vectors=args.vectors)
        return build_bank(ModelRunner(loaded), loaded.model_id, training, calibration, settings, show)


def calibration_pictures(data: Path) -> tuple[list[KnownPicture], str]:
    """Return the pictures of the calibration split, or else of val.json, and the name of that file."""
    truths_file = data / "truth_calibration.jsonl"
    if not truths_file.exists():
        return known_pictures(data / "val.json"), "val.json"
    truths = {truth.question_id: truth for truth in read_jsonl(truths_file, Truth)}
    questions_file = data / "questions_calibration.jsonl"
    about = [
        (image, truths[question.question_id].group, truths[question.question_id].meta.get("kinds"))
        for question in read_questions(questions_file)
        if question.question_id in truths
        for image in question.images
    ]
    return _pictures(about, data, questions_file), truths_file.name


def known_pictures(file: Path) -> list[KnownPicture]:
    """Return the pictures of the records in a file that `convert` wrote."""
    about = [
        (image, str(record.meta.get("group", image)), record.meta.get("kinds"))
        for record in read_json_list(file, Record)
        for image in record.images
    ]
    return _pictures(about, file.parent, file)


def _pictures(
    about: Sequence[tuple[str, str, list[str] | None]], data: Path, source: Path
) -> list[KnownPicture]:
    """Return each picture once; it is sound where its list of kinds of defect is there and empty."""
    from llava.novelty.build import KnownPicture

    found = {
        image: KnownPicture(inside(data, image), group, kinds is not None and not kinds)
        for image, group, kinds in about
    }
    if absent := next((image for image, picture in found.items() if not picture.path.is_file()), None):
        raise InputError(f"{source}: its picture {absent} is not in {data}; convert again")
    if not found:
        raise InputError(f"{source}: nothing in it is about a picture, and a bank is made from pictures")
    return list(found.values())


if __name__ == "__main__":
    run_command(main)
