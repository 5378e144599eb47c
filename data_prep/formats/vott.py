"""Read JSON of VoTT, Microsoft's Visual Object Tagging Tool. Its CSV is a table of boxes (box_tables.py).

The format (github.com/microsoft/VoTT, src/models/applicationState.ts and
src/providers/export/vottJson.ts): a project export with `assets`, or a file `<id>-asset.json` for each image,
each with `asset` (`name`, `path`, `size`) and `regions` of `tags`, `boundingBox` (left, top, width, height)
and `points`. VoTT 1 writes `frames`, image name -> boxes with `x1`, `y1`, `x2`, `y2` and `tags`. A region
with several tags is an object of each class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box, polygon_area
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json

NAME = "vott"
_DETECT_BYTES = 1 << 16
_KEYS = (rb'"asset"\s*:\s*\{', rb'"regions"\s*:\s*\[')


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like VoTT, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} JSON file(s) with VoTT's assets and regions" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every VoTT file in the folder or below.

    Images that VoTT lists as not visited are not annotated; visited ones without regions show nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    return read_image_lists(folder, NAME, _find_files(folder), _read_file, "VoTT file(s) (*.json)")


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json") if _is_vott(path)]


def _is_vott(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_DETECT_BYTES)
    except OSError:
        return False
    is_version_1 = b'"frames"' in start and b'"inputTags"' in start
    is_export = b'"asset"' in start and all(re.search(key, start) for key in _KEYS)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and (is_version_1 or is_export)


def _read_file(content: ImageList) -> None:
    data = read_json(content.file)
    if not isinstance(data, dict):
        raise InputError(f"{content.file}: not VoTT")
    frames = data.get("frames")
    for name, size, regions in _frames(frames) if isinstance(frames, dict) else _assets(content, data):
        if (entry := content.entry(name)) is None:
            continue
        entry.size = size
        for number, region in enumerate(regions, start=1):
            try:
                _add_region(entry, region, f"{content.file}: {name}, region {number}")
            except InputError as error:
                content.add_problem(f"{name}, region {number}", error)
        entry.shapes.note_left_out(f"{content.file}: {name}: regions left out")


def _frames(frames: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float] | None, list[Any]]]:
    for name, regions in frames.items():
        yield unquote(name), None, regions if isinstance(regions, list) else []


def _assets(
    content: ImageList, data: dict[str, Any]
) -> Iterator[tuple[str, tuple[float, float] | None, list[Any]]]:
    """Yield name, size and regions of each image that was visited."""
    listed = data.get("assets", {"": data})
    for key, item in listed.items() if isinstance(listed, dict) else ():
        asset = item.get("asset", item) if isinstance(item, dict) else None
        name = asset.get("name") if isinstance(asset, dict) else None
        if not isinstance(asset, dict) or not isinstance(name, str) or not name.strip():
            content.add_problem(f"asset {key[:60]!r}", "has no name")
        elif "regions" in item or asset.get("state") != 0:
            size, regions = asset.get("size"), item.get("regions")
            stated = parse_size(size.get("width"), size.get("height")) if isinstance(size, dict) else None
            yield unquote(name), stated, regions if isinstance(regions, list) else []


def _add_region(entry: ImageEntry, region: Any, place: str) -> None:
    """Add a region, as an object of each of its tags. InputError if it is not readable."""
    fields = region if isinstance(region, dict) else {}
    written = fields.get("tags")
    tags = [parse_class_name(tag) for tag in written] if isinstance(written, list) else []
    if None in tags:
        raise InputError("a tag that is no text")
    if not tags:
        entry.shapes.leave_out("region without a tag")
        return
    box, area = _outline(fields)
    for tag in tags:
        entry.shapes.add_unless_empty(Shape(tag or "", box, area), f"{place} ({tag})")


def _outline(fields: dict[str, Any]) -> tuple[Box, float | None]:
    box = fields.get("boundingBox", fields.get("box"))
    corners = [parse_number(fields.get(key)) for key in ("x1", "y1", "x2", "y2")]
    if isinstance(box, dict):
        x, y, width, height = (parse_number(box.get(key)) for key in ("left", "top", "width", "height"))
        if x is not None and y is not None and width is not None and height is not None:
            corners = [x, y, x + width, y + height]
    x1, y1, x2, y2 = corners
    if x1 is None or y1 is None or x2 is None or y2 is None:
        raise InputError("a region without a readable boundingBox")
    return bounding_box([(x1, y1), (x2, y2)]), _polygon_area(fields)


def _polygon_area(fields: dict[str, Any]) -> float | None:
    """Return the area of a region that is a polygon, None of a rectangle."""
    points = fields.get("points")
    if str(fields.get("type")).upper() != "POLYGON" or not isinstance(points, list):
        return None
    numbers = [
        (parse_number(point.get("x")), parse_number(point.get("y")))
        for point in points
        if isinstance(point, dict)
    ]
    known = [(x, y) for x, y in numbers if x is not None and y is not None]
    return polygon_area(known) if len(known) > 2 else None
