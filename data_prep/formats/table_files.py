"""Files with a table in them, read row by row in batches: CSV, TSV, JSON lines, JSON lists, Parquet, Arrow.

Of a row only the columns in `ROLES` are read. CSV is RFC 4180 in UTF-8, with `,`, `;` or a tab between
columns. Parquet and the Arrow streams of the `datasets` library (`save_to_disk`) need pyarrow; the names
behind its `ClassLabel` numbers are taken from the schema's metadata, where `datasets` notes its features.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.json_stream import LINES_SUFFIX, stream_items
from llava.common.errors import InputError
from llava.common.html.markup import readable

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "file_name", "picture"),
    "question": ("question", "prompt", "text", "query"),
    "answer": ("answer", "response", "label_text", "output"),
    "task": ("task",),
    "group": ("group",),
    "split": ("split",),
    "language": ("language",),
    "label": ("label", "labels"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
}
NEEDED = ("image", "question", "answer")
SUFFIXES = (".csv", ".tsv", ".json", LINES_SUFFIX, ".parquet", ".arrow")
_FIRST_BYTES = 1 << 16
_BATCH = 4096  # rows

Row = tuple[str, Mapping[str, Any], str]
"""Where it is ("line 7"), its values by role, and, if it cannot be read, why."""


class MissingLibraryError(InputError):
    pass


@dataclass(frozen=True)
class Table:
    """`columns` are all it has, as written."""

    file: Path
    columns: Sequence[str]
    rows: Callable[[], Iterator[Row]]

    @property
    def unused(self) -> list[str]:
        used = find_columns(self.columns).values()
        return [name for name in self.columns if name not in used]


def find_columns(names: Iterable[str]) -> dict[str, str]:
    """Role -> the column that has it: without regard to case, the first of the role's names that is there."""
    known = {name.strip().casefold(): name for name in names}
    found = {role: next((word for word in words if word in known), None) for role, words in ROLES.items()}
    return {role: known[word] for role, word in found.items() if word is not None}


def open_table(file: Path) -> Table | None:
    """None for a file that has no picture, question and answer columns.

    InputError for a damaged Parquet or Arrow file and for one that holds the pictures themselves;
    MissingLibraryError if it takes pyarrow.
    """
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        header, delimiter = _header(file)
        table = Table(file, header, lambda: _csv_rows(file, delimiter))
    elif suffix in (".json", LINES_SUFFIX):
        table = Table(file, _json_columns(file), lambda: _json_rows(file))
    else:
        with _arrow_errors(file) as arrow:
            names = list(_arrow_schema(arrow, file).names)
        table = Table(file, names, lambda: _arrow_rows(file))
    columns = find_columns(table.columns)
    if any(role not in columns for role in NEEDED):
        return None
    if suffix in (".parquet", ".arrow"):
        _check_images(file, columns["image"])
    return table


def _header(file: Path) -> tuple[list[str], str]:
    """The columns of a CSV file and what is between them: of `,`, `;` and tab what gives the columns needed;
    in a .tsv file the tab."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline(_FIRST_BYTES)
        for mark in "\t" if file.suffix.lower() == ".tsv" else ",;\t":
            header = next(csv.reader([first], delimiter=mark), [])
            if find_columns(header).keys() >= set(NEEDED):
                return header, mark
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    return [], ","


def _csv_rows(file: Path, delimiter: str) -> Iterator[Row]:
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            # Strict: else a quote that is never closed silently swallows the rows after it.
            lines = csv.reader(text, delimiter=delimiter, strict=True)
            header = next(lines, [])
            places = {role: header.index(column) for role, column in find_columns(header).items()}
            line = lines.line_num
            for cells in lines:
                place, line = f"line {line + 1}", lines.line_num
                if len(cells) == len(header):
                    yield place, {role: cells[at] for role, at in places.items()}, ""
                elif cells:
                    yield place, {}, f"has {len(cells)} column(s), the header has {len(header)}"
    except UnicodeDecodeError:
        yield f"after line {line}", {}, "not UTF-8 text; save the file as UTF-8"
    except csv.Error as error:
        yield f"line {line + 1}", {}, f"not valid CSV ({error}); is a quote left open?"


def _json_columns(file: Path) -> list[str]:
    """The columns of the first row, which must lie within the file's first bytes."""
    try:
        with file.open("rb") as opened:
            start = opened.read(_FIRST_BYTES).decode("utf-8-sig", errors="ignore").lstrip()
        if file.suffix.lower() != LINES_SUFFIX:
            start = start.removeprefix("[").lstrip() if start.startswith("[") else ""
        row = json.JSONDecoder().raw_decode(start)[0]
    except (OSError, ValueError, RecursionError):
        return []
    return list(row) if isinstance(row, dict) else []


def _json_rows(file: Path) -> Iterator[Row]:
    names: tuple[str, ...] = ()
    roles: dict[str, str] = {}
    for line, row, why in stream_items(file):
        if why is None and not isinstance(row, dict):
            why = "not a row with named columns"
        if why is not None:
            yield f"line {line}", {}, why
            continue
        if tuple(row) != names:
            names = tuple(row)
            roles = find_columns(names)
        yield f"line {line}", {role: row[name] for role, name in roles.items()}, ""


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingLibraryError(
            "Parquet files and `datasets` folders need pyarrow: pip install -e '.[tables]'"
        ) from None
    return pyarrow


@contextmanager
def _arrow_errors(file: Path) -> Iterator[Any]:
    arrow = _pyarrow()
    try:
        yield arrow
    # What pyarrow raises at damaged files; text that is not UTF-8 and dates out of range are ValueErrors.
    except (arrow.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError) as error:
        why = readable(" ".join(str(error).split()))[:160]  # it may quote bytes of the file
        raise InputError(f"{file}: not a table that pyarrow can read ({why})") from None


def _arrow_schema(arrow: Any, file: Path) -> Any:
    if file.suffix.lower() == ".parquet":
        return arrow.parquet.read_schema(file)
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        return stream.schema


def _check_images(file: Path, column: str) -> None:
    """Before any is read: a batch of rows that hold their pictures would fill the memory."""
    with _arrow_errors(file) as arrow:
        kind = _arrow_schema(arrow, file).field(column).type
        holds = (
            arrow.types.is_struct(kind) or arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)
        )
    if holds:
        raise InputError(
            f"{file}: its column {column!r} holds the pictures themselves; save them as files (with "
            f"`datasets`: row[{column!r}].save(name)) and put their names into the column"
        )


def _arrow_rows(file: Path) -> Iterator[Row]:
    number = 0
    try:
        with _arrow_errors(file) as arrow:
            schema = _arrow_schema(arrow, file)
            roles = find_columns(schema.names)
            classes = _class_names(schema)
            for batch in _batches(arrow, file, list(roles.values())):
                batch.validate(full=True)  # lengths that a damaged file gives lead outside the memory
                cells = [
                    [_named(cell, classes.get(column)) for cell in batch.column(column).to_pylist()]
                    for column in roles.values()
                ]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(roles, row, strict=True)), ""
    except InputError as error:
        yield f"after row {number}", {}, str(error).removeprefix(f"{file}: ")


def _batches(arrow: Any, file: Path, columns: list[str]) -> Iterator[Any]:
    if file.suffix.lower() == ".parquet":
        with arrow.parquet.ParquetFile(file) as table:
            yield from table.iter_batches(_BATCH, columns=columns, use_threads=False)
        return
    with arrow.OSFile(str(file)) as opened, arrow.ipc.open_stream(opened) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> the names of its numbers."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):  # no or other metadata
        return {}


def _named(cell: object, names: list[str] | None) -> object:
    if names is not None and isinstance(cell, int) and 0 <= cell < len(names):
        return names[cell]
    return cell
