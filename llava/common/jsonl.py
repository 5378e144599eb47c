"""JSONL files that are too long to hold: lines are read again whenever they are asked for. Torch-free."""

from __future__ import annotations

import hashlib
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

from pydantic import BaseModel, ValidationError

from llava.common.errors import InputError
from llava.common.files import first_problem, read_errors
from llava.common.remote import RemoteFile

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")

_BOM = b"\xef\xbb\xbf"
_BUFFER = 1 << 18  # bytes; lines are mostly asked for in their order, some left out


class JsonlFile(Sequence[Model]):
    """The lines of a JSONL file as `model`s, blank ones left out, of which 8 bytes a line are held.

    Every access reads and checks its line: who goes over all lines once has checked the file. The file stays
    open, so that another one that is renamed to its name changes nothing. `sha256` is its content's hash.
    """

    def __init__(self, path: Path | RemoteFile, model: type[Model]) -> None:
        """Find the lines; InputError where the file cannot be read."""
        self.path = path
        self._model = model
        self._offsets = array("q")
        digest = hashlib.sha256()
        with read_errors(path):
            self._file = path if isinstance(path, RemoteFile) else path.open("rb", buffering=_BUFFER)
            weakref.finalize(self, self._file.close)
            end = 0
            for line in self._file:
                digest.update(line)
                mark = len(_BOM) if end == 0 and line.startswith(_BOM) else 0
                if line[mark:].strip():
                    self._offsets.append(end + mark)
                end += len(line)
            self._file.seek(0)  # what cannot go back, such as a pipe, is refused here
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, row: int) -> Model: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Model]: ...
    def __getitem__(self, row: int | slice) -> Model | Sequence[Model]:
        """Return a line, or some; InputError with its number for one that is no `model`."""
        if isinstance(row, slice):
            return Chosen(self, range(*row.indices(len(self))))
        offset = self._offsets[row]
        try:
            self._file.seek(offset)
            return self._model.model_validate_json(self._file.readline().rstrip(b"\r\n").decode())
        except OSError:
            with read_errors(self.path):
                raise
        except UnicodeDecodeError as error:
            at = offset + error.start
            raise InputError(f"{self.path}: not UTF-8 text (byte {at}); save it as UTF-8") from None
        except ValidationError as error:
            number = self._line_number(offset)
            raise InputError(f"{self.path}, line {number}: {first_problem(error)}") from None

    def __iter__(self) -> Iterator[Model]:
        return (self[row] for row in range(len(self)))

    def _line_number(self, offset: int) -> int:
        """Return the number, from 1, of the line that begins at `offset`; blank lines count."""
        self._file.seek(0)
        number = 1
        while offset > 0 and (read := self._file.read(min(offset, 1 << 20))):
            number += read.count(b"\n")
            offset -= len(read)
        return number


class Chosen(Sequence[Item]):
    """Some items of a sequence, which they are left in."""

    def __init__(self, items: Sequence[Item], rows: Sequence[int]) -> None:
        self._items = items
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> Item: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Item]: ...
    def __getitem__(self, row: int | slice) -> Item | Sequence[Item]:
        return (
            Chosen(self._items, self._rows[row]) if isinstance(row, slice) else self._items[self._rows[row]]
        )

    def __iter__(self) -> Iterator[Item]:
        return (self._items[row] for row in self._rows)


class LinesById(Mapping[str, Model], Generic[Model]):
    """The lines of a file by an id that each has; `rows` says where each id is."""

    def __init__(self, lines: JsonlFile[Model], rows: Mapping[str, int]) -> None:
        self._lines = lines
        self._rows = rows

    def __getitem__(self, key: str) -> Model:
        return self._lines[self._rows[key]]

    def __contains__(self, key: object) -> bool:
        return key in self._rows  # without reading the line

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
