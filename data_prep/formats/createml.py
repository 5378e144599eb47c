"""Read Create ML annotations: a JSON list with an item for each image.

The format (https://developer.apple.com/documentation/createml/building-an-object-detector-data-source):
`[{"image": "a.jpg", "annotations": [{"label": ..., "coordinates": {"x", "y", "width", "height"}}]}]`, in
pixels, where x and y are the **centre** of the box. Older files write `imagefilename` and `annotation`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.fields import parse_class_name, parse_number
from data_prep.formats.image_lists import ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.json_stream import stream_items

NAME = "createml"
_IMAGE_KEYS = ("image", "imagefilename", "filename")
_LIST_KEYS = ("annotations", "annotation")
_START = re.compile(
    rb'\A(?:\xef\xbb\xbf)?\s*\[\s*\{(?=.*"(?:image|imagefilename)"\s*:\s*")(?=.*"annotations?"\s*:\s*\[)'
    rb'(?=.*"coordinates"\s*:\s*\{)',
    re.S,
)


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Create ML, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} JSON file(s) with Create ML's annotations and coordinates" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every Create ML file in the folder or below. An image without annotations shows nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    return read_image_lists(folder, NAME, _find_files(folder), _read_file, "Create ML file(s) (*.json)")


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json") if _is_createml(path)]


def _is_createml(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(1 << 16)) is not None
    except OSError:
        return False


def _read_file(content: ImageList) -> None:
    for line, item, error in stream_items(content.file):
        if error:
            content.add_problem(f"line {line}", error)
            continue
        try:
            _read_item(content, line, item)
        except InputError as unreadable:
            content.add_problem(f"line {line}", unreadable)


def _read_item(content: ImageList, line: int, item: Any) -> None:
    """Add an item's shapes to its image. InputError if it is not readable."""
    fields = item if isinstance(item, dict) else {}
    name = next((fields[key] for key in _IMAGE_KEYS if isinstance(fields.get(key), str)), "")
    annotations = next((fields[key] for key in _LIST_KEYS if isinstance(fields.get(key), list)), None)
    if not name or annotations is None:
        raise InputError("an item needs image and annotations")
    if (entry := content.entry(name)) is None:
        return
    for number, annotation in enumerate(annotations, start=1):
        label = parse_class_name(annotation.get("label")) if isinstance(annotation, dict) else None
        if label is None:
            raise InputError(f"annotation {number} has no label")
        place = annotation.get("coordinates")
        if place is None:  # of the image as a whole
            entry.labels[label] = None
            continue
        keys = ("x", "y", "width", "height")
        values = [parse_number(place.get(key)) if isinstance(place, dict) else None for key in keys]
        x, y, width, height = values
        if x is None or y is None or width is None or height is None:
            raise InputError(f"annotation {number} ({label}) has no readable coordinates")
        box = bounding_box([(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)])
        entry.shapes.add_unless_empty(Shape(label, box), f"{content.file}, line {line}: {number} ({label}):")
