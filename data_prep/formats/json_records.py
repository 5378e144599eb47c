"""Read records of boxes or classes in JSON: a list or JSON lines, where each record names a picture.

Scripts and hubs write them, each with other keys: `metadata.jsonl` of Hugging Face's image folders
(`{"file_name": "a.jpg", "objects": {"bbox": [[x, y, w, h]], "categories": [0]}}` or `"label": "crack"`;
https://huggingface.co/docs/datasets/image_dataset), challenges with a record for each box (`{"name": "a.jpg",
"defect_name": "crack", "bbox": [x1, y1, x2, y2]}`), BDD100K (`"labels": [{"category": ..., "box2d": {"x1":
...}}]`). Keys are known as the columns of tables are (box_tables.py), and so is what four numbers mean: by
all boxes of the file together. Where both would be possible, boxes in `objects` are a corner with width and
height, as `datasets` says; others are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.box_tables import CLASS_COLUMNS, IMAGE_COLUMNS, SIZES, BoxJudge, from_shares
from data_prep.formats.csv_files import plain_column
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box
from data_prep.formats.shapes import UNNAMED
from data_prep.formats.sizes import image_size
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.json_stream import LINES_SUFFIX, stream_items

NAME = "json_records"
_LISTS = ("objects", "annotations", "labels", "boxes", "bboxes", "detections")
_PLACES = ("bbox", "box", "box2d", "boundingbox")
_CLASSES = (*CLASS_COLUMNS, "categories")
# Of a whole picture fewer keys say the class: `status` or `type` may be anything.
_LABELS = (
    "label",
    "labels",
    "class",
    "classes",
    "classname",
    "category",
    "categories",
    "defect",
    "defecttype",
)
_CORNERS = ("x1", "y1", "x2", "y2")

_Record = dict[str, Any]
_Place = tuple[list[float], bool]
"""Four numbers, and whether they are known to be two corners."""


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like records of boxes or classes, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} JSON file(s) of records with a picture and its boxes or classes" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every such file in the folder or below: a Shape for each box, a label for each class without one.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    return read_image_lists(folder, NAME, _find_files(folder), _read_file, "JSON file(s) of records")


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json", LINES_SUFFIX) if _is_file(folder, path)]


def _is_file(folder: SourceFolder, path: Path) -> bool:
    """Judge by the first record: it must name a picture that is there, and a box or a class."""
    try:
        _, item, error = next(stream_items(path), (0, None, None))
        if error or not isinstance(item, dict) or (name := _image_name(_plain(item))) is None:
            return False
        folder.image_of(path, name)
        record = _plain(item)
        objects = _objects(record)
        return bool(_labels(record)) if objects is None else not objects or _place(objects[0]) is not None
    except InputError:
        return False


def _plain(item: object) -> _Record:
    """Return an object with its keys written as columns are compared, without its image's name as class."""
    return {plain_column(key): value for key, value in item.items()} if isinstance(item, dict) else {}


def _image_key(record: _Record) -> str | None:
    return next((key for key in IMAGE_COLUMNS if isinstance(record.get(key), str) and record[key]), None)


def _image_name(record: _Record) -> str | None:
    key = _image_key(record)
    return None if key is None else record[key]


def _objects(record: _Record) -> list[_Record] | None:
    """Return the objects of a record, None if it holds no places. InputError for lists of unequal length."""
    for key in _LISTS:
        value = record.get(key)
        if isinstance(value, list) and all(isinstance(part, dict) for part in value):
            return [_plain(part) for part in value]
        if isinstance(value, dict) and not _plain(value).keys().isdisjoint(_PLACES):
            columns = {name: part for name, part in _plain(value).items() if isinstance(part, list)}
            if len(set(map(len, columns.values()))) > 1:
                raise InputError(f"the lists in {key!r} are not of one length")
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if record.keys().isdisjoint(_PLACES):
        return None
    return [{key: value for key, value in record.items() if key != _image_key(record)}]


def _place(fields: _Record) -> _Place | None:
    """Return an object's place, None without one. InputError if it is not four numbers."""
    written = next((fields[key] for key in _PLACES if fields.get(key) not in (None, [])), None)
    if written is None:
        return None
    has_corners = isinstance(written, dict)
    values = [written.get(key) for key in _CORNERS] if isinstance(written, dict) else written
    numbers = [parse_number(value) for value in values] if isinstance(values, list) else []
    known = [number for number in numbers if number is not None]
    if len(known) != 4 or len(numbers) != 4:
        raise InputError(f"a box without four numbers (found {str(written)[:80]})")
    return known, has_corners


def _class_names(value: object) -> list[str]:
    """Return the class or classes that a value states; a number is the name of its class."""
    values = value if isinstance(value, list) else [value]
    texts = [str(part) if type(part) is int else part for part in values]
    return [name for text in texts if (name := parse_class_name(text))]


def _labels(record: _Record) -> list[str]:
    key = next((key for key in _LABELS if key in record and key != _image_key(record)), None)
    return [] if key is None else _class_names(record[key])


def _records(content: ImageList) -> Iterator[tuple[str, _Record, ImageEntry]]:
    """Yield place, content and image of each record; what cannot be read becomes a problem."""
    for line, item, error in stream_items(content.file):
        record = _plain(item)
        if error or (name := _image_name(record)) is None:
            content.add_problem(f"line {line}", error or "names no picture")
        elif entry := content.entry(name):
            sizes = (parse_size(record.get(width), record.get(height)) for width, height in SIZES)
            entry.size = entry.size or next(filter(None, sizes), None)
            yield f"line {line}", record, entry


def _read_file(content: ImageList) -> None:
    judge = BoxJudge()
    records = list(_records(content))
    for _, record, entry in records:
        for numbers, has_corners in _places_of(record):
            judge.add(numbers, None if has_corners else entry.size or image_size(entry.image))
    default = "corner and size" if any("objects" in record for _, record, _ in records) else ""
    kind = judge.kind() or default
    if (
        judge.count
        and not kind
        and any(not known for _, record, _ in records for _, known in _places_of(record))
    ):
        raise InputError(
            f"{content.file}: its boxes may be two corners as well as a corner with width and height; write "
            'them as {"x1": ..., "y1": ..., "x2": ..., "y2": ...}'
        )
    for place, record, entry in records:
        try:
            objects = _objects(record)
            if objects is None:
                labels = _labels(record)
                if not labels:
                    raise InputError("names no class")
                entry.labels.update(dict.fromkeys(labels))
            for fields in objects or []:
                _add_object(entry, fields, kind, judge.in_shares, f"{content.file}, {place}:")
        except InputError as error:
            content.add_problem(place, error)


def _places_of(record: _Record) -> Iterator[_Place]:
    try:
        for fields in _objects(record) or []:
            if place := _place(fields):
                yield place
    except InputError:
        pass  # named when the objects are read


def _add_object(entry: ImageEntry, fields: _Record, kind: str, in_shares: bool, place: str) -> None:
    """Add an object to its image. InputError if it has a class that is not readable, or no readable box."""
    written = next((fields[key] for key in _CLASSES if key in fields), UNNAMED)
    names = _class_names(written)
    if (found := _place(fields)) is None:
        if names:  # a record of neither class nor box says that the picture shows nothing
            entry.shapes.note(f"{place} {names[0]!r} without a box left out")
        return
    if len(names) != 1:
        raise InputError(f"an object needs one class (found {str(written)[:80]})")
    (x1, y1, x2, y2), has_corners = found
    if kind == "corner and size" and not has_corners:
        x2, y2 = x1 + x2, y1 + y2
    if x1 > x2 or y1 > y2:
        entry.shapes.note(f"{place} the box was reversed; put right")
    box = bounding_box([(x1, y1), (x2, y2)])
    entry.shapes.add_unless_empty(Shape(names[0], from_shares(box, entry) if in_shares else box), place)
