"""Read CSV files as spreadsheets and scripts write them: with `,`, `;`, a tab or `|`, and perhaps a BOM."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.formats.fields import parse_number
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

_FIRST_BYTES = 1 << 16
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: the cells of its first row, and what stands between cells."""

    file: Path
    first_row: tuple[str, ...]
    delimiter: str

    @property
    def columns(self) -> list[str]:
        """The first row as names of columns, in lower case and without punctuation: `xmin` for `X_Min`."""
        return [plain_column(name) for name in self.first_row]

    def rows(self, *, header: bool = True) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row that is not empty, after the header if there is one.

        InputError naming the file and line if it is no CSV in UTF-8.
        """
        line = 0
        try:
            with self.file.open(encoding="utf-8-sig", newline="") as text:
                # Strict: else a quote that is never closed silently swallows the rows after it.
                reader = csv.reader(text, delimiter=self.delimiter, strict=True, skipinitialspace=True)
                if header:
                    next(reader, None)
                line = reader.line_num
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield line + 1, [cell.strip() for cell in cells]
                    line = reader.line_num
        except UnicodeDecodeError:
            raise InputError(f"{self.file}, after line {line}: not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise InputError(
                f"{self.file}, line {line + 1}: not valid CSV ({error}); is a quote left open?"
            ) from None
        except OSError as error:
            raise InputError(f"{self.file}: cannot be read ({error.strerror})") from None

    def number(self, text: str) -> float | None:
        """Return the number in a cell, None if there is none; `12,5` too where `;` stands between cells."""
        return parse_number(text.replace(",", ".") if self.delimiter == ";" else text)


def plain_column(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def possible_tables(folder: SourceFolder) -> list[Path]:
    """Return the source's CSV files and texts.

    Not those texts that are named like an image, which are its labels, nor the answers that Kaggle wants to
    be filled in (`sample_submission.csv`).
    """
    stems = {image.stem for image in folder.images}
    texts = [path for path in folder.named(".txt") if path.stem not in stems]
    tables = [path for path in folder.named(".csv", ".tsv") if not is_submission(path)]
    return sorted([*tables, *texts])


def is_submission(path: Path) -> bool:
    return path.suffix.lower() == ".csv" and "submission" in path.stem.casefold()


def open_csv(path: Path) -> CsvFile:
    """Return the file with its first row, cut at the delimiter that gives most cells; never fails."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            line = text.readline(_FIRST_BYTES)
    except OSError:
        line = ""
    rows = {}
    for delimiter in _DELIMITERS:
        try:
            rows[delimiter] = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            rows[delimiter] = []
    best = max(rows, key=lambda delimiter: len(rows[delimiter]))
    return CsvFile(path, tuple(cell.strip() for cell in rows[best]), best)


def find_column(columns: list[str], names: tuple[str, ...]) -> int | None:
    """Return the index of the first of the names that is a column, None if none is."""
    return next((columns.index(name) for name in names if name in columns), None)
