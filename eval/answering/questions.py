"""The questions of a run, how they are divided among processes, and the answers file's lines. Torch-free."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.common.errors import InputError
from llava.common.files import inside, read_jsonl
from llava.common.jsonl import JsonlFile, LinesById
from llava.common.records import Answer, Question
from llava.common.remote import address_of, file_at, is_file, is_folder, shown

QuestionId = str | int


def read_questions(path: Path) -> list[Question]:
    """Read a question file, here or at an address; InputError for a bad line, none at all, or an id that
    comes twice."""
    questions = read_jsonl(file_at(path), Question)
    if not questions:
        raise InputError(f"{shown(path)} holds no question")
    seen: set[QuestionId] = set()
    for question in questions:
        if question.question_id in seen:
            raise InputError(
                f"{shown(path)}: question_id {question.question_id!r} comes twice; ids must differ"
            )
        seen.add(question.question_id)
    return questions


def index_questions(path: Path) -> LinesById[Question]:
    """Return the questions of a file, here or at an address, by id as text, each read when it is asked for.

    Raises:
        InputError: A bad line, none at all, or an id that comes twice.
    """
    file = file_at(path)
    questions = JsonlFile(file, Question)
    if not questions:
        raise InputError(f"{file} holds no question")
    rows: dict[str, int] = {}
    for row, question in enumerate(questions):
        question_id = sys.intern(str(question.question_id))
        if question_id in rows:
            raise InputError(f"{file}: question_id {question_id!r} comes twice; ids must differ")
        rows[question_id] = row
    return LinesById(questions, rows)


def beside_truth(truth_file: Path) -> Path | None:
    """Return the question file beside a truth file, questions_X beside truth_X; None where there is none."""
    path = truth_file.with_name(truth_file.name.replace("truth", "questions", 1))
    return path if path != truth_file and is_file(path) else None


def chunk(questions: list[Question], parts: int, index: int) -> list[Question]:
    """Return part `index` of `parts` nearly equal runs of questions (LLaVA's --num-chunks, --chunk-idx)."""
    if parts < 1 or not 0 <= index < parts:
        raise InputError(f"--chunk-idx {index} is not one of the {parts} chunks, counted from 0")
    size = -(-len(questions) // parts)
    part = questions[index * size : (index + 1) * size]
    if not part:
        raise InputError(f"chunk {index} of {parts} is empty: there are only {len(questions)} questions")
    return part


def find_images(questions: Sequence[Question], folder: Path) -> dict[str, Path]:
    """Return name -> path of every image asked about; InputError if a name leaves `folder` or none exists.

    In a folder at an address no image is looked for yet: that would be a request each.
    """
    names = {name for question in questions for name in question.images}
    if names and not is_folder(folder):
        raise InputError(f"{shown(folder)}: no such image folder")
    images = {name: inside(folder, name) for name in names}
    if images and address_of(folder) is None and not any(path.is_file() for path in images.values()):
        raise InputError(f"none of the {len(images)} pictures, such as {min(images)}, is in {folder}")
    return images


def group_by_image(questions: Iterable[Question]) -> list[list[Question]]:
    """Return the questions grouped by image or images, in the order in which these come first."""
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(tuple(question.images), []).append(question)
    return list(groups.values())


def shard(questions: Sequence[Question], parts: int, index: int) -> list[Question]:
    """Return the questions that process `index` of `parts` answers.

    An image's questions stay with one process, and the shards weigh nearly the same, where reading an image
    counts as four questions.
    """
    loads = [0] * parts
    chosen: list[Question] = []
    # The sort is stable, so that every process computes the same.
    for group in sorted(_inseparable_groups(questions), key=len, reverse=True):
        least = loads.index(min(loads))
        loads[least] += 4 * len(group[0].images) + len(group)
        if least == index:
            chosen += group
    return chosen


def batch_questions(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Split the questions into batches of `size` or a little more; an image's questions stay together."""
    batches: list[list[Question]] = []
    for group in _inseparable_groups(questions):
        if not batches or len(batches[-1]) >= size:
            batches.append([])
        batches[-1] += group
    return batches


def _inseparable_groups(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Yield the questions about one image together, and each question without an image alone."""
    for group in group_by_image(questions):
        yield from [group] if group[0].images else [[question] for question in group]


def make_answer(
    question: Question,
    model_id: str,
    text: str = "",
    *,
    error: str | None = None,
    choices: Mapping[str, float] | None = None,
    truncated: bool = False,
    novelty: Mapping[str, Any] | None = None,
) -> Answer:
    """Return the line of the answers file for a question.

    Args:
        question: What was asked.
        model_id: Name of the model that answered.
        text: The answer.
        error: Why there is no answer, where there is none.
        choices: The probability of each of the question's choices.
        truncated: Whether the answer was cut off at the limit of new tokens.
        novelty: How new the question's image is (llava.novelty.meter), where that was measured.
    """
    metadata: dict[str, Any] = {"source": question.source} if question.source else {}
    if error is not None:
        metadata["error"] = error
    if choices is not None:
        metadata["choices"] = {choice: round(probability, 6) for choice, probability in choices.items()}
    if truncated:
        metadata["truncated"] = True
    if novelty is not None:
        metadata["novelty"] = dict(novelty)
    identity = json.dumps([model_id, question.question_id, question.text, text])
    return Answer(
        question_id=question.question_id,
        prompt=question.text,
        text=text,
        answer_id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        model_id=model_id,
        metadata=metadata,
    )
