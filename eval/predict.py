"""Answer questions about photos that nobody has annotated: answers.csv, answers.jsonl and gallery.html.

The command is `llava-inspect predict`, which says which photos and which questions. Answering is that of
eval.infer: a killed run goes on, and a photo that cannot be read costs its own answers alone.
"""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.answering.partial import PartialAnswers
from eval.infer import answer_questions, check_arguments, in_order, report_truncated, save_answers
from eval.report.photo_page import PhotoAnswer, PhotoCard, render_photo_page
from eval.report.phrases import counted
from eval.scoring.parse import parse_yes_no, same_text
from llava.common.boxes import Box, Frame, box_in_image, parse_box
from llava.common.destination import forget_made, made_at, send_folder
from llava.common.errors import InputError
from llava.common.files import atomic_path, write_jsonl
from llava.common.images import upright_size
from llava.common.photo_cache import photo_at
from llava.common.records import Answer, Question
from llava.common.remote import is_file, shown

COLUMNS = ("photo", "question", "answer", "probability", "p_yes", "task", "problem")
_MAX_LISTED = 20  # photos that cannot be read


@dataclass(frozen=True)
class PhotoQuestion:
    """A question to ask of every photo.

    `family` is the recipe's for what is asked, "" for a question of the user's. Of a yes/no question,
    `yes_no` are the words for yes and no. `about` is what it asks for; one that `presupposes` that this is
    there is dropped from the answers where a yes/no question about the same was answered no. `frame` is the
    frame of boxes in the answer, None where they have none.
    """

    text: str
    task: str = ""
    family: str = ""
    choices: tuple[str, ...] | None = None
    yes_no: tuple[str, str] | None = None
    about: str = ""
    presupposes: bool = False
    frame: Frame | None = None


@dataclass(frozen=True)
class AskedQuestion:
    """A question about one photo, with its answer."""

    photo: str
    path: Path
    asked: PhotoQuestion
    answer: Answer

    @property
    def error(self) -> str:
        """Why there is no answer, without the path: the photo's name stands beside it."""
        return str(self.answer.metadata.get("error", "")).removeprefix(f"{shown(self.path)}: ")

    @property
    def probabilities(self) -> Mapping[str, float]:
        return self.answer.metadata.get("choices") or {}

    @property
    def probability(self) -> float | None:
        """The probability of the answer, where it is one of the choices."""
        return next((p for name, p in self.probabilities.items() if same_text(name, self.answer.text)), None)

    @property
    def p_yes(self) -> float | None:
        return self.probabilities.get(self.asked.yes_no[0]) if self.asked.yes_no else None

    def box(self, width: int, height: int) -> Box | None:
        """Return the box that the answer is, in 0..1 of the `width` x `height` photo; None where it is none
        or its frame unknown."""
        box = parse_box(self.answer.text)
        if box is None or self.asked.frame is None:
            return None
        return box_in_image(box, width, height, self.asked.frame)

    @property
    def says(self) -> str | None:
        """Yes or no, as a yes/no question was answered."""
        return parse_yes_no(self.answer.text, self.asked.yes_no) if self.asked.yes_no else None


def predict(args: Namespace, photos: Mapping[str, Path], questions: Sequence[PhotoQuestion]) -> int:
    """Ask every question of every photo and put the answers into the folder `args.output`, here or elsewhere.

    Args:
        args: The flags of eval.infer that say which model answers and how, and `output`.
        photos: Path of each photo by its own name, which no model sees.
        questions: What is asked of each.

    Raises:
        InputError: The folder holds answers already, or no photo could be read.
    """
    prepare(args)
    found = ask_photos(args, photos, questions)
    if found is None:
        return 0
    asked, partial = found
    rows = _without_what_is_absent(asked)
    made = args.answers_file.parent
    _write_table(made / "answers.csv", rows)
    page = render_photo_page(_cards(rows), sorted({row.answer.model_id for row in asked}))
    with atomic_path(made / "gallery.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    save_answers(
        [row.answer for row in rows],
        partial,
        args.answers_file,
        lambda: send_folder(made, args.output, last=["gallery.html", args.answers_file.name]),
    )
    forget_made(made, args.output)
    _report(args.output, rows)
    report_truncated([row.answer for row in asked])
    return 0


def ask_photos(
    args: Namespace, photos: Mapping[str, Path], questions: Sequence[PhotoQuestion]
) -> tuple[list[AskedQuestion], PartialAnswers] | None:
    """Ask every question of every photo, as `predict` does, after `prepare`.

    Returns:
        The questions with their answers, photo by photo, and the partial files, for `save_answers` when all
        else is written; None in all but the main process.
    """
    lines = [
        Question(
            question_id=f"{number}-{position}",
            image=name,
            text=asked.text,
            category=asked.task or "default",
            choices=list(asked.choices) if asked.choices else None,
            source=name,
        )
        for number, name in enumerate(photos)
        for position, asked in enumerate(questions)
    ]
    write_jsonl(args.question_file, lines)
    partial = answer_questions(args, lines, photos)
    if partial is None:
        return None
    asked_of = zip(
        lines, [question for _ in photos for question in questions], in_order(lines, partial), strict=True
    )
    return [
        AskedQuestion(line.images[0], photos[line.images[0]], asked, answer)
        for line, asked, answer in asked_of
    ], partial


def prepare(args: Namespace) -> None:
    """Add to the flags where questions and answers are written: in the folder `args.output`, or for one at an
    address where it is made.

    InputError for flags that do not go together, and if the folder cannot be written or holds answers that
    may not go.
    """
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"{args.output} is a file; --output names a folder")
    made = made_at(args.output, args.cache_folder)
    args.question_file, args.answers_file = made / "questions.jsonl", made / "answers.jsonl"
    args.num_chunks, args.chunk_idx = 1, 0
    if is_file(args.output / args.answers_file.name) and not args.overwrite:
        raise InputError(
            f"{shown(args.output)} holds answers already; name another --output or add --overwrite"
        )
    if made != args.output:  # of a command that ended while it sent them; the partial ones are there, too
        args.answers_file.unlink(missing_ok=True)
    check_arguments(args)


def _without_what_is_absent(rows: Sequence[AskedQuestion]) -> list[AskedQuestion]:
    """Drop the answers to questions that presuppose what the model says is not there."""
    absent = {(row.photo, row.asked.about) for row in rows if row.says == "no"}
    return [row for row in rows if not (row.asked.presupposes and (row.photo, row.asked.about) in absent)]


def _write_table(path: Path, rows: Sequence[AskedQuestion]) -> None:
    """Write a row per answer, with a byte order mark: without it Excel takes UTF-8 for another encoding."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            numbers = ("" if value is None else f"{value:.6g}" for value in (row.probability, row.p_yes))
            answer = row.answer
            writer.writerow((row.photo, answer.prompt, answer.text, *numbers, row.asked.task, row.error))


def _cards(rows: Sequence[AskedQuestion]) -> list[PhotoCard]:
    by_photo: dict[str, list[AskedQuestion]] = {}
    for row in rows:
        by_photo.setdefault(row.photo, []).append(row)
    return [PhotoCard(name, asked[0].path, tuple(map(_shown, asked))) for name, asked in by_photo.items()]


def _shown(row: AskedQuestion) -> PhotoAnswer:
    return PhotoAnswer(
        question=row.answer.prompt,
        text=row.answer.text,
        error=row.error,
        probabilities=row.probabilities,
        closed=row.asked.choices is not None,
        box=_box(row),
    )


def _box(row: AskedQuestion) -> Box | None:
    if row.asked.frame is None or parse_box(row.answer.text) is None:
        return None
    height, width = upright_size(photo_at(row.path))
    return row.box(width, height)


def _report(output: Path, rows: Sequence[AskedQuestion]) -> None:
    """Print where the answers are, and which photos have none."""
    answered = [row.photo for row in rows if not row.error]
    photos = counted(len(set(answered)), "photo")
    print(f"{counted(len(answered), 'answer')} about {photos}:", file=sys.stderr)
    for name, what in (
        ("gallery.html", "photos with their answers, to look at"),
        ("answers.csv", "a row per answer, with probabilities; opens in Excel"),
        ("answers.jsonl", "the same for programs"),
    ):
        print(f"  {shown(output / name)}  {what}", file=sys.stderr)
    errors = {row.photo: row.error for row in rows if row.error}
    if errors:
        print(f"{counted(len(errors), 'photo')} without an answer:", file=sys.stderr)
        for name, error in list(errors.items())[:_MAX_LISTED]:
            print(f"  {name}: {error}", file=sys.stderr)
        if len(errors) > _MAX_LISTED:
            print(f"  and {len(errors) - _MAX_LISTED} more, see `problem` in answers.csv", file=sys.stderr)
