"""Read tables of questions and answers about images, a row each (free VQA data).

Files are CSV, TSV, JSON lines, a JSON list of rows, Parquet, and folders that the `datasets` library wrote
with `save_to_disk`. A table has an image, a question and an answer column; `COLUMN_NAMES` in
data_prep/formats/table_columns.py states the names they may have. Columns it may have beside:

- `task`, which scores are reported under, and `language` of question and answer, such as `ko`;
- `group` and `split` (train, val or test) of the image: all its rows must say the same;
- `label`: the class of the image as a whole, or several, as a list or separated by `;`;
- `x1`, `y1`, `x2`, `y2`: a box in pixels, of what `label` then names.

Other columns are not used, `id` neither: the output's ids are made anew. Where the tables' names say several
splits (`train.csv` and `test.csv`, or the folders of a `DatasetDict`), rows that state none are of those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.conversations import (
    SPLIT_WORDS,
    ConversationCollector,
    parse_text,
    parse_turn,
    splits_of_files,
)
from data_prep.formats.fields import parse_number
from data_prep.formats.layout import note_unused, require_images
from data_prep.formats.outlines import bounding_box
from data_prep.formats.table_files import SUFFIXES, Table, open_table
from data_prep.source_folder import SourceFolder, Split
from llava.common.arrow_files import MissingLibraryError
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "table"
_CORNERS = ("x1", "y1", "x2", "y2")
_DATASETS_FILES = ("state.json", "dataset_info.json", "dataset_dict.json")


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like tables of questions, None if it does not."""
    count = sum(_looks_like_table(path) for path in _candidates(folder))
    return f"{count} table(s) with picture, question and answer columns" if count else None


def _looks_like_table(path: Path) -> bool:
    try:
        return open_table(path) is not None
    except InputError:  # it may be one: `read` says what is wrong, or what to install
        return True


def _candidates(folder: SourceFolder) -> list[Path]:
    """Return the files that may be tables.

    Of Arrow files those that a `datasets` folder lists in its state.json: caches may lie beside them.
    """
    listed = {
        state.parent / name
        for state in folder.named(".json")
        if state.name == "state.json"
        for name in _data_files(state)
    }
    return [
        path
        for path in folder.named(*SUFFIXES)
        if (path in listed if path.suffix.lower() == ".arrow" else path.name not in _DATASETS_FILES)
    ]


def _data_files(state: Path) -> list[str]:
    try:
        files = json.loads(state.read_bytes())["_data_files"]
        return [str(item["filename"]) for item in files]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return []


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every table in the folder or below: a Conversation for each row, gathered by image.

    Returns:
        The source and the problems, one line each (an image that does not exist, an empty answer, a wrong
        number of columns); a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such table or no images.
        MissingLibraryError: pyarrow is needed and not installed.
    """
    collector = ConversationCollector(folder)
    tables, others = _open_tables(folder, collector.problems)
    if not tables and not collector.problems:
        raise InputError(
            f"{folder.root}: no table ({', '.join(SUFFIXES)}) with image, question and answer columns "
            f"in it or below"
        )
    require_images(folder, f"{folder.root}: {len(tables)} table(s)")
    splits = splits_of_files([_split_path(table.file) for table in tables])
    for table in tables:
        _read_table(collector, table, splits.get(_split_path(table.file)))
    collector.notes += note_unused(folder, others, "file(s) without image, question and answer columns")
    return collector.make_source(NAME), collector.problems


def _open_tables(folder: SourceFolder, problems: list[str]) -> tuple[list[Table], list[Path]]:
    """Return the tables and the files that are none; `problems` gets a line for each damaged file."""
    tables: list[Table] = []
    others: list[Path] = []
    for file in _candidates(folder):
        try:
            table = open_table(file)
        except MissingLibraryError:
            raise
        except InputError as error:
            problems.append(str(error))
            continue
        if table is None:
            others.append(file)
        else:
            tables.append(table)
    return tables, others


def _split_path(file: Path) -> Path:
    """Return what may be named after a split: the table, or its folder in a `DatasetDict`."""
    in_dict = file.suffix.lower() == ".arrow" and (file.parent.parent / "dataset_dict.json").is_file()
    return file.parent if in_dict else file


def _read_table(collector: ConversationCollector, table: Table, split: Split | None) -> None:
    collector.start_file(table.file)
    reversed_boxes = 0
    for place, row, error in table.rows():
        if error:
            collector.add_problem(place, error)
            continue
        try:
            reversed_boxes += _add_row(collector, place, row, split)
        except InputError as unusable:
            collector.add_problem(place, unusable)
    collector.finish_file()
    if split:
        collector.notes.append(f"{table.file}: its pictures are of the split {split}, as its name says")
    if table.unused_columns:
        collector.notes.append(f"{table.file}: column(s) passed over: {', '.join(table.unused_columns)}")
    if reversed_boxes:
        collector.notes.append(f"{table.file}: {reversed_boxes} box(es) with reversed corners put right")


def _add_row(
    collector: ConversationCollector, place: str, row: Mapping[str, Any], default_split: Split | None
) -> bool:
    """Add a row to the collector.

    Args:
        collector: Gathers the rows of all tables.
        place: The row's place in the table.
        row: Its values by role.
        default_split: The split of its image if the row states none.

    Returns:
        Whether its box was reversed.

    Raises:
        InputError: The row cannot be used; then no conversation is added.
    """
    name = parse_text(row.get("image"), "the picture's name")
    if not name:
        raise InputError("names no picture")
    image = collector.find_image(name)
    question = parse_turn(row.get("question"), "the question")
    answer = parse_turn(row.get("answer"), "the answer")
    task, language, group = (parse_text(row.get(role), role) for role in ("task", "language", "group"))
    split = _parse_split(row.get("split")) or default_split
    labels = _parse_labels(row.get("label"))
    corners = _parse_corners(row)
    if corners and len(labels) != 1:
        raise InputError("a box needs one label that says what is in it")
    if split:
        collector.set_property(place, image, "split", split)
    if group:
        collector.set_property(place, image, "group", group)
    content = collector.add_conversation(image, [(question, answer)], task, language)
    if corners is None:
        content.labels.update(dict.fromkeys(labels))
        return False
    x1, y1, x2, y2 = corners
    # Questions about one box repeat it in every row: that is no duplicate to note.
    content.shapes[Shape(labels[0], bounding_box([(x1, y1), (x2, y2)]))] = None
    return x1 > x2 or y1 > y2


def _parse_split(value: object) -> Split | None:
    text = parse_text(value, "split").casefold()
    if text and text not in SPLIT_WORDS:
        raise InputError(f"split {text!r} is not one of train, val and test")
    return SPLIT_WORDS.get(text)


def _parse_labels(value: object) -> list[str]:
    parts = value if isinstance(value, list) else parse_text(value, "label").split(";")
    return [text for part in parts if (text := parse_text(part, "label"))]


def _parse_corners(row: Mapping[str, Any]) -> Box | None:
    """Return a row's box as written, perhaps reversed; None if it has none."""
    texts = [parse_text(row.get(role), role) for role in _CORNERS]
    if not any(texts):
        return None
    values = []
    for role, text in zip(_CORNERS, texts, strict=True):
        value = parse_number(text)
        if value is None:
            raise InputError(f"a box without a readable {role} (found {text!r})")
        values.append(value)
    if max(map(abs, values)) <= 1:
        raise InputError("a box within one pixel; boxes are in pixels, not in shares of the picture")
    return values[0], values[1], values[2], values[3]
