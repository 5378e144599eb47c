"""`llava-inspect curve`: train on more and more of the photos, and tell what twice as many would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.answering.questions import read_questions
from eval.report.curve_page import render_curve_page
from eval.scoring.answers import read_answers, read_truth
from eval.scoring.learning_curve import LEVEL, LearningCurve, band_sizes, make_curve, score_parts
from eval.scoring.tasks import group_by_task
from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import write_json, write_text
from llava.common.records import Question, Record
from llava_inspect.parts import (
    QUESTIONS,
    TRUTH,
    Part,
    add_flags,
    count_photos,
    do_parts,
    groups_of,
    plan,
    read_records,
    shuffled_groups,
)

NOTES = """It trains four times: on an eighth of the photos, a quarter, half, and all. Each part holds
the smaller ones, and photos that are not independent stay together. All answer the same test questions.
OUTPUT holds curve.html, curve.json and a folder for each part.
A run that was stopped goes on with the same command."""
SHARES = (8, 4, 2, 1)
RESAMPLES = 1000


def main(argv: Sequence[str]) -> int:
    parser = CommandParser(
        "llava-inspect curve",
        "How many photos more? Train on nested parts of them, and predict the scores at twice as many.",
        notes=NOTES,
        examples=[
            "--data runs/data --output runs/curve",
            "--data runs/data --config llava15_7b_lora --output runs/curve epochs=2",
        ],
    )
    add_flags(parser)
    run = plan(parser.parse_intermixed_args(argv))
    for name in (QUESTIONS, TRUTH):
        if not (run.data / name).is_file():
            raise InputError(f"--data {run.data}: no {name} in it, nothing to score; give the test a share")
    parts = nested_parts(read_records(run.data), read_questions(run.data / QUESTIONS))
    _, truths = read_truth(run.data / TRUTH)  # a mistake in it is said before the trainings
    do_parts(run, parts)

    files = [read_answers(run.answers(part), part.name, truths, run.data / TRUTH) for part in parts]
    sizes = [count_photos(part.records) for part in parts]
    curves = [
        make_curve(sizes, scored)
        for task, of_task in group_by_task(truths).items()
        for scored in score_parts(task, of_task, files, RESAMPLES)
    ]
    write_json(run.output / "curve.json", as_json(sizes, curves))
    write_text(run.output / "curve.html", render_curve_page(sizes, curves))
    print_curves(sizes, curves)
    print(f"\nlook at: {run.output / 'curve.html'}")
    return 0


def nested_parts(
    records: Sequence[Record], questions: Sequence[Question], shares: Sequence[int] = SHARES
) -> list[Part]:
    """Return parts of a growing number of groups, each with all of the smaller ones.

    A made picture is in the parts that have a photo of each of its groups: so much could be made of them.

    Args:
        records: What the parts are of.
        questions: For the models of all parts.
        shares: An eighth of the groups is 8, and so on.
    """
    groups = shuffled_groups([record for record in records if not record.is_synthetic])
    sizes = sorted({max(1, len(groups) // share) for share in shares})
    parts = []
    for size in sizes:
        chosen = set(groups[:size])
        part = [record for record in records if groups_of(record) <= chosen]
        photos = count_photos(part)
        parts.append(Part(f"photos{photos}", f"{photos:,} photos", part, questions))
    return parts


def as_json(sizes: Sequence[int], curves: Sequence[LearningCurve]) -> dict[str, Any]:
    return {
        "format": "llava-inspect curve",
        "version": 1,
        "level": LEVEL,
        "photos": list(sizes),
        "photos_expected": 2 * sizes[-1],
        "photos_band": [round(size, 1) for size in band_sizes(sizes)],
        "curves": [asdict(curve) for curve in curves],
    }


def print_curves(sizes: Sequence[int], curves: Sequence[LearningCurve]) -> None:
    """Print what each part scored, and what to expect of as many photos again."""
    more = sizes[-1]
    measured = Table(title="Scores by the number of training photos", title_justify="left")
    measured.add_column("task")
    measured.add_column("measured by")
    for size in sizes:
        measured.add_column(f"{size:,}", justify="right")
    for curve in curves:
        measured.add_row(curve.name, curve.metric, *(f"{score.value:.2f}" for score in curve.measured))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(measured)
    console.print(f"With {more:,} more photos of the same sort, {LEVEL:.0%} sure:", style="bold")
    width = max(len(curve.name) for curve in curves)
    for curve in curves:
        console.print(f"  {curve.name:<{width}}  {in_words(curve)}")


def in_words(curve: LearningCurve) -> str:
    """Return `0.84 -> 0.88 [0.80, 0.92]`, or why that cannot be said."""
    if curve.expected is None:
        return f"cannot say: {curve.why_not}"
    expected = curve.expected
    return f"{curve.measured[-1].value:.2f} -> {expected.value:.2f} [{expected.low:.2f}, {expected.high:.2f}]"
