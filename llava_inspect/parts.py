"""Train on parts of the training records and ask each model some questions; a killed run goes on.

It stands under `llava-inspect curve` (nested parts) and `llava-inspect suspects` (all but a fold). The steps
are commands, done and logged as `llava-inspect run` does them. Answers come from the run directories: nothing
is merged, which would cost the disk space of a whole model for each part.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import read_json_list, sha256, write_json_list, write_jsonl
from llava.common.records import Question, Record
from llava.common.shipped import DEFAULT_CONFIG
from llava.train.config import TrainSettings
from llava_inspect.run_commands import do_step, only_run_in
from llava_inspect.run_log import Log, refuse_changed_inputs
from llava_inspect.run_steps import (
    Step,
    answer_step,
    choose_config,
    read_settings,
    train_step,
    training_inputs,
)

TRAIN, VAL = "train.json", "val.json"
QUESTIONS, TRUTH = "questions_test.jsonl", "truth_test.jsonl"


@dataclass(frozen=True)
class Part:
    """Some of the training records, and the questions for the model that is trained on them."""

    name: str
    """Of its folder below the output."""
    title: str
    records: Sequence[Record]
    questions: Sequence[Question]


@dataclass(frozen=True)
class PartedRun:
    """What is trained on parts of which data, and where the results go."""

    data: Path
    output: Path
    config: str
    overrides: tuple[str, ...]
    settings: TrainSettings
    overwrite: bool

    def inputs(self) -> dict[str, str]:
        """Return a fingerprint of each input."""
        files = (self.data / name for name in (TRAIN, VAL, QUESTIONS, TRUTH))
        hashes = "".join(sha256(file) for file in files if file.is_file())
        data = hashlib.sha256(hashes.encode()).hexdigest()[:16]
        return {"data": data} | training_inputs(self.settings)

    def answers(self, part: Part) -> Path:
        return self.output / part.name / "answers.jsonl"

    def steps(self, parts: Sequence[Part]) -> list[Step]:
        """Return two steps for each part: train on it, then ask."""
        no_val = not (self.data / VAL).is_file()
        steps = []
        for part in parts:
            folder = self.output / part.name
            steps.append(
                train_step(
                    f"train {part.name}",
                    f"{part.title}: train.",
                    [self.config, *self.overrides],
                    self.data,
                    folder / TRAIN,
                    folder / "adapter",
                    no_val,
                )
            )
            steps.append(
                answer_step(
                    f"answers {part.name}",
                    f"{part.title}: answer.",
                    str(folder / "adapter"),
                    self.settings.bits,
                    self.data,
                    folder / "questions.jsonl",
                    self.answers(part),
                    "training",
                )
            )
        return steps


def add_flags(parser: CommandParser) -> None:
    """Add the flags that say what is trained on which data."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a folder that `convert` wrote"
    )
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, help=f"a training config, or its name (default: {DEFAULT_CONFIG})"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder for all results")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a training setting")
    parser.add_argument(
        "--overwrite", action="store_true", help="do again what was done with other data or settings"
    )


def plan(args: Namespace) -> PartedRun:
    """Make a run of the flags; InputError if the data or the settings cannot be used."""
    if not (args.data / TRAIN).is_file():
        raise InputError(f"--data {args.data}: no {TRAIN} in it; name a folder that `convert` wrote")
    config = choose_config(args.config, "--config")
    settings = read_settings(config, args.output, args.overrides)
    return PartedRun(args.data, args.output, config, tuple(args.overrides), settings, args.overwrite)


def do_parts(run: PartedRun, parts: Sequence[Part]) -> None:
    """Train on each part and have its questions answered; what is done is not done again.

    Raises:
        InputError: The output holds something else, or results of other data or settings.
    """
    log, inputs = Log.read(run.output), run.inputs()
    if not run.overwrite:
        refuse_changed_inputs(run.output, run.steps(parts), inputs, log)
    with only_run_in(run.output) as lock:
        for part in parts:
            write_json_list(run.output / part.name / TRAIN, part.records)
            write_jsonl(run.output / part.name / "questions.jsonl", part.questions)
        for index in range(2 * len(parts)):
            do_step(lambda: run.steps(parts), index, inputs, log, lock)


# --- groups of records -------------------------------------------------------------------------------


def read_records(data: Path) -> list[Record]:
    """Read train.json; InputError if it holds nothing."""
    records = read_json_list(data / TRAIN, Record)
    if not records:
        raise InputError(f"{data / TRAIN}: no record in it")
    return records


def group_of(record: Record) -> str:
    """Return the group of images that are not independent, as `convert` wrote it; else the record's image."""
    return str(record.meta.get("group") or next(iter(record.images), record.id))


def groups_of(record: Record) -> set[str]:
    """Return all groups that a record tells something of: a made picture is made of photos of several."""
    groups = record.meta.get("groups")
    return {group_of(record), *(map(str, groups) if isinstance(groups, list) else ())}


def photo_of(record: Record) -> str:
    """Return the name of the photo that the record is about: several images may be cut from one."""
    return str(record.meta.get("source") or next(iter(record.images), record.id))


def count_photos(records: Sequence[Record]) -> int:
    """Return how many photos the records are about; made pictures are none."""
    return len({photo_of(record) for record in records if not record.is_synthetic})


def shuffled_groups(records: Sequence[Record]) -> list[str]:
    """Return all groups in the order of a hash of their names: it looks random, is the same on every machine,
    and stays as it is among the old groups when new ones come in."""
    groups = {group_of(record) for record in records}
    return sorted(groups, key=lambda group: hashlib.sha256(group.encode("utf-8", "replace")).digest())
