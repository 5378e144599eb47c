"""Read Datumaro's JSON, which CVAT exports too.

The format (https://open-edge-platform.github.io/datumaro, data formats, Datumaro): a file for each subset,
with `categories.label.labels` and `items`, each with `id`, `image` (`path`, `size` as [height, width]) and
`annotations` of a `type`: `bbox` [x, y, width, height] in pixels, `polygon` with `points` in a flat list,
`mask` in COCO's run lengths, `label` of the image. `label_id` is an index into the labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.coco_masks import mask_outline
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box, polygon_area, rotated_corners
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json

NAME = "datumaro"
_WITHOUT_AREA = ("points", "polyline", "caption", "cuboid_3d")
_DETECT_BYTES = 1 << 16


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Datumaro, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} JSON file(s) with Datumaro's categories and items" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every Datumaro file in the folder or below. An item without annotations shows nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    return read_image_lists(folder, NAME, _find_files(folder), _read_file, "Datumaro file(s) (*.json)")


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json") if _is_datumaro(path)]


def _is_datumaro(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_DETECT_BYTES)
    except OSError:
        return False
    return (
        b'"categories"' in start  # quickly false for most JSON
        and re.match(rb"(?:\xef\xbb\xbf)?\s*\{", start) is not None
        and re.search(rb'"categories"\s*:\s*\{', start) is not None
        and re.search(rb'"label"\s*:\s*\{\s*"labels"\s*:\s*\[|"items"\s*:\s*\[', start) is not None
    )


def _read_file(content: ImageList) -> None:
    data = read_json(content.file)
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise InputError(f"{content.file}: not Datumaro (it has no list of items)")
    names = _label_names(data)
    for number, item in enumerate(items, start=1):
        place = f"item {number}"
        name = _image_name(item)
        if name is None:
            content.add_problem(place, "names no picture")
        elif entry := content.entry(name):
            image = _image(item)
            size = image.get("size") if isinstance(image, dict) else None
            entry.size = parse_size(size[1], size[0]) if isinstance(size, list) and len(size) == 2 else None
            annotations = item.get("annotations")
            for index, annotation in enumerate(annotations if isinstance(annotations, list) else [], start=1):
                try:
                    _add_annotation(entry, annotation, names, f"{content.file}, {place}, annotation {index}")
                except InputError as error:
                    content.add_problem(f"{place}, annotation {index}", error)
            entry.shapes.note_left_out(f"{content.file}, {place}: left out")


def _label_names(data: dict[str, Any]) -> list[str | None]:
    categories = data.get("categories")
    label = categories.get("label") if isinstance(categories, dict) else None
    labels = label.get("labels") if isinstance(label, dict) else None
    return [
        parse_class_name(entry.get("name")) if isinstance(entry, dict) else None
        for entry in (labels if isinstance(labels, list) else [])
    ]


def _image(item: Any) -> Any:
    """Return an item's `image`; newer files call it `media`."""
    return item.get("image", item.get("media")) if isinstance(item, dict) else None


def _image_name(item: Any) -> str | None:
    """Return the image's path, or the item's id where that is empty."""
    image = _image(item)
    written = [image.get("path") if isinstance(image, dict) else None]
    written.append(item.get("id") if isinstance(item, dict) else None)
    return next((name for name in written if isinstance(name, str) and name.strip()), None)


def _add_annotation(entry: ImageEntry, annotation: Any, names: list[str | None], place: str) -> None:
    """Add an annotation to its image; `place` is for notes. InputError if it is not readable."""
    fields = annotation if isinstance(annotation, dict) else {}
    kind, label_id = fields.get("type"), fields.get("label_id")
    if kind in _WITHOUT_AREA:
        entry.shapes.leave_out(str(kind))
        return
    if type(label_id) is not int or not 0 <= label_id < len(names) or (name := names[label_id]) is None:
        raise InputError(f"its label_id {str(label_id)[:20]} is not among {len(names)} labels")
    if kind == "label":
        entry.labels[name] = None
        return
    outline = _outline(fields, kind, entry.size)
    if outline is None:
        entry.shapes.leave_out("empty mask")
    else:
        entry.shapes.add_unless_empty(Shape(name, *outline), f"{place} ({name})")


def _outline(
    fields: dict[str, Any], kind: Any, size: tuple[float, float] | None
) -> tuple[Box, float | None] | None:
    """Return the box and area of an annotation, None for an empty mask."""
    if kind == "bbox":
        x, y, width, height = _numbers(fields.get("bbox"), 4)
        box = bounding_box([(x, y), (x + width, y + height)])
        attributes = fields.get("attributes")
        degrees = parse_number(attributes.get("rotation")) if isinstance(attributes, dict) else None
        if degrees:
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            return bounding_box(rotated_corners(box, degrees, centre)), abs(width * height)
        return box, None
    if kind == "rotated_bbox":
        x, y, width, height, degrees = _numbers(fields.get("bbox"), 5)
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return bounding_box(rotated_corners(corners, degrees, (x, y))), abs(width * height)
    if kind == "polygon":
        numbers = _numbers(fields.get("points"))
        if len(numbers) < 6 or len(numbers) % 2:
            raise InputError("a polygon without at least three points")
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        return bounding_box(points), polygon_area(points)
    if kind == "mask" and isinstance(fields.get("rle"), dict):
        return mask_outline(fields["rle"], size)
    raise InputError(f"of an unknown type ({str(kind)[:40]!r})")


def _numbers(value: Any, count: int | None = None) -> list[float]:
    values = [parse_number(part) for part in value] if isinstance(value, list) else []
    known = [number for number in values if number is not None]
    if len(known) < len(values) or (count is not None and len(known) != count):
        raise InputError("its coordinates are not readable")
    return known
