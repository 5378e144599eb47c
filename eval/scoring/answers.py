"""Reading of the files that are scored: a truth file, and answers by question id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.common.errors import InputError
from llava.common.files import read_jsonl, sha256
from llava.common.records import Answer, InputFile, Truth
from llava.common.remote import RemoteFile, file_at, shown


@dataclass(frozen=True)
class AnswerFile:
    """Holds an answers file, by question id (as text: 7 and "7" are one question)."""

    name: str
    source: InputFile
    answers: Mapping[str, Answer]

    def text(self, question: str) -> str | None:
        """Return the answer's text, None where it is missing."""
        answer = self.answers.get(question)
        return None if answer is None else answer.text

    def error(self, question: str) -> str | None:
        """Return why it was not answered (usually an unreadable image), None where it was."""
        answer = self.answers.get(question)
        error = None if answer is None else answer.metadata.get("error")
        return str(error) if error else None

    def choices(self, question: str) -> object:
        """Return the probabilities of its choices as the file has them, unchecked."""
        answer = self.answers.get(question)
        return None if answer is None else answer.metadata.get("choices")


def read_truth(path: Path) -> tuple[InputFile, list[Truth]]:
    """Read a truth file, here or at an address; InputError where it is empty or an id repeats."""
    file = file_at(path)
    truths = read_jsonl(file, Truth)
    if not truths:
        raise InputError(f"{file}: no line in it, nothing to score against")
    _refuse_repeats(file, [str(truth.question_id) for truth in truths])
    return InputFile(name=path.name, sha256=sha256(file), lines=len(truths)), truths


def read_answers(path: Path, name: str, truths: Sequence[Truth], truth_path: Path) -> AnswerFile:
    """Read an answers file.

    Args:
        path: The file, here or at an address.
        name: "tuned" or "base".
        truths: The questions' truths, of which it must answer one at least.
        truth_path: Where they come from, for messages.

    Raises:
        InputError: The file is empty, an id repeats, or none is in the truth.
    """
    file = file_at(path)
    answers = read_jsonl(file, Answer)
    if not answers:
        raise InputError(f"{file}: no line in it, no answer to score")
    ids = [str(answer.question_id) for answer in answers]
    _refuse_repeats(file, ids)
    if not {str(truth.question_id) for truth in truths} & set(ids):
        raise InputError(
            f"{file}: none of its {len(ids)} question ids (for instance {ids[0]!r}) is in "
            f"{shown(truth_path)}; are they answers to other questions?"
        )
    source = InputFile(
        name=path.name,
        sha256=sha256(file),
        lines=len(answers),
        model_ids=sorted({answer.model_id for answer in answers}),
    )
    return AnswerFile(name, source, dict(zip(ids, answers, strict=True)))


def _refuse_repeats(file: Path | RemoteFile, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for question in ids:
        if question in seen:
            raise InputError(f"{file}: question id {question!r} stands there twice")
        seen.add(question)
