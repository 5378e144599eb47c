"""The questions of a run and how they are shared out, and the lines that answer them. Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.common.errors import InputError
from llava.common.files import inside, read_jsonl
from llava.common.records import Answer, Question

QuestionId = str | int


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; InputError for a bad line, none at all, or an id that comes twice."""
    questions = read_jsonl(path, Question)
    if not questions:
        raise InputError(f"{path} holds no question")
    seen: set[QuestionId] = set()
    for question in questions:
        if question.question_id in seen:
            raise InputError(f"{path}: question_id {question.question_id!r} comes twice; ids must differ")
        seen.add(question.question_id)
    return questions


def chunk(questions: list[Question], parts: int, index: int) -> list[Question]:
    """Part `index` of `parts` nearly equal runs of questions (LLaVA's --num-chunks, --chunk-idx)."""
    if parts < 1 or not 0 <= index < parts:
        raise InputError(f"--chunk-idx {index} is not one of the {parts} chunks, counted from 0")
    size = -(-len(questions) // parts)
    part = questions[index * size : (index + 1) * size]
    if not part:
        raise InputError(f"chunk {index} of {parts} is empty: there are only {len(questions)} questions")
    return part


def find_images(questions: Sequence[Question], folder: Path) -> dict[str, Path]:
    """Name -> path of every picture asked about; InputError if a name leaves `folder` or none is there."""
    names = {name for question in questions for name in question.images}
    if names and not folder.is_dir():
        raise InputError(f"{folder}: no such image folder")
    images = {name: inside(folder, name) for name in names}
    if images and not any(path.is_file() for path in images.values()):
        raise InputError(f"none of the {len(images)} pictures, such as {min(images)}, is in {folder}")
    return images


def by_image(questions: Iterable[Question]) -> list[list[Question]]:
    """The questions about the same picture or pictures together, otherwise in their order."""
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(tuple(question.images), []).append(question)
    return list(groups.values())


def share(questions: Sequence[Question], parts: int, index: int) -> list[Question]:
    """What process `index` of `parts` answers: a picture's questions stay with one, and the shares weigh
    nearly the same, where reading a picture counts as four questions."""
    loads = [0] * parts
    mine: list[Question] = []
    for group in sorted(_units(questions), key=len, reverse=True):  # stable: every process finds the same
        least = loads.index(min(loads))
        loads[least] += 4 * len(group[0].images) + len(group)
        if least == index:
            mine += group
    return mine


def pieces(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """The questions in pieces of `size` or a little more; a picture's stay together."""
    found: list[list[Question]] = []
    for group in _units(questions):
        if not found or len(found[-1]) >= size:
            found.append([])
        found[-1] += group
    return found


def _units(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """What must stay together: the questions about a picture; each of those without one is alone."""
    for group in by_image(questions):
        yield from [group] if group[0].images else [[question] for question in group]


def answer_line(
    question: Question,
    model_id: str,
    text: str = "",
    *,
    error: str | None = None,
    choices: Mapping[str, float] | None = None,
    truncated: bool = False,
) -> Answer:
    """The line that answers `question`; with `error`, why there is no answer."""
    metadata: dict[str, Any] = {}
    if error is not None:
        metadata["error"] = error
    if choices is not None:
        metadata["choices"] = {choice: round(chance, 6) for choice, chance in choices.items()}
    if truncated:
        metadata["truncated"] = True
    facts = json.dumps([model_id, question.question_id, question.text, text])
    return Answer(
        question_id=question.question_id,
        prompt=question.text,
        text=text,
        answer_id=hashlib.sha256(facts.encode()).hexdigest()[:16],
        model_id=model_id,
        metadata=metadata,
    )
