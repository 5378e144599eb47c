"""`llava-inspect suspects`: training annotations that a model, which was not trained on them, contradicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llava.common.cli import CommandParser
from llava.common.records import IMAGE_PLACEHOLDER, Question, Record
from llava_inspect.parts import (
    Part,
    add_flags,
    do_parts,
    group_of,
    photo_of,
    plan,
    read_records,
    shuffled_groups,
)

CLOSED = ("yesno", "class")  # types of tasks whose answers are a closed list


def closed_questions(records: Sequence[Record]) -> Iterator[tuple[Record, Question]]:
    """Yield each record with a closed answer, and its question with choices; of several wordings the first.

    The choices of a task are the answers that the records give to it: what they never say, no model learns.
    """
    closed = [
        record for record in records if record.meta.get("type") in CLOSED and len(record.conversations) == 2
    ]
    choices: dict[tuple[str, str], dict[str, None]] = {}
    for record in closed:
        choices.setdefault(_task(record), {})[record.conversations[1].value] = None
    asked = set()
    for record in closed:
        thing = (
            *record.images,
            *_task(record),
            str(record.meta.get("about")),
            str(record.meta.get("number", "")),
        )
        if thing in asked or len(choices[_task(record)]) < 2:
            continue
        asked.add(thing)
        yield (
            record,
            Question(
                question_id=record.id,
                image=record.image,
                text=record.conversations[0].value.removeprefix(f"{IMAGE_PLACEHOLDER}\n"),
                category=str(record.meta["task"]),
                choices=list(choices[_task(record)]),
                source=photo_of(record),
            ),
        )


def _task(record: Record) -> tuple[str, str]:
    return str(record.meta.get("task")), str(record.meta.get("language"))


def make_folds(records: Sequence[Record], folds: int) -> list[Part]:
    """Return a part for each fold of the groups: the records of all others, and the fold's own questions."""
    fold_of = {group: index % folds for index, group in enumerate(shuffled_groups(records))}
    questions = list(closed_questions(records))
    return [
        Part(
            f"fold{fold + 1}",
            f"Fold {fold + 1} of {folds}",
            [record for record in records if fold_of[group_of(record)] != fold],
            [question for record, question in questions if fold_of[group_of(record)] == fold],
        )
        for fold in range(folds)
    ]


def main(argv: Sequence[str]) -> int:
    parser = CommandParser("llava-inspect suspects", "x")
    add_flags(parser)
    parser.add_argument("--folds", type=int, default=4)
    args = parser.parse_intermixed_args(argv)
    run = plan(args)
    records = read_records(run.data)
    do_parts(run, make_folds(records, args.folds))
    return 0
