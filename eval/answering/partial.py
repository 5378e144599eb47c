"""Partial answers files, beside the final one, from which a killed run goes on.

    a.jsonl.partial      {"run": what decides the answers}, then an answer a line
    a.jsonl.partial-1    the same, of the second of several processes; -2, ...

Each line is handed to the operating system at once: a killed process loses nothing, a machine that fails at
most the last SYNC_SECONDS. A later run reads all of the files, whichever process wrote them.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from eval.answering.questions import QuestionId
from llava.common.errors import InputError
from llava.common.files import first_problem, to_json
from llava.common.locks import lock
from llava.common.records import Answer

SYNC_SECONDS = 1.0


class PartialAnswers:
    """The partial files of one answers file; this process appends to that of its rank, `index`."""

    def __init__(self, answers_file: Path, index: int = 0) -> None:
        self.path = _partial_path(answers_file, index)
        self.answers: dict[QuestionId, Answer] = {}
        self._answers_file = answers_file
        self._read_up_to: dict[Path, int] = {}  # of files that hold answers of this run
        self._file: IO[bytes] | None = None
        self._synced = 0.0

    def read(self, run: dict[str, Any]) -> None:
        """Read the answers that exist; InputError, nothing changed, if they are of another run than `run`.

        A file without an answer is ignored.
        """
        for path in self._paths():
            self._read(path, run)

    def discard(self) -> None:
        """Delete all partial files."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    @contextmanager
    def open(self, run: dict[str, Any]) -> Iterator[None]:
        """Open this process's file for appending, inside the block.

        With several processes, only when all have read. A block that fails before any answer leaves no file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._lock()
            self._file.truncate(self._read_up_to.get(self.path, 0))  # a kill in a write tears the last line
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            if self.path not in self._read_up_to:
                self._write(to_json({"run": run}) + "\n")
            yield
            self._write("", sync=True)
        except BaseException:
            if not self.answers:
                self.path.unlink(missing_ok=True)
            raise
        finally:
            self._file.close()

    def add(self, answer: Answer) -> None:
        """Append an answer."""
        self._write(to_json(answer) + "\n")
        self.answers[answer.question_id] = answer

    def read_others(self, processes: int) -> None:
        """Read what the other processes have appended since the last time."""
        for index in range(processes):
            path = _partial_path(self._answers_file, index)
            if path == self.path:
                continue
            start = self._read_up_to.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                content = file.read()
            complete_lines = content[: content.rfind(b"\n") + 1]
            for line in complete_lines.decode().split("\n")[0 if start else 1 : -1]:
                answer = Answer.model_validate_json(line)
                self.answers[answer.question_id] = answer
            self._read_up_to[path] = start + len(complete_lines)

    def require_files(self, processes: int) -> None:
        """Raise InputError if this process does not see the files of the others."""
        for index in range(processes):
            if not (path := _partial_path(self._answers_file, index)).is_file():
                raise InputError(f"{path} of process {index} is not here; all machines must share the folder")

    def _lock(self) -> None:
        """Lock the file; InputError if another run writes to it: the two would overwrite each other."""
        assert self._file is not None
        try:
            lock(self._file.fileno())
        except BlockingIOError:
            self._file.close()
            raise InputError(
                f"{self.path}: a run is still writing to it (a killed launcher may leave its "
                "processes behind); wait for it or end it"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _paths(self) -> list[Path]:
        name = re.compile(re.escape(self._answers_file.name) + r"\.partial(-\d+)?")
        folder = self._answers_file.parent
        return (
            sorted(path for path in folder.iterdir() if name.fullmatch(path.name)) if folder.is_dir() else []
        )

    def _read(self, path: Path, run: dict[str, Any]) -> None:
        content = path.read_bytes()
        complete_lines = content[: content.rfind(b"\n") + 1]
        if complete_lines.count(b"\n") < 2 and b'{"run"'.startswith(content[:6]):
            return
        lines = complete_lines.decode("utf-8", errors="replace").split(
            "\n"
        )  # splitlines would split at U+2028 too
        remedy = "add --overwrite to discard it, or name another output"
        try:
            header = json.loads(lines[0])["run"]
            recorded = {key: header.get(key) for key in run}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path} is not a partial answers file; {remedy}") from None
        if recorded != run:
            differing = ", ".join(key for key in run if recorded[key] != run[key])
            raise InputError(f"{path} holds answers of another run (other {differing}); {remedy}")
        for number, line in enumerate(lines[1:-1], start=2):
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"{path}, line {number}: {first_problem(error)}; {remedy}") from None
            self.answers[answer.question_id] = answer
        self._read_up_to[path] = len(complete_lines)

    def _write(self, text: str, *, sync: bool = False) -> None:
        assert self._file is not None, "open() comes first"
        try:
            rest = memoryview(text.encode())
            while rest:
                rest = rest[self._file.write(rest) :]
            if sync or time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); when it can, the same command goes on"
            ) from None


def _partial_path(answers_file: Path, index: int) -> Path:
    return answers_file.with_name(f"{answers_file.name}.partial{f'-{index}' if index else ''}")
