"""Read annotations of the VGG Image Annotator (VIA), JSON and CSV.

The format (A. Dutta and A. Zisserman, "The VIA Annotation Software for Images, Audio and Video", 2019;
https://www.robots.ox.ac.uk/~vgg/software/via/): JSON with an object for each image under its name and size,
`filename` and `regions`, a list or (VIA 1) an object, each with `shape_attributes` (`name` is the kind) and
`region_attributes`; a project has it under `_via_img_metadata`. The CSV has a row for each region with the
same two as JSON in a cell.

VIA has no classes, only attributes that its user named. The class is the attribute that every region has a
value for; of several the one called class, label, name, type or category. Regions without any attribute in
the whole file are all of one class.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.csv_files import find_column, open_csv
from data_prep.formats.fields import parse_class_name, parse_number
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.outlines import Point, bounding_box, ellipse_box, polygon_area
from data_prep.formats.shapes import UNNAMED
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json

NAME = "via"
_CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "class_name", "defect", "object")
_COLUMNS = ("filename", "regionshapeattributes", "regionattributes")
_DETECT_BYTES = 1 << 16
_WITHOUT_AREA = ("point", "polyline", "line")


@dataclass(frozen=True)
class _Region:
    place: str
    entry: ImageEntry
    shape: dict[str, Any]
    attributes: dict[str, str]


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like VIA, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} file(s) with VIA's shape_attributes" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every VIA file in the folder or below. An image without regions shows nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no VIA file or no images.
    """
    return read_image_lists(folder, NAME, _find_files(folder), _read_file, "VIA file(s) (*.json, *.csv)")


def _find_files(folder: SourceFolder) -> list[Path]:
    files = [path for path in folder.named(".json") if _is_via(path)]
    tables = folder.named(".csv")
    return files + [path for path in tables if set(_COLUMNS) <= set(open_csv(path).columns)]


def _is_via(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_DETECT_BYTES)
    except OSError:
        return False
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and (
        b'"_via_img_metadata"' in start or (b'"filename"' in start and b'"regions"' in start)
    )


def _read_file(content: ImageList) -> None:
    is_table = content.file.suffix.lower() == ".csv"
    regions = list(_table_regions(content) if is_table else _json_regions(content))
    attribute = _class_attribute(content, regions)
    for region in regions:
        name = parse_class_name(region.attributes.get(attribute)) if attribute else UNNAMED
        if name is None:
            region.entry.shapes.leave_out("region without a class")
            continue
        if region.shape.get("name") in _WITHOUT_AREA:
            region.entry.shapes.leave_out(str(region.shape["name"]))
            continue
        try:
            shape = Shape(name, *_outline(region.shape))
            region.entry.shapes.add_unless_empty(shape, f"{content.file}, {region.place}:")
        except InputError as error:
            content.add_problem(region.place, error)
    for entry in content.entries:
        entry.shapes.note_left_out(f"{content.file}: {entry.name}: regions left out")


def _json_regions(content: ImageList) -> Iterator[_Region]:
    data = read_json(content.file)
    images = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    if not isinstance(images, dict):
        raise InputError(f"{content.file}: not VIA (expected an object for each picture)")
    for key, image in images.items():
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            content.add_problem(f"image {key[:60]!r}", "has no filename")
            continue
        regions = image.get("regions") or []
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(regions, list):
            content.add_problem(f"image {key[:60]!r}", "its regions are no list")
            continue
        if (entry := content.entry(image["filename"])) is None:
            continue
        for number, region in enumerate(regions, start=1):
            region = region if isinstance(region, dict) else {}
            parts = _parts(region.get("shape_attributes"), region.get("region_attributes"))
            yield _Region(f"{entry.name}, region {number}", entry, *parts)


def _table_regions(content: ImageList) -> Iterator[_Region]:
    table = open_csv(content.file)
    indices = [find_column(table.columns, (name,)) or 0 for name in _COLUMNS]
    for line, cells in table.rows():
        if len(cells) <= max(indices):
            content.add_problem(f"line {line}", f"has {len(cells)} column(s), fewer than the header")
            continue
        name, shape_text, attributes_text = (cells[index] for index in indices)
        entry = content.entry(name)
        try:
            shape, attributes = json.loads(shape_text or "{}"), json.loads(attributes_text or "{}")
        except (ValueError, RecursionError):
            content.add_problem(f"line {line}", "its attributes are not JSON")
            continue
        if entry and shape:  # a picture without regions has a row with {}
            yield _Region(f"line {line}", entry, *_parts(shape, attributes))


def _parts(shape: Any, attributes: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a region's shape, and its attributes with their values as text; of checkboxes those set."""
    texts = {}
    for key, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(value, dict):
            value = ", ".join(str(name) for name, is_set in value.items() if is_set is True)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:g}"
        if isinstance(value, str) and value.strip():
            texts[key] = value
    return shape if isinstance(shape, dict) else {}, texts


def _class_attribute(content: ImageList, regions: list[_Region]) -> str | None:
    """Return the attribute that names classes, None if no region has any. InputError if it cannot be told."""
    counts = Counter(key for region in regions for key in region.attributes)
    if not counts:
        if regions:
            content.notes.append(
                f"{content.file}: its regions have no attributes; all are called {UNNAMED!r}"
            )
        return None
    full = [key for key, count in counts.items() if count == len(regions)] or list(counts)
    if len(full) == 1:
        return full[0]
    by_plain_name = {key.strip().casefold(): key for key in full}
    for name in _CLASS_ATTRIBUTES:
        if name in by_plain_name:
            return by_plain_name[name]
    listed = ", ".join(map(repr, full))
    raise InputError(f"{content.file}: any of the attributes {listed} may be the class; rename it 'class'")


def _outline(shape: dict[str, Any]) -> tuple[Box, float | None]:
    """Return the box and area of `shape_attributes`. InputError, without the place, if not readable."""
    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = _values(shape, "x", "y", "width", "height")
        return bounding_box([(x, y), (x + width, y + height)]), None
    if kind == "circle":
        x, y, radius = _values(shape, "cx", "cy", "r")
        return ellipse_box((x, y), (radius, radius), 0), math.pi * radius**2
    if kind == "ellipse":
        x, y, across, down = _values(shape, "cx", "cy", "rx", "ry")
        degrees = math.degrees(parse_number(shape.get("theta")) or 0)
        return ellipse_box((x, y), (across, down), degrees), abs(math.pi * across * down)
    if kind == "polygon":
        points = _points(shape)
        return bounding_box(points), polygon_area(points)
    raise InputError(f"a region of an unknown kind ({str(kind)[:40]!r}); redraw it as a polygon")


def _values(shape: dict[str, Any], *keys: str) -> list[float]:
    values = [parse_number(shape.get(key)) for key in keys]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise InputError(f"a {shape.get('name')} without readable {', '.join(keys)}")
    return known


def _points(shape: dict[str, Any]) -> list[Point]:
    written = [shape.get(key) for key in ("all_points_x", "all_points_y")]
    xs, ys = (
        [parse_number(part) for part in values] if isinstance(values, list) else [] for values in written
    )
    points = [(x, y) for x, y in zip(xs, ys, strict=False) if x is not None and y is not None]
    if len(points) < 3 or not len(points) == len(xs) == len(ys):
        raise InputError("a polygon without at least three readable points")
    return points
