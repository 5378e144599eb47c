"""Read IDID, EPRI's Insulator Defect Image Dataset: one JSON file with a box and conditions for each disc.

The format (D. Lewis and P. Kulkarni, "Insulator Defect Detection", IEEE DataPort, 2021; `labels_v1.2.json`):
a list of `{"filename": "1.JPG", "Labels": {"objects": [{"name": "insulator", "bbox": [x, y, width, height],
"string": 0, "conditions": {"shell": "Broken"}}]}}`, boxes in pixels. `string` is 1 for the box of a whole
string, which has no conditions. The images of the set come four times: as taken and, with d, h or v after
the number, turned and mirrored; the number is their group.

The rules here. A whole string is a Shape `string`. A disc is a Shape named by its condition, `broken`
(shell), `flashover` (glaze) or `good` (no issues, or notbroken-notflashed: none of the two, whatever else it
has); one that is both broken and flashed is two Shapes of the same box. A disc of which nothing is stated is
a Shape `disc`, with a note. A condition not known here is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_number
from data_prep.formats.layout import require_images
from data_prep.formats.outlines import bounding_box
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json

NAME = "idid"
_STRING, _DISC, _GOOD = "string", "disc", "good"
# The conditions in the file without case, blanks and hyphens -> the names of Shapes here.
_CONDITIONS = {
    "broken": "broken",
    "flashoverdamage": "flashover",
    "flashover": "flashover",
    "noissues": _GOOD,
    "good": _GOOD,
    "notbrokennotflashed": _GOOD,
    "notbrokennotflashover": _GOOD,
}
_VIEW = re.compile(r"(\d+)[dhv]?", re.IGNORECASE)


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like IDID, None if it does not."""
    count = sum(_is_idid(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with Labels and objects as in IDID" if count else None


def _is_idid(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return start.startswith(b"[") and re.search(rb'"Labels"\s*:\s*\{\s*"objects"\s*:', start) is not None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every IDID file in the folder or below and find its images.

    Returns:
        The source and the problems, one line each (a record that cannot be read or has no image); a caller
        that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    files = [path for path in folder.named(".json") if _is_idid(path)]
    if not files:
        raise InputError(f"{folder.root}: no IDID labels (labels_v1.2.json) in it or below")
    require_images(folder, f"{folder.root}: {len(files)} IDID file(s)")
    problems: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    for file in files:
        try:
            records = _read_records(file)
        except InputError as error:
            problems.append(str(error))
            continue
        owners: dict[Path, str] = {}
        for index, record in enumerate(records):
            try:
                annotation = read_record(file, index, record)
                pairs.append((folder.image_of(file, annotation.image, owners=owners), annotation))
            except InputError as error:
                problems.append(str(error))
    if not pairs and not problems:
        raise InputError(f"{folder.root}: {files[0].name} lists no picture")
    source = make_source(folder, NAME, pairs)
    for image in source.images:
        if view := _VIEW.fullmatch(image.file.stem):
            image.group = view[1]
    return source, problems


def _read_records(file: Path) -> list[Any]:
    records = read_json(file)
    if not isinstance(records, list):
        raise InputError(f"{file}: expected a list of pictures, found {type(records).__name__}")
    return records


def read_record(file: Path, index: int, record: Any) -> Annotation:
    """Read one image's record. InputError naming the file, the record and the field that is wrong."""
    place = f"{file}, record {index}"
    name = record.get("filename") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{place}: no filename")
    place = f"{file}, record {index} ({name.strip()!r})"
    labels = record.get("Labels")
    objects = labels.get("objects") if isinstance(labels, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{place}: no list Labels.objects")
    shapes = ShapeCollector()
    for position, item in enumerate(objects):
        object_place = f"{place}, object {position}"
        if not isinstance(item, dict):
            raise InputError(f"{object_place}: expected an object, found {type(item).__name__}")
        box = _box(object_place, item.get("bbox"), shapes.notes)
        for class_name in _class_names(object_place, item, shapes.notes):
            shapes.add(Shape(class_name, box), f"{object_place} ({class_name!r}):")
    return Annotation(file, name.strip(), None, shapes.shapes, notes=tuple(shapes.notes))


def _box(place: str, written: Any, notes: list[str]) -> Box:
    numbers = [parse_number(value) for value in written] if isinstance(written, list) else []
    x, y, width, height = numbers if len(numbers) == 4 else [None] * 4
    if x is None or y is None or width is None or height is None:
        raise InputError(f"{place}: bbox must be four numbers [x, y, width, height]")
    if width < 0 or height < 0:
        notes.append(f"{place}: box was reversed; put right")
    return bounding_box([(x, y), (x + width, y + height)])


def _class_names(place: str, item: dict[str, Any], notes: list[str]) -> list[str]:
    """Return the names of the Shapes that one object becomes, by the rules in the module's docstring."""
    conditions = item.get("conditions")
    if conditions is not None and not isinstance(conditions, dict):
        raise InputError(f"{place}: conditions must be an object such as {{'shell': 'Broken'}}")
    names = []
    for key, value in (conditions or {}).items():
        plain = re.sub(r"[\s_-]+", "", value).casefold() if isinstance(value, str) else None
        if plain not in _CONDITIONS:
            raise InputError(
                f"{place}: unknown condition {key!r}: {value!r}; "
                "known are Broken, Flashover damage, No issues and notbroken-notflashed"
            )
        names.append(_CONDITIONS[plain])
    if _is_string(place, item.get("string", 0)):
        if names:
            notes.append(f"{place}: conditions of a whole string ({', '.join(names)}) not used")
        return [_STRING]
    if not names:
        notes.append(f"{place}: no condition stated; called {_DISC!r}")
        return [_DISC]
    return [name for name in dict.fromkeys(names) if name != _GOOD] or [_GOOD]


def _is_string(place: str, value: Any) -> bool:
    if value in (0, 1, "0", "1"):  # True and False are 1 and 0
        return int(value) == 1
    raise InputError(f"{place}: string must be 0 or 1, not {value!r}")
