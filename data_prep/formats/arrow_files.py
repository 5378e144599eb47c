"""Read tables in Parquet and in the Arrow streams of the `datasets` library (`save_to_disk`), with pyarrow.

The names behind the numbers of a `ClassLabel` column are taken from the schema's metadata, where `datasets`
notes its features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.formats.table_columns import Row, find_columns
from llava.common.arrow_files import ARROW, PARQUET, pyarrow_for, read_batches, read_schema
from llava.common.errors import InputError

SUFFIXES = (PARQUET, ARROW)


def read_columns(file: Path) -> list[str]:
    """Return the names of all columns. InputError naming the file if it is damaged."""
    with pyarrow_for(file) as arrow:
        return list(read_schema(arrow, file).names)


def refuse_embedded_images(file: Path, column: str) -> None:
    """Raise an InputError if a column holds images rather than their names.

    To be called before any row is read: a batch of rows with their images would fill the memory.
    """
    with pyarrow_for(file) as arrow:
        column_type = read_schema(arrow, file).field(column).type
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
        with pyarrow_for(file) as arrow:
            schema = read_schema(arrow, file)
            columns = find_columns(schema.names)
            classes = _class_names(schema)
            for batch in read_batches(arrow, file, list(columns.values())):
                cells = [
                    [_class_name(cell, classes.get(column)) for cell in batch.column(column).to_pylist()]
                    for column in columns.values()
                ]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(columns, row, strict=True)), ""
    except InputError as error:
        yield f"after row {number}", {}, str(error).removeprefix(f"{file}: ")


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
