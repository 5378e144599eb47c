"""Tables of questions and answers about pictures, a row each (free VQA data).

Files are CSV, TSV, JSON lines, a JSON list of rows, Parquet, and folders that the `datasets` library wrote
with `save_to_disk`. A table has a picture, a question and an answer column; `ROLES` in
data_prep/formats/table_files.py states the names they may have. Columns it may have beside:

- `task`, which scores are reported under, and `language` of question and answer, such as `ko`;
- `group` and `split` (train, val or test) of the picture: all its rows must say the same;
- `label`: the class of the picture as a whole, or several, as a list or separated by `;`;
- `x1`, `y1`, `x2`, `y2`: a box in pixels, of what `label` then names.

Other columns are passed over, `id` too: the output's ids are made anew. Where the tables' names say several
splits (`train.csv` and `test.csv`, or the folders of a `DatasetDict`), rows that state none are of those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.conversations import SPLIT_WORDS, Collector, named_splits, plain_question, plain_text
from data_prep.formats.layout import passed_over, require_images
from data_prep.formats.outlines import number
from data_prep.formats.table_files import SUFFIXES, MissingLibraryError, Table, open_table
from data_prep.source_folder import SourceFolder, Split
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "table"
_CORNERS = ("x1", "y1", "x2", "y2")
_DATASETS_FILES = ("state.json", "dataset_info.json", "dataset_dict.json")


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like tables of questions, None if it does not."""
    count = sum(_looks_like_table(path) for path in _candidates(folder))
    return f"{count} table(s) with picture, question and answer columns" if count else None


def _looks_like_table(path: Path) -> bool:
    try:
        return open_table(path) is not None
    except InputError:  # it may be one: `read` says what is wrong, or what to install
        return True


def _candidates(folder: SourceFolder) -> list[Path]:
    """The files that may be tables. Of Arrow files those that a `datasets` folder lists in its state.json:
    caches may lie beside them."""
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
    """Every table anywhere below the folder: a Talk per row, gathered by picture.

    Returns the source and one line per problem (a picture that is not there, an empty answer, a wrong number
    of columns); a caller that gets problems must not go on. InputError for a folder without such a table or
    without pictures, and where pyarrow is needed and absent.
    """
    into = Collector(folder)
    tables: list[Table] = []
    others: list[Path] = []
    for file in _candidates(folder):
        try:
            table = open_table(file)
        except MissingLibraryError:
            raise
        except InputError as error:
            into.problems.append(str(error))
            continue
        if table is None:
            others.append(file)
        else:
            tables.append(table)
    if not tables and not into.problems:
        raise InputError(
            f"{folder.root}: no table ({', '.join(SUFFIXES)}) with image, question and answer columns "
            f"in it or below"
        )
    require_images(folder, f"{folder.root}: {len(tables)} table(s)")
    splits = named_splits([_split_name(table.file) for table in tables])
    for table in tables:
        _read_table(into, table, splits.get(_split_name(table.file)))
    into.notes += passed_over(folder, others, "file(s) without image, question and answer columns")
    return into.source(NAME), into.problems


def _split_name(file: Path) -> Path:
    """What may be called after a split: the table, or its folder in a `DatasetDict`."""
    in_dict = file.suffix.lower() == ".arrow" and (file.parent.parent / "dataset_dict.json").is_file()
    return file.parent if in_dict else file


def _read_table(into: Collector, table: Table, split: Split | None) -> None:
    into.begin(table.file)
    reversed_boxes = 0
    for place, row, why in table.rows():
        if why:
            into.problem(place, why)
            continue
        try:
            reversed_boxes += _add_row(into, place, row, split)
        except InputError as error:
            into.problem(place, error)
    into.end()
    if split:
        into.notes.append(f"{table.file}: its pictures are of the split {split}, as its name says")
    if table.unused:
        into.notes.append(f"{table.file}: column(s) passed over: {', '.join(table.unused)}")
    if reversed_boxes:
        into.notes.append(f"{table.file}: {reversed_boxes} box(es) with reversed corners put right")


def _add_row(into: Collector, place: str, row: Mapping[str, Any], default_split: Split | None) -> bool:
    """Whether its box was reversed. InputError for a row that cannot be used; then nothing is taken in."""
    name = plain_text(row.get("image"), "the picture's name")
    if not name:
        raise InputError("names no picture")
    image = into.image(name)
    question = plain_question(row.get("question"), "the question")
    answer = plain_question(row.get("answer"), "the answer")
    task, language, group = (plain_text(row.get(role), role) for role in ("task", "language", "group"))
    split = _split(row.get("split")) or default_split
    labels = _labels(row.get("label"))
    box = _box(row)
    if box and len(labels) != 1:
        raise InputError("a box needs one label that says what is in it")
    if split:
        into.agree(place, image, "split", split)
    if group:
        into.agree(place, image, "group", group)
    said = into.talk(image, [(question, answer)], task, language)
    if box is None:
        said.labels.update(dict.fromkeys(labels))
        return False
    x1, y1, x2, y2 = box
    said.shapes[Shape(labels[0], (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))] = None
    return x1 > x2 or y1 > y2


def _split(value: object) -> Split | None:
    text = plain_text(value, "split").casefold()
    if text and text not in SPLIT_WORDS:
        raise InputError(f"split {text!r} is not one of train, val and test")
    return SPLIT_WORDS.get(text)


def _labels(value: object) -> list[str]:
    parts = value if isinstance(value, list) else plain_text(value, "label").split(";")
    return [text for part in parts if (text := plain_text(part, "label"))]


def _box(row: Mapping[str, Any]) -> Box | None:
    texts = [plain_text(row.get(role), role) for role in _CORNERS]
    if not any(texts):
        return None
    values = []
    for role, text in zip(_CORNERS, texts, strict=True):
        value = number(text)
        if value is None:
            raise InputError(f"a box without a readable {role} (found {text!r})")
        values.append(value)
    if max(map(abs, values)) <= 1:
        raise InputError("a box within one pixel; boxes are in pixels, not in shares of the picture")
    return values[0], values[1], values[2], values[3]
