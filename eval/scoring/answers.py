"""The files that are scored: a truth, and answers by question id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.scoring.schema import InputFile
from llava.common.errors import InputError
from llava.common.files import read_jsonl, sha256
from llava.common.records import Answer, Truth


@dataclass(frozen=True)
class AnswerFile:
    """An answers file, by question id (as text: 7 and "7" are one question)."""

    name: str
    source: InputFile
    answers: Mapping[str, Answer]

    def text(self, question: str) -> str | None:
        answer = self.answers.get(question)
        return None if answer is None else answer.text

    def error(self, question: str) -> str | None:
        """Why it was not answered (usually a picture that could not be read), None where it was."""
        answer = self.answers.get(question)
        found = None if answer is None else answer.metadata.get("error")
        return str(found) if found else None

    def choices(self, question: str) -> object:
        """What the answer says of the probabilities of its choices, as it stands there."""
        answer = self.answers.get(question)
        return None if answer is None else answer.metadata.get("choices")


def read_truth(path: Path) -> tuple[InputFile, list[Truth]]:
    truths = read_jsonl(path, Truth)
    if not truths:
        raise InputError(f"{path}: no line in it, nothing to score against")
    _refuse_repeats(path, [str(truth.question_id) for truth in truths])
    return InputFile(name=path.name, sha256=sha256(path), lines=len(truths)), truths


def read_answers(path: Path, name: str, truths: Sequence[Truth], truth_path: Path) -> AnswerFile:
    """`name` is "tuned" or "base". InputError where an id repeats or none is in the truth."""
    answers = read_jsonl(path, Answer)
    if not answers:
        raise InputError(f"{path}: no line in it, no answer to score")
    ids = [str(answer.question_id) for answer in answers]
    _refuse_repeats(path, ids)
    if not {str(truth.question_id) for truth in truths} & set(ids):
        raise InputError(
            f"{path}: none of its {len(ids)} question ids (for instance {ids[0]!r}) is in {truth_path}; are "
            "they answers to other questions?"
        )
    source = InputFile(
        name=path.name,
        sha256=sha256(path),
        lines=len(answers),
        model_ids=sorted({answer.model_id for answer in answers}),
    )
    return AnswerFile(name, source, dict(zip(ids, answers, strict=True)))


def _refuse_repeats(path: Path, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for question in ids:
        if question in seen:
            raise InputError(f"{path}: question id {question!r} stands there twice")
        seen.add(question)
