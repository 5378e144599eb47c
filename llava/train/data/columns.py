"""Columns of numbers in memory-mapped .npy files, written as a stream: processes that read them share one
copy, and of a column that is larger than the memory only what is read is there.

A ragged column is two files: `NAME.npy` has the values of all rows, `NAME.ends.npy` where each row ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class ColumnWriter:
    """Writes a one-dimensional .npy file piece by piece. `length` is how many values there are so far."""

    def __init__(self, path: Path, dtype: type) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)
        self._write_header()  # the place for it: NumPy leaves room for a longer shape

    def _write_header(self) -> None:
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(self._file, header)

    def add(self, values: Any) -> None:
        """Append an array, a list or, to a column of bytes, bytes."""
        array = (
            np.frombuffer(values, np.uint8) if isinstance(values, bytes) else np.asarray(values, self.dtype)
        )
        self._file.write(array.tobytes())
        self.length += len(array)

    def close(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        self._file.seek(end)
        self._file.close()


class RaggedWriter:
    """Writes a ragged column row by row."""

    def __init__(self, folder: Path, name: str, dtype: type) -> None:
        self._values = ColumnWriter(folder / f"{name}.npy", dtype)
        self._ends = ColumnWriter(folder / f"{name}.ends.npy", np.int64)

    def add(self, rows: Sequence[Any]) -> None:
        """Append rows, each an array, a list or bytes."""
        if not rows:
            return
        ends = self._values.length + np.cumsum([len(row) for row in rows])
        if isinstance(rows[0], bytes):
            self._values.add(b"".join(rows))
        else:
            self._values.add(np.concatenate(rows))
        self._ends.add(ends)

    def close(self) -> None:
        self._values.close()
        self._ends.close()


def read_column(path: Path) -> NDArray:
    """Map a .npy file into memory, read-only."""
    with path.open("rb") as file:
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing can be mapped of it
    # As a plain array: a slice of a memmap takes several times as long.
    return np.asarray(np.load(path, mmap_mode="r"))


class Ragged:
    """The rows of a ragged column; `ragged[i]` is a view of row i."""

    def __init__(self, folder: Path, name: str) -> None:
        self.values = read_column(folder / f"{name}.npy")
        self.ends = read_column(folder / f"{name}.ends.npy")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> NDArray:
        if not 0 <= row < len(self.ends):
            raise IndexError(row)
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]

    def lengths(self) -> NDArray[np.int64]:
        """Return how many values each row has."""
        return np.diff(self.ends, prepend=0)

    def text(self, row: int) -> str:
        """Return a row of bytes as UTF-8 text."""
        return self[row].tobytes().decode("utf-8")


def write_ragged(folder: Path, name: str, dtype: type, rows: Sequence[Any]) -> None:
    """Write a whole ragged column."""
    writer = RaggedWriter(folder, name, dtype)
    writer.add(rows)
    writer.close()
