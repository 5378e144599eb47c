"""Read files with a table in them row by row, in batches: CSV, TSV, JSON lines, JSON lists, Parquet, Arrow.

Of a row only the columns in `table_columns.COLUMN_NAMES` are read. CSV is RFC 4180 in UTF-8, with `,`, `;` or
a tab between columns. Parquet and Arrow are read in arrow_files.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.formats import arrow_files
from data_prep.formats.table_columns import Row, find_columns, has_required_columns
from llava.common.json_stream import LINES_SUFFIX, stream_items

SUFFIXES = (".csv", ".tsv", ".json", LINES_SUFFIX, *arrow_files.SUFFIXES)
_FIRST_BYTES = 1 << 16


@dataclass(frozen=True)
class Table:
    """A table file. `columns` are all it has, as written; `rows` reads it anew."""

    file: Path
    columns: Sequence[str]
    rows: Callable[[], Iterator[Row]]

    @property
    def unused_columns(self) -> list[str]:
        used = find_columns(self.columns).values()
        return [name for name in self.columns if name not in used]


def open_table(file: Path) -> Table | None:
    """Open a table by its suffix; None for a file that has no image, question and answer columns.

    InputError for a damaged Parquet or Arrow file and for one that holds the images themselves;
    MissingLibraryError if it takes pyarrow.
    """
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        header, delimiter = _csv_header(file)
        table = Table(file, header, lambda: _csv_rows(file, delimiter))
    elif suffix in (".json", LINES_SUFFIX):
        table = Table(file, _json_columns(file), lambda: _json_rows(file))
    else:
        table = Table(file, arrow_files.read_columns(file), lambda: arrow_files.read_rows(file))
    if not has_required_columns(table.columns):
        return None
    if suffix in arrow_files.SUFFIXES:
        arrow_files.refuse_embedded_images(file, find_columns(table.columns)["image"])
    return table


def _csv_header(file: Path) -> tuple[list[str], str]:
    """Return the columns of a CSV file and the delimiter between them; no columns if it is no table.

    The delimiter is the one of `,`, `;` and tab that gives the required columns; in a .tsv file the tab.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first_line = text.readline(_FIRST_BYTES)
        for delimiter in "\t" if file.suffix.lower() == ".tsv" else ",;\t":
            header = next(csv.reader([first_line], delimiter=delimiter), [])
            if has_required_columns(header):
                return header, delimiter
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    return [], ","


def _csv_rows(file: Path, delimiter: str) -> Iterator[Row]:
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            # Strict: else a quote that is never closed silently swallows the rows after it.
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            header = next(reader, [])
            indices = {role: header.index(column) for role, column in find_columns(header).items()}
            line = reader.line_num
            for cells in reader:
                place, line = f"line {line + 1}", reader.line_num
                if len(cells) == len(header):
                    yield place, {role: cells[index] for role, index in indices.items()}, ""
                elif cells:
                    yield place, {}, f"has {len(cells)} column(s), the header has {len(header)}"
    except UnicodeDecodeError:
        yield f"after line {line}", {}, "not UTF-8 text; save the file as UTF-8"
    except csv.Error as error:
        yield f"line {line + 1}", {}, f"not valid CSV ({error}); is a quote left open?"


def _json_columns(file: Path) -> list[str]:
    """Return the columns of the first row, which must lie within the file's first bytes."""
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
    columns: dict[str, str] = {}
    for line, row, error in stream_items(file):
        if error is None and not isinstance(row, dict):
            error = "not a row with named columns"
        if error is not None:
            yield f"line {line}", {}, error
            continue
        if tuple(row) != names:
            names = tuple(row)
            columns = find_columns(names)
        yield f"line {line}", {role: row[name] for role, name in columns.items()}, ""
