"""Read tables in Parquet and in the Arrow streams of the `datasets` library (`save_to_disk`), with pyarrow.

The names behind the numbers of a `ClassLabel` column are taken from the schema's metadata, where `datasets`
notes its features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.formats.table_columns import Row, find_columns
from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.common.html.markup import readable

SUFFIXES = (".parquet", ".arrow")
_BATCH = 4096  # rows


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
def _pyarrow_for(file: Path) -> Iterator[Any]:
    """Yield pyarrow, and turn what it raises at a damaged file into an InputError naming the file."""
    arrow = _import_pyarrow()
    try:
        yield arrow
    # Text that is not UTF-8 and dates out of range are ValueErrors.
    except (arrow.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError) as error:
        reason = readable(" ".join(str(error).split()))[:160]  # it may quote bytes of the file
        raise InputError(f"{file}: not a table that pyarrow can read ({reason})") from None


def read_columns(file: Path) -> list[str]:
    """Return the names of all columns. InputError naming the file if it is damaged."""
    with _pyarrow_for(file) as arrow:
        return list(_read_schema(arrow, file).names)


def _read_schema(arrow: Any, file: Path) -> Any:
    if file.suffix.lower() == ".parquet":
        return arrow.parquet.read_schema(file)
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        return stream.schema


def refuse_embedded_images(file: Path, column: str) -> None:
    """Raise an InputError if a column holds images rather than their names.

    To be called before any row is read: a batch of rows with their images would fill the memory.
    """
    with _pyarrow_for(file) as arrow:
        column_type = _read_schema(arrow, file).field(column).type
        is_embedded = (
            arrow.types.is_struct(column_type)
            or arrow.types.is_binary(column_type)
            or arrow.types.is_large_binary(column_type)
        )
    if is_embedded:
        raise InputError(
            f"{file}: its column {column!r} holds the pictures themselves; save them as files (with "
            f"`datasets`: row[{column!r}].save(name)) and put their names into the column"
        )


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows; where the file is damaged, a last row with the reason."""
    number = 0
    try:
        with _pyarrow_for(file) as arrow:
            schema = _read_schema(arrow, file)
            columns = find_columns(schema.names)
            classes = _class_names(schema)
            for batch in _read_batches(arrow, file, list(columns.values())):
                batch.validate(full=True)  # lengths that a damaged file gives lead outside the memory
                cells = [
                    [_class_name(cell, classes.get(column)) for cell in batch.column(column).to_pylist()]
                    for column in columns.values()
                ]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(columns, row, strict=True)), ""
    except InputError as error:
        yield f"after row {number}", {}, str(error).removeprefix(f"{file}: ")


def _read_batches(arrow: Any, file: Path, columns: list[str]) -> Iterator[Any]:
    if file.suffix.lower() == ".parquet":
        with arrow.parquet.ParquetFile(file) as table:
            yield from table.iter_batches(_BATCH, columns=columns, use_threads=False)
        return
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names behind the numbers of each `ClassLabel` column."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):  # no or other metadata
        return {}


def _class_name(cell: object, names: list[str] | None) -> object:
    """Return the name behind a number of a `ClassLabel` column, any other cell as it is."""
    if names is not None and isinstance(cell, int) and 0 <= cell < len(names):
        return names[cell]
    return cell
