"""Read tables of image labels: a CSV or text with a row for each picture, and its class or classes.

Three forms are met: a column for the class (`filename,label`), which may hold several (`rust;crack`) or be
repeated in several rows of one picture; a column for each class with 0 and 1 (Roboflow's `_classes.csv`,
roboflow.com/formats/multiclass-classification-csv; Kaggle's competitions); and lines without a header, the
picture's name and what follows it (`no1.jpeg 0`, the elpv-dataset's `images/cell0001.png 1.0 mono`), of which
every part is a label. What a class means is for the recipe to say. A picture with no 1 in its row shows none
of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_prep.annotations import AnnotatedSource
from data_prep.formats.box_tables import CLASS_COLUMNS, IMAGE_COLUMNS, SPLIT_COLUMNS, find_layout
from data_prep.formats.csv_files import CsvFile, find_column, open_csv, possible_tables
from data_prep.formats.fields import parse_class_name
from data_prep.formats.image_lists import ImageList, read_image_lists
from data_prep.formats.table_columns import has_required_columns
from data_prep.formats.visa_rows import find_tables as find_visa_tables
from data_prep.source_folder import IMAGE_SUFFIXES, SPLIT_NAMES, SourceFolder, Split
from llava.common.errors import InputError

NAME = "label_table"
_YES = {"1", "1.0", "true", "yes"}
_NO = {"0", "0.0", "false", "no", "", "-1", "-1.0"}
_OTHER_COLUMNS = ("mask", "question", "caption", "text", "encodedpixels", "regionshapeattributes", "maskpath")
_SEVERAL = re.compile(r"[;|,]")
# A picture's name, which may hold spaces, and what follows it.
_SUFFIX = "|".join(map(re.escape, sorted(IMAGE_SUFFIXES)))
_LINE = re.compile(rf"(?P<name>.+?(?:{_SUFFIX}))(?P<between>[\s,;]+)(?P<labels>\S.*)", re.I)
_DETECT_ROWS = 20
_MAX_ERRORS = 0.1  # of the rows; a column with more is not of 0 and 1


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table are what; `classes` are those of 0 and 1, where there is no `label`."""

    image: int
    label: int | None
    classes: dict[int, str]
    split: int | None


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like tables of image labels, None if it does not."""
    count = len(_find_tables(folder))
    return f"{count} table(s) with columns for picture and class" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every table in the folder or below: the labels of the picture of each row.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such table or no images.
    """
    return read_image_lists(
        folder, NAME, _find_tables(folder), _read_table, "table(s) of image labels (*.csv)"
    )


def _find_tables(folder: SourceFolder) -> list[Path]:
    visa = set(find_visa_tables(folder))
    return [
        path
        for path in possible_tables(folder)
        if path not in visa and (_has_header(folder, open_csv(path)) or _is_list(folder, path))
    ]


def _has_header(folder: SourceFolder, table: CsvFile) -> bool:
    """Return whether the columns are those of a table of labels, whose first rows name pictures."""
    try:
        if (columns := _find_columns(table)) is None:
            return False
        rows = [cells for _, cells in islice(table.rows(), _DETECT_ROWS)]
    except InputError:  # it may be one: `read` says what is wrong
        return True
    names = [cells[columns.image] for cells in rows if len(cells) > columns.image]
    found = [_is_image(folder, table.file, name) for name in names]
    # Bare numbers may be those of classes: then some of them name no picture.
    return all(found) if all(name.strip().isdigit() for name in names) else any(found)


def _is_image(folder: SourceFolder, file: Path, name: str) -> bool:
    try:
        folder.image_of(file, name)
    except InputError:
        return False
    return True


def _find_columns(table: CsvFile) -> _Columns | None:
    """Return which columns are what, None if it is no table of labels. InputError if it cannot be read."""
    columns = table.columns
    image = find_column(columns, IMAGE_COLUMNS)
    if image is None or find_layout(table) or has_required_columns(table.first_row):
        return None
    if find_column(columns, _OTHER_COLUMNS) is not None or {"imageid", "labelname"} <= set(columns):
        return None
    rest = [name if index != image else "" for index, name in enumerate(columns)]
    split = find_column(rest, SPLIT_COLUMNS)
    label = find_column(rest, CLASS_COLUMNS)
    classes = {
        index: name
        for index in sorted(_yes_or_no_columns(table) - {image, split})
        if (name := parse_class_name(table.first_row[index]))
    }
    # A class may be called `label`, but not where it is the only one.
    if label is not None and not (label in classes and len(classes) > 1):
        return _Columns(image, label, {}, split)
    return _Columns(image, None, classes, split) if classes else None


def _yes_or_no_columns(table: CsvFile) -> set[int]:
    """Return the columns that hold 0 or 1, or words for them, in nearly every row; the others are errors."""
    others = dict.fromkeys(range(len(table.first_row)), 0)
    rows = 0
    for _, cells in table.rows():
        rows += 1
        for index, cell in enumerate(cells):
            if index in others and cell.casefold() not in _YES | _NO:
                others[index] += 1
    return {index for index, count in others.items() if count <= _MAX_ERRORS * rows}


def _read_table(content: ImageList) -> None:
    table = open_csv(content.file)
    columns = _find_columns(table)
    if columns and columns.classes:
        used = {columns.image, columns.split, *columns.classes}
        unused = [repr(name) for index, name in enumerate(table.first_row) if index not in used]
        if unused:
            content.notes.append(f"{content.file}: column(s) passed over: {', '.join(unused)}")
    for line, name, labels, split in _rows(table, columns) if columns else _lines(content.file):
        if not name:
            content.add_problem(f"line {line}", "names no picture")
        elif entry := content.entry(name, split):
            known = [label for text in labels if (label := parse_class_name(text))]
            if not known and (columns is None or columns.label is not None):
                content.add_problem(f"line {line}", "names no class")
            entry.labels.update(dict.fromkeys(known))


def _rows(table: CsvFile, columns: _Columns) -> Iterator[tuple[int, str, list[str], Split | None]]:
    """Yield line, picture, labels and split of each row."""
    width = max(columns.image, columns.label or 0, *columns.classes) + 1
    for line, cells in table.rows():
        place = f"{table.file}, line {line}:"
        if len(cells) < width:
            raise InputError(f"{place} has {len(cells)} column(s), fewer than the header")
        if columns.label is not None:
            # A list may be written as `['crack', 'rust']`.
            labels = [part.strip("[]'\" ") for part in _SEVERAL.split(cells[columns.label])]
        else:
            labels = [name for index, name in columns.classes.items() if _is_yes(cells[index], name, place)]
        stated = cells[columns.split] if columns.split is not None and columns.split < len(cells) else ""
        yield line, cells[columns.image], labels, SPLIT_NAMES.get(stated.casefold())


def _is_yes(cell: str, name: str, place: str) -> bool:
    """Return whether a picture is of a class. InputError naming the place for what is neither yes nor no."""
    if (text := cell.casefold()) not in _YES | _NO:
        raise InputError(f"{place} {cell[:40]!r} of {name!r} is neither 0 nor 1")
    return text in _YES


def _is_list(folder: SourceFolder, path: Path) -> bool:
    """Return whether each of the first lines is a picture and labels, and one of the pictures is there."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = [text for line in file.readlines(1 << 14)[:_DETECT_ROWS] if (text := line.strip())]
    except OSError:
        return False
    matches = [_LINE.fullmatch(line) for line in lines]
    # `a.jpg 1,2,30,40,0` is a box, and five or more numbers are too; `a.jpg a.png` is a picture and its mask.
    if not lines or any(
        match is None
        or len(re.findall(r"\d+[,\s]", match["labels"])) > 2
        or Path(match["labels"]).suffix.lower() in IMAGE_SUFFIXES
        for match in matches
    ):
        return False
    return any(match and _is_image(folder, path, match["name"]) for match in matches)


def _lines(file: Path) -> Iterator[tuple[int, str, list[str], Split | None]]:
    """Yield line, picture and labels of a text without header."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.strip():
                    continue
                match = _LINE.fullmatch(line.strip())
                if match is None:
                    raise InputError(f"{file}, line {number}: expected a picture's name and its class")
                separator = r"[,;\t]" if re.search(r"[,;\t]", match["between"]) else r"\s+"
                yield number, match["name"], re.split(separator, match["labels"]), None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
