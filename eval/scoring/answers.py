"""Reading of the files that are scored: a truth file, and answers by question id.

Both stay files: their lines are read again when they are needed, for a million of them would not fit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.common.errors import InputError
from llava.common.jsonl import JsonlFile, LinesById
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
        return None if answer is None else answer_error(answer)


def answer_error(answer: Answer) -> str | None:
    """Return why a question was not answered (usually an unreadable image), None where it was."""
    error = answer.metadata.get("error")
    return str(error) if error else None


def read_truth(path: Path) -> tuple[InputFile, Sequence[Truth]]:
    """Read a truth file, here or at an address; InputError where it is empty or an id repeats."""
    file = file_at(path)
    truths = JsonlFile(file, Truth)
    if not truths:
        raise InputError(f"{file}: no line in it, nothing to score against")
    seen: set[str] = set()
    for truth in truths:
        question = str(truth.question_id)
        if question in seen:
            raise _repeated(file, question)
        seen.add(question)
    return InputFile(name=path.name, sha256=truths.sha256, lines=len(truths)), truths


def read_answers(path: Path, name: str, truths: Iterable[Truth], truth_path: Path) -> AnswerFile:
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
    answers = JsonlFile(file, Answer)
    if not answers:
        raise InputError(f"{file}: no line in it, no answer to score")
    rows: dict[str, int] = {}
    model_ids: set[str] = set()
    for row, answer in enumerate(answers):
        # Interned: the ids of all files, and those of the truth while a task is scored, are the same texts.
        question = sys.intern(str(answer.question_id))
        if question in rows:
            raise _repeated(file, question)
        rows[question] = row
        model_ids.add(answer.model_id)
    if not any(str(truth.question_id) in rows for truth in truths):
        raise InputError(
            f"{file}: none of its {len(rows)} question ids (for instance {next(iter(rows))!r}) is in "
            f"{shown(truth_path)}; are they answers to other questions?"
        )
    source = InputFile(name=path.name, sha256=answers.sha256, lines=len(answers), model_ids=sorted(model_ids))
    return AnswerFile(name, source, LinesById(answers, rows))


def _repeated(file: Path | RemoteFile, question: str) -> InputError:
    return InputError(f"{file}: question id {question!r} stands there twice")
