"""Open Parquet files and the Arrow streams of the `datasets` library (`save_to_disk`), with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.files import read_json

PARQUET, ARROW = ".parquet", ".arrow"
DATA_SET_STATE = "state.json"
"""The file by which a folder is known as one that `datasets` saved."""
_ROWS = 4096  # that are in memory together


class MissingLibraryError(InputError):
    """A library is needed to read a file and is not installed."""


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingLibraryError(
            f"Parquet files and `datasets` folders need pyarrow: {how_to_install('tables')}"
        ) from None
    return pyarrow


@contextmanager
def pyarrow_for(file: Path) -> Iterator[Any]:
    """Yield pyarrow, and turn what it raises at a damaged file into an InputError naming the file."""
    arrow = _import_pyarrow()
    try:
        yield arrow
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    # Text that is not UTF-8 and dates out of range are ValueErrors.
    except (arrow.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError) as error:
        # It may quote bytes of the file.
        reason = "".join(char if char.isprintable() else "?" for char in one_line(error))[:160]
        raise InputError(f"{file}: not a table that pyarrow can read ({reason})") from None


def read_schema(arrow: Any, file: Path) -> Any:
    """Return the schema of a file; to be called inside `pyarrow_for`."""
    if file.suffix.lower() == PARQUET:
        return arrow.parquet.read_schema(file)
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        return stream.schema


def read_batches(arrow: Any, file: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield a file's rows in batches, of a Parquet file only `columns`; to be called inside `pyarrow_for`."""
    if file.suffix.lower() == PARQUET:
        with arrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
                batch.validate(full=True)  # lengths that a damaged file gives lead outside the memory
                yield batch
        return
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, _ROWS):
                part = batch.slice(start, _ROWS)
                part.validate(full=True)
                yield part


def data_set_files(folder: Path) -> list[Path]:
    """Return the Arrow files, in order, of a folder that `datasets` saved.

    Raises:
        InputError: It is no such folder, or it holds several data sets.
    """
    if (folder / "dataset_dict.json").is_file():
        raise InputError(f"{folder} holds several data sets; name the folder of one of them")
    state = folder / DATA_SET_STATE
    if not state.is_file():
        raise InputError(f"{folder} is a folder, but not one that `datasets` saved; name a file in it")
    try:
        return [folder / Path(entry["filename"]).name for entry in read_json(state)["_data_files"]]
    except (KeyError, TypeError):
        raise InputError(f"{state} names no data files; save the data set again") from None
