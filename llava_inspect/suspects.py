"""`llava-inspect suspects`: training annotations that a model, which was not trained on them, contradicts."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.report.phrases import counted, percent
from eval.report.suspects_page import render_suspects_page
from eval.scoring.suspects import CheckedAnswer, Suspect, rank_suspects
from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import atomic_path, read_jsonl, write_json, write_text
from llava.common.records import IMAGE_PLACEHOLDER, Answer, Question, Record
from llava_inspect.parts import (
    TRAIN,
    Part,
    PartedRun,
    add_flags,
    do_parts,
    group_of,
    groups_of,
    photo_of,
    plan,
    read_records,
    shuffled_groups,
)

NOTES = """The photos are divided into folds, and photos that are not independent stay together. For each
fold a model is trained on the others and asked the fold's questions that have a closed list of answers.
Photos whose annotation it contradicts most come first. OUTPUT holds suspects.html, suspects.csv,
suspects.json and a folder for each fold. A run that was stopped goes on with the same command."""
COLUMNS = ("rank", "photo", "task", "question", "annotation", "p_annotation", "model", "p_model")
_CLOSED = ("yesno", "class")  # types of tasks whose answers are a closed list
_PRINTED = 10


def main(argv: Sequence[str]) -> int:
    parser = CommandParser(
        "llava-inspect suspects",
        "List the training annotations that are likely wrong: a model that was not trained on them says "
        "otherwise. Worst first.",
        notes=NOTES,
        examples=[
            "--data runs/data --output runs/suspects",
            "--data runs/data --config llava15_7b_lora --folds 3 --output runs/suspects epochs=2",
        ],
    )
    add_flags(parser)
    parser.add_argument(
        "--folds", type=int, default=4, metavar="K", help="how many models are trained (default: 4)"
    )
    args = parser.parse_intermixed_args(argv)
    run = plan(args)
    records = read_records(run.data)
    parts = make_folds(records, args.folds, run.data / TRAIN)
    do_parts(run, parts)

    suspects = rank_suspects(read_checked(run, parts, records))
    write_json(run.output / "suspects.json", as_json(suspects))
    write_table(run.output / "suspects.csv", suspects)
    write_text(run.output / "suspects.html", render_suspects_page(suspects, run.data))
    print_suspects(suspects, run.output)
    return 0


def make_folds(records: Sequence[Record], folds: int, file: Path) -> list[Part]:
    """Return a part for each fold of the groups: the records of all others, and the fold's own questions.

    Args:
        records: The training records.
        folds: How many.
        file: Where the records come from, for messages.

    Raises:
        InputError: There are fewer groups than folds, or no closed questions.
    """
    groups = shuffled_groups(records)
    if folds < 2 or len(groups) < folds:
        raise InputError(
            f"--folds {folds}: give 2 or more, and at most {len(groups)}, the independent photos in {file}"
        )
    questions = list(closed_questions(records))
    if not questions:
        raise InputError(
            f"{file}: no record has a closed list of answers (meta.type yesno or class, with two "
            "answers or more to a task): nothing can be checked; let `convert` ask presence or kind"
        )
    fold_of = {group: index % folds for index, group in enumerate(groups)}
    parts = []
    for fold in range(folds):
        others = [
            record for record in records if fold not in {fold_of.get(group) for group in groups_of(record)}
        ]
        own = [question for record, question in questions if fold_of[group_of(record)] == fold]
        if own:
            parts.append(Part(f"fold{fold + 1}of{folds}", f"Fold {fold + 1} of {folds}", others, own))
    return parts


def closed_questions(records: Sequence[Record]) -> Iterator[tuple[Record, Question]]:
    """Yield each record with a closed answer, and its question with choices; of several wordings the first.

    Made pictures are not asked about: nobody annotated them. The choices of a task are the answers that the
    records give to it: what they never say, no model learns.
    """
    closed = [
        record
        for record in records
        if record.meta.get("type") in _CLOSED and len(record.conversations) == 2 and record.images
    ]
    choices: dict[tuple[str, str], dict[str, None]] = {}
    for record in closed:
        choices.setdefault(_task(record), {})[record.conversations[1].value] = None
    asked = set()
    for record in closed:
        question = record.conversations[0].value.removeprefix(f"{IMAGE_PLACEHOLDER}\n")
        names_a_box = "frame" in record.meta  # and is another question with another box
        key = (*record.images, record.meta.get("task"), record.meta.get("about"), names_a_box and question)
        if record.is_synthetic or key in asked or len(choices[_task(record)]) < 2:
            continue
        asked.add(key)
        yield (
            record,
            Question(
                question_id=record.id,
                image=record.image,
                text=question,
                category=_task(record)[0],
                choices=list(choices[_task(record)]),
                source=photo_of(record),
            ),
        )


def _task(record: Record) -> tuple[str, str]:
    return str(record.meta.get("task")), str(record.meta.get("language"))


def read_checked(run: PartedRun, parts: Sequence[Part], records: Sequence[Record]) -> Iterator[CheckedAnswer]:
    """Yield what the annotations and the models say; an image that could not be read has nothing."""
    given = {record.id: record.conversations[1].value for record in records}
    for part in parts:
        questions = {question.question_id: question for question in part.questions}
        for answer in read_jsonl(run.answers(part), Answer):
            question = questions[answer.question_id]
            if probabilities := answer.metadata.get("choices"):
                yield CheckedAnswer(
                    image=question.images[0],
                    photo=str(question.source),
                    task=question.category,
                    question=question.text,
                    given=given[str(question.question_id)],
                    probabilities=probabilities,
                )


# --- what is written ---------------------------------------------------------------------------------


def as_json(suspects: Sequence[Suspect]) -> dict[str, Any]:
    return {
        "format": "llava-inspect suspects",
        "version": 1,
        "suspects": [
            {
                "photo": suspect.photo,
                "image": suspect.image,
                "answers": [
                    {
                        "task": answer.task,
                        "question": answer.question,
                        "annotation": answer.given,
                        "model": answer.says,
                        "probabilities": {k: round(v, 4) for k, v in answer.probabilities.items()},
                    }
                    for answer in suspect.answers
                ],
            }
            for suspect in suspects
        ],
    }


def write_table(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write a row per image with its most contradicted answer, and a byte order mark, for Excel's sake."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, suspect in enumerate(suspects, start=1):
            worst = suspect.answers[0]
            writer.writerow((
                rank, suspect.photo, worst.task, worst.question, worst.given,
                f"{worst.probability:.4f}", worst.says,
                f"{worst.probabilities[worst.says]:.4f}",
            ))  # fmt: skip


def print_suspects(suspects: Sequence[Suspect], output: Path) -> None:
    """Print the first ones, and where all are."""
    print(f"\n{counted(len(suspects), 'image')} checked. The annotations that the model contradicts most:")
    for rank, suspect in enumerate(suspects[:_PRINTED], start=1):
        worst = suspect.answers[0]
        print(
            f"  {rank:>2}  {suspect.photo}: {worst.question} annotated {worst.given!r}, the model says "
            f"{worst.says!r} ({percent(worst.probabilities[worst.says])})"
        )
    print(f"look at: {output / 'suspects.html'}; all are in {output / 'suspects.csv'}")
