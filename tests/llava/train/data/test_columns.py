"""Columns in .npy files: written piece by piece, read by NumPy and by our own reader alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.train.data.columns import ColumnWriter, Ragged, RaggedWriter, read_column, write_ragged

rows = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), max_size=20)


@given(rows, st.integers(1, 20))
def test_rows_come_back_however_they_were_added(wanted: list[list[int]], at_once: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = RaggedWriter(folder, "x", np.int32)
        for start in range(0, len(wanted), at_once):
            writer.add(wanted[start : start + at_once])
        writer.close()
        column = Ragged(folder, "x")
        assert [column[index].tolist() for index in range(len(column))] == wanted
        assert column.lengths().tolist() == [len(row) for row in wanted]
        # NumPy alone reads the files
        values, ends = np.load(folder / "x.npy"), np.load(folder / "x.ends.npy")
        assert values.tolist() == [value for row in wanted for value in row] and values.dtype == np.int32
        assert ends.tolist() == np.cumsum([len(row) for row in wanted], dtype=np.int64).tolist()


def test_texts_are_bytes(tmp_path: Path) -> None:
    write_ragged(tmp_path, "t", np.uint8, ["ü".encode(), b"", b"plain"])
    column = Ragged(tmp_path, "t")
    assert [column.text(index) for index in range(3)] == ["ü", "", "plain"]
    with pytest.raises(IndexError):
        column[3]


def test_what_is_read_is_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path / "x.npy", np.int64)
    writer.add([1, 2])
    writer.add(range(3, 10))
    writer.close()
    column = read_column(tmp_path / "x.npy")
    assert column.tolist() == list(range(1, 10)) and isinstance(column.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 0
