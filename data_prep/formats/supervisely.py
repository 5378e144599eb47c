"""Read Supervisely projects: a JSON for each image, in a folder `ann` beside `img`.

The format (https://docs.supervisely.com/data-organization/00_ann_format_navi): `<data set>/ann/a.jpg.json`
with `size`, `tags` and `objects`, each with `classTitle`, `geometryType` and `points` (`exterior`,
`interior`) in pixels; a `bitmap` has `data`, a PNG that is compressed and in base64, and `origin`, where its
top left pixel is. `meta.json` at the top lists the classes; it is not needed.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import pair_with_images
from data_prep.formats.layout import OtherFormatError, note_unused, read_files, require_images
from data_prep.formats.outlines import Point, bounding_box, polygon_area
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.images import MAX_PIXELS

NAME = "supervisely"
_WITHOUT_AREA = ("point", "line", "graph", "multichannelbitmap", "cuboid", "any")
_MAX_BYTES = 1 << 24  # of a mask's PNG


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Supervisely, None if it does not."""
    count = sum(_is_supervisely(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with Supervisely's objects and size" if count else None


def _is_supervisely(path: Path) -> bool:
    """Judge by the folder or the name, and the keys."""
    if path.parent.name != "ann" and Path(path.stem).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError:
        return False
    return start.lstrip().startswith(b"{") and b'"objects"' in start and b'"size"' in start


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every annotation in the folder or below and find its image. Tags are labels of the image.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no annotations or no images.
    """
    files = [path for path in folder.named(".json") if _is_supervisely(path)]
    if not files:
        raise InputError(f"{folder.root}: no Supervisely annotations (ann/*.json) in it or below")
    require_images(folder, f"{folder.root}: {len(files)} Supervisely file(s)")
    annotations, others, problems = read_files(files, read_annotation)
    notes = note_unused(folder, others, "JSON file(s) that are not Supervisely")
    return pair_with_images(folder, NAME, annotations, problems, notes), problems


def read_annotation(file: Path) -> Annotation:
    """Read one JSON file. InputError naming it and the object if it is not readable."""
    data = read_json(file)
    objects = data.get("objects") if isinstance(data, dict) else None
    if not isinstance(objects, list):
        raise OtherFormatError(f"{file}: not Supervisely (it has no list of objects)")
    shapes = ShapeCollector()
    for position, item in enumerate(objects, start=1):
        place = f"{file}: object {position}"
        try:
            _add_object(item, place, shapes)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    shapes.note_left_out(f"{file}: left out")
    size = data.get("size") if isinstance(data.get("size"), dict) else {}
    tags = data.get("tags") if isinstance(data.get("tags"), list) else []
    labels = [parse_class_name(tag.get("name") if isinstance(tag, dict) else tag) for tag in tags]
    return Annotation(
        file,
        size=parse_size(size.get("width"), size.get("height")),
        shapes=shapes.shapes,
        labels=tuple(dict.fromkeys(label for label in labels if label)),
        notes=tuple(shapes.notes),
    )


def _add_object(item: Any, place: str, shapes: ShapeCollector) -> None:
    """Add an object; `place` is for notes. InputError, without the place, if it is not readable."""
    fields = item if isinstance(item, dict) else {}
    name = parse_class_name(fields.get("classTitle"))
    if name is None:
        raise InputError("has no classTitle")
    kind = fields.get("geometryType") or ("bitmap" if fields.get("bitmap") else "polygon")
    if str(kind).casefold() in _WITHOUT_AREA:
        shapes.leave_out(str(kind))
    elif (outline := _outline(fields, kind)) is None:
        shapes.leave_out("empty bitmap")
    else:
        shapes.add_unless_empty(Shape(name, *outline), f"{place} ({name})")


def _outline(fields: dict[str, Any], kind: Any) -> tuple[Box, float | None] | None:
    """Return the box and area of an object, None for an empty bitmap."""
    if kind == "bitmap":
        return _bitmap_outline(fields.get("bitmap"))
    points = fields.get("points")
    if not isinstance(points, dict):
        raise InputError("has no points")
    exterior = _points(points.get("exterior"))
    if kind == "rectangle" and len(exterior) >= 2:
        return bounding_box(exterior), None
    if kind == "polygon" and len(exterior) >= 3:
        holes = points.get("interior")
        inner = sum(polygon_area(_points(hole)) for hole in holes) if isinstance(holes, list) else 0
        return bounding_box(exterior), max(0.0, polygon_area(exterior) - inner)
    if kind not in ("rectangle", "polygon"):
        raise InputError(f"of an unknown geometryType ({str(kind)[:40]!r})")
    raise InputError(f"a {kind} of {len(exterior)} point(s)")


def _points(written: Any) -> list[Point]:
    points: list[Point] = []
    for point in written if isinstance(written, list) else []:
        x, y = map(parse_number, point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is None or y is None:
            raise InputError(f"unreadable point {str(point)[:60]!r}")
        points.append((x, y))
    return points


def _bitmap_outline(bitmap: Any) -> tuple[Box, float] | None:
    """Return the box and area of the pixels that are set, None if none is."""
    fields = bitmap if isinstance(bitmap, dict) else {}
    origin, text = _points([fields.get("origin")]), fields.get("data")
    if not isinstance(text, str):
        raise InputError("its bitmap has no data")
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text), _MAX_BYTES)
        with Image.open(BytesIO(data), formats=["PNG"]) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InputError("its bitmap is too large to be one")
            mask = opened.getchannel("A") if "A" in opened.getbands() else opened.convert("L")
    except (binascii.Error, zlib.error, OSError, SyntaxError, ValueError, EOFError, KeyError) as error:
        raise InputError(f"its bitmap is no whole PNG ({error})") from None
    except struct.error:
        raise InputError("its bitmap is no whole PNG") from None
    inner = mask.getbbox()
    if inner is None:
        return None
    (left, top), (x1, y1, x2, y2) = origin[0], inner
    area = float(mask.width * mask.height - mask.histogram()[0])
    return (left + x1, top + y1, left + x2, top + y2), area
