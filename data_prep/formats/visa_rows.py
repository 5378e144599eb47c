"""Read the CSV files of VisA: which image is sound or has which kinds of defect, and which mask it has."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.annotations import plain_name
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_text

KINDS_FILE = "image_anno.csv"
_SOUND = "normal"
_KINDS_COLUMNS = {"image", "label"}
_SPLIT_COLUMNS = {"object", "split", "label", "image", "mask"}


@dataclass(frozen=True)
class Row:
    """A line of a CSV file. `kinds` is empty for a sound image."""

    file: Path
    line: int
    image: Path
    kinds: tuple[str, ...]
    mask: Path | None


def find_tables(folder: SourceFolder) -> list[Path]:
    """Return VisA's CSV files, those that name kinds first."""
    kinds, splits = [], []
    for path in folder.named(".csv"):
        if path.name == KINDS_FILE and _header(path) >= _KINDS_COLUMNS:
            kinds.append(path)
        elif path.parent.name == "split_csv" and _header(path) >= _SPLIT_COLUMNS:
            splits.append(path)
    return [*kinds, *splits]


def _header(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            line = file.readline(500)
    except OSError:
        return set()
    return {name.strip() for name in line.decode("utf-8-sig", "replace").split(",")}


class FileFinder:
    """Finds files by the paths written in a table, without regard to case."""

    def __init__(self, folder: SourceFolder) -> None:
        self.root = folder.root
        self._files = {path.relative_to(folder.root).as_posix().casefold(): path for path in folder.files}
        for path in folder.images:
            self._files[path.relative_to(folder.image_root).as_posix().casefold()] = path

    def find(self, table: Path, written: str) -> Path | None:
        parts = PurePosixPath(written.strip().replace("\\", "/").casefold()).parts
        # Where the root is one object's folder, paths begin with its name.
        tails = [parts, parts[1:]] if table.parent == self.root else [parts]
        return next((self._files[name] for tail in tails if (name := "/".join(tail)) in self._files), None)


def read_rows(table: Path, finder: FileFinder, problems: list[str]) -> list[Row]:
    """Return the rows of one file; `problems` gets a line for each row that cannot be used.

    InputError if the file as a whole cannot be read.
    """
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""), skipinitialspace=True)
    try:
        for values in reader:
            place = f"{table}, line {reader.line_num}"
            cells = {(name or "").strip(): text for name, text in values.items() if isinstance(text, str)}
            try:
                rows.append(_read_row(table, reader.line_num, cells, finder))
            except InputError as error:
                problems.append(f"{place}: {error}")
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: not valid CSV ({error})") from None
    return rows


def _read_row(table: Path, line: int, cells: Mapping[str, str], finder: FileFinder) -> Row:
    """Read one row.

    Args:
        table: The CSV file.
        line: The row's line in it.
        cells: Column -> text.
        finder: Finds the image and the mask.

    Raises:
        InputError: The row cannot be used; the message does not name the place.
    """
    kinds = _parse_kinds(cells.get("label", ""))
    image_path, mask_path = cells.get("image", "").strip(), cells.get("mask", "").strip()
    image = finder.find(table, image_path) if image_path else None
    mask = finder.find(table, mask_path) if mask_path else None
    if not image_path or kinds is None:
        raise InputError(f"no {'label' if image_path else 'image'}")
    if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"no picture {image_path!r} below {finder.root}")
    if mask_path and mask is None:
        raise InputError(f"no mask {mask_path!r} below {finder.root}")
    if mask and not kinds:
        raise InputError(f"{_SOUND}, but with a mask; correct one of them")
    return Row(table, line, image, kinds, mask)


def _parse_kinds(label: str) -> tuple[str, ...] | None:
    """Return the kinds that a label names, each once; none for `normal`. None where there is no label."""
    names: dict[str, str] = {}
    for part in label.split(","):
        if name := part.strip():
            names.setdefault(plain_name(name), name)
    if not names:
        return None
    return tuple(name for plain, name in names.items() if plain != _SOUND)
