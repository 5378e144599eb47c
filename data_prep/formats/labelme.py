"""Read LabelMe annotations (github.com/wkentaro/labelme) and those of tools that write the same layout.

The format: one JSON for each image, beside it and named like it: `shapes` (each with `label`, `shape_type`,
`points` in pixels), `imagePath`, `imageWidth`, `imageHeight`, `flags` of the image, and often the image
itself once more as `imageData`, which is never read here (labelme/_label_file.py, labelme/utils/shape.py).
LabelMe rotates an image as its EXIF says before it is drawn on, so its points are on the upright image.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.layout import OtherFormatError, note_unused, read_files, set_groups_and_splits
from data_prep.formats.outlines import Point, bounding_box, polygon_area
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import NoImageError, SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.images import MAX_PIXELS

NAME = "labelme"
_DETECT_BYTES = 1 << 16

_IGNORE = "__ignore__"  # what LabelMe's own converters leave out, whatever it outlines
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_OUTLINES = ("polygon", "oriented_rectangle", "rotation")  # the last is X-AnyLabeling's rotated rectangle
_WITH_AREA = ("rectangle", "circle", "mask", *_OUTLINES)
# Keys in LabelMe's own order put `shapes` first, sorted keys put `imageData`.
_START = re.compile(
    rb'\A(?:\xef\xbb\xbf)?\s*\{(?=.*"(?:shapes"\s*:\s*\[|imagePath"\s*:|imageData"\s*:))', re.S
)


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like LabelMe, None if it does not."""
    count = sum(_is_labelme(path) for path in folder.named(".json"))
    return f'{count} JSON file(s) with LabelMe\'s "shapes"' if count else None


def _is_labelme(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(_DETECT_BYTES)) is not None
    except OSError:
        return False


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every LabelMe file in the folder or below and find its image.

    Returns:
        The source and the problems, one line each (unreadable JSON, JSON without its image); a caller that
        gets problems must not go on.

    Raises:
        InputError: The folder holds no LabelMe files.
    """
    files, others, problems = read_files(folder.named(".json"), _read_file)
    notes: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    for path, content in files:
        try:
            image = folder.image_of(path, *_image_names(path, content.annotation))
            pairs.append((image, content.annotation))
            written = PureWindowsPath(content.annotation.image)
            if written.stem.casefold() != image.stem.casefold():
                notes.append(
                    f"{path}: imagePath names {written.name!r}; taken as {image.name}'s by its own name"
                )
        except NoImageError as error:
            remedy = "; name the pictures' folder with --image-folder"
            if content.embeds_image:
                remedy += ", or extract the picture from the file's imageData (labelme_export_json does)"
            problems.append(f"{error}{remedy}")
        except InputError as error:
            problems.append(str(error))
    if not pairs and not problems:
        raise InputError(f"{folder.root}: no LabelMe annotations (*.json with shapes) in it or below")
    notes += note_unused(folder, others, "JSON file(s) that are not LabelMe")
    source = make_source(folder, NAME, pairs, notes)
    set_groups_and_splits(source, folder)
    return source, problems


def _image_names(path: Path, annotation: Annotation) -> tuple[str, str]:
    """Return the names under which to look for the image, the likeliest first.

    LabelMe names a file like its image. `imagePath`, which knows the suffix, comes first where it agrees;
    where it does not, it is left over from a copy or a renaming.
    """
    agrees = PureWindowsPath(annotation.image).stem.casefold() == path.stem.casefold()
    return (annotation.image, path.stem) if agrees else (path.stem, annotation.image)


@dataclass(frozen=True)
class _LabelMeFile:
    annotation: Annotation
    embeds_image: bool


def read_annotation(file: Path) -> Annotation:
    """Read one JSON file. InputError naming it and the shape if it is not LabelMe or has an unreadable shape.

    Polygons, circles and masks become their boxes, with the area they cover. Points and lines have no area
    and are left out with a note. Flags of the image that are true become its labels.
    """
    return _read_file(file).annotation


def _read_file(file: Path) -> _LabelMeFile:
    data = read_json(file)
    if not isinstance(data, dict) or "shapes" not in data:
        raise OtherFormatError(f'{file}: not LabelMe (it has no "shapes")')
    if not isinstance(data["shapes"], list):
        raise InputError(f'{file}: "shapes" is not a list')
    shapes = ShapeCollector()
    read = [
        _read_shape(item, f"{file}: shape {position}", shapes)
        for position, item in enumerate(data["shapes"], start=1)
    ]
    if joined := shapes.add_parts(part for part in read if part is not None):
        shapes.note(f"{file}: {joined} object(s) joined of several shapes by their group_id")
    shapes.note_left_out(f"{file}: shapes left out")
    path = data.get("imagePath")
    annotation = Annotation(
        file,
        path if isinstance(path, str) else "",
        parse_size(data.get("imageWidth"), data.get("imageHeight")),
        shapes.shapes,
        _labels(file, data.get("flags")),
        notes=tuple(shapes.notes),
    )
    return _LabelMeFile(annotation, isinstance(data.get("imageData"), str))


def _labels(file: Path, flags: Any) -> tuple[str, ...]:
    if not isinstance(flags, dict):
        return ()
    labels = [parse_class_name(name) for name, is_set in flags.items() if is_set is True]
    if None in labels:
        raise InputError(f'{file}: "flags" has one without a readable name')
    return tuple(label for label in labels if label is not None)


def _read_shape(item: Any, place: str, shapes: ShapeCollector) -> tuple[Shape, str, str | None] | None:
    """Return a shape, its place and its group; None for one that is left out, which `shapes` counts.

    Shapes of one label in one group are parts of one object (labelme's own labelme2coco.py joins them).
    """
    if not isinstance(item, dict):
        raise InputError(f"{place} is {type(item).__name__}, expected an object")
    class_name = parse_class_name(item.get("label"))
    if class_name is None:
        raise InputError(f'{place} has no readable "label" (found {item.get("label")!r})')
    kind = item.get("shape_type") or "polygon"  # files of LabelMe 3 and earlier do not say
    place = f"{place} ({class_name})"
    group = item.get("group_id")
    if class_name == _IGNORE:
        shapes.leave_out(f"labelled {_IGNORE}")
    elif kind in _WITHOUT_AREA:
        shapes.leave_out(kind)
    elif (shape := _shape(place, class_name, kind, item)) is None:
        shapes.leave_out("empty mask")
    else:
        return shape, place, None if group in (None, "") else str(group)
    return None


def _shape(place: str, class_name: str, kind: Any, item: dict[str, Any]) -> Shape | None:
    """Return the shape of an item of `shapes`, None for a mask without a set pixel.

    Args:
        place: The item's place in the file, for messages.
        class_name: Its label.
        kind: Its `shape_type`.
        item: The item, for its points and mask.

    Raises:
        InputError: The kind is unknown, or the points or the mask are not readable.
    """
    if kind not in _WITH_AREA:
        raise InputError(f"{place}: unknown shape_type {kind!r}; redraw it as a polygon or remove it")
    points = _points(place, item.get("points"))
    if kind == "rectangle":  # opposite corners in any order; X-AnyLabeling writes all four
        if len(points) not in (2, 4):
            raise InputError(f"{place}: a rectangle has 2 or 4 points, not {len(points)}")
        return Shape(class_name, bounding_box(points))
    if kind in _OUTLINES:
        if len(points) < 3:
            raise InputError(f"{place}: a {kind} has at least 3 points, not {len(points)}")
        return Shape(class_name, bounding_box(points), polygon_area(points))
    if len(points) != 2:
        raise InputError(f"{place}: a {kind} has 2 points, not {len(points)}")
    if kind == "circle":
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return Shape(class_name, (x - radius, y - radius, x + radius, y + radius), math.pi * radius**2)
    outline = _mask_outline(place, item.get("mask"), bounding_box(points))
    return None if outline is None else Shape(class_name, *outline)


def _points(place: str, written: Any) -> list[Point]:
    points: list[Point] = []
    for point in written if isinstance(written, list) else []:
        x, y = map(parse_number, point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is None or y is None:
            raise InputError(f"{place}: unreadable point {str(point)[:60]!r}")
        points.append((x, y))
    if not points:
        raise InputError(f'{place} has no "points"')
    return points


def _mask_outline(place: str, text: Any, extent: Box) -> tuple[Box, float] | None:
    """Return the box and area of a mask, None if no pixel is set.

    `text` is a PNG in base64, not 0 where the object is, whose first and last pixels lie at the corners of
    `extent`.
    """
    if not isinstance(text, str):
        raise InputError(f'{place}: has no "mask"')
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{place}: a mask of {width}x{height} pixels is too large to be one")
            if abs(width - 1 - (extent[2] - extent[0])) > 1 or abs(height - 1 - (extent[3] - extent[1])) > 1:
                raise InputError(f"{place}: its mask of {width}x{height} pixels does not fit its points")
            if opened.mode not in ("1", "L"):
                raise InputError(f"{place}: its mask is no grey PNG (mode {opened.mode})")
            mask = opened.convert("L")
    except (binascii.Error, OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error) as error:
        raise InputError(f"{place}: its mask is no whole PNG in base64 ({error})") from None
    inner = mask.getbbox()
    if inner is None:
        return None
    left, top = int(extent[0]), int(extent[1])
    box = (float(left + inner[0]), float(top + inner[1]), float(left + inner[2]), float(top + inner[3]))
    return box, float(width * height - mask.histogram()[0])
