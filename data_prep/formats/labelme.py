"""LabelMe annotations (github.com/wkentaro/labelme) and those of tools that write the same layout.

The format: one JSON per picture, beside it and named like it: `shapes` (each with `label`, `shape_type`,
`points` in pixels), `imagePath`, `imageWidth`, `imageHeight`, `flags` of the picture, and often the picture
itself once more as `imageData`, which is never read here (labelme/_label_file.py, labelme/utils/shape.py).
LabelMe turns a picture as its EXIF says before it is drawn on, so its points are on the upright picture.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.layout import OtherFormatError, passed_over, read_each, set_groups_and_splits
from data_prep.formats.outlines import Point, bounds, name_of, number, polygon_area, size
from data_prep.source_folder import NoImageError, SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.images import MAX_PIXELS

NAME = "labelme"

_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_OUTLINES = ("polygon", "oriented_rectangle", "rotation")  # the last is X-AnyLabeling's turned rectangle
_WITH_AREA = ("rectangle", "circle", "mask", *_OUTLINES)
# Keys in LabelMe's own order put `shapes` first, sorted keys put `imageData`.
_START = re.compile(
    rb'\A(?:\xef\xbb\xbf)?\s*\{(?=.*"(?:shapes"\s*:\s*\[|imagePath"\s*:|imageData"\s*:))', re.S
)


@dataclass(frozen=True)
class _File:
    annotation: Annotation
    embedded: bool  # does it hold the picture itself?


def read_annotation(file: Path) -> Annotation:
    """Read one JSON file; InputError naming it and the shape if it is not LabelMe or has an unreadable shape.

    Polygons, circles and masks become their boxes, with the area they cover. Points and lines have no area
    and are left out with a note. Flags of the picture that are true become its labels.
    """
    return _read(file).annotation


def _read(file: Path) -> _File:
    data = read_json(file)
    if not isinstance(data, dict) or "shapes" not in data:
        raise OtherFormatError(f'{file}: not LabelMe (it has no "shapes")')
    if not isinstance(data["shapes"], list):
        raise InputError(f'{file}: "shapes" is not a list')
    notes: list[str] = []
    shapes: list[Shape] = []
    left_out: Counter[str] = Counter()
    for place, item in enumerate(data["shapes"], start=1):
        where = f"{file}: shape {place}"
        if not isinstance(item, dict):
            raise InputError(f"{where} is {type(item).__name__}, expected an object")
        name = name_of(item.get("label"))
        if name is None:
            raise InputError(f'{where} has no readable "label" (found {item.get("label")!r})')
        kind = item.get("shape_type") or "polygon"  # files of LabelMe 3 and earlier do not say
        shape = None if kind in _WITHOUT_AREA else _shape(f"{where} ({name})", name, kind, item)
        if shape is None:
            left_out["empty mask" if kind == "mask" else kind] += 1
        elif shape in shapes:
            notes.append(f"{where} ({name}) is there twice; kept once")
        else:
            shapes.append(shape)
    if left_out:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"{file}: shapes without an area left out: {listed}")
    path = data.get("imagePath")
    annotation = Annotation(
        file,
        path if isinstance(path, str) else "",
        size(data.get("imageWidth"), data.get("imageHeight")),
        tuple(shapes),
        _flags(file, data.get("flags")),
        notes=tuple(notes),
    )
    return _File(annotation, isinstance(data.get("imageData"), str))


def _flags(file: Path, flags: Any) -> tuple[str, ...]:
    if not isinstance(flags, dict):
        return ()
    labels = [name_of(name) for name, set_ in flags.items() if set_ is True]
    if None in labels:
        raise InputError(f'{file}: "flags" has one without a readable name')
    return tuple(label for label in labels if label is not None)


def _shape(where: str, name: str, kind: Any, item: dict[str, Any]) -> Shape | None:
    """None for a mask without a set pixel."""
    if kind not in _WITH_AREA:
        raise InputError(f"{where}: unknown shape_type {kind!r}; redraw it as a polygon or remove it")
    points = _points(where, item.get("points"))
    if kind == "rectangle":  # opposite corners in any order; X-AnyLabeling writes all four
        if len(points) not in (2, 4):
            raise InputError(f"{where}: a rectangle has 2 or 4 points, not {len(points)}")
        return Shape(name, bounds(points))
    if kind in _OUTLINES:
        if len(points) < 3:
            raise InputError(f"{where}: a {kind} has at least 3 points, not {len(points)}")
        return Shape(name, bounds(points), polygon_area(points))
    if len(points) != 2:
        raise InputError(f"{where}: a {kind} has 2 points, not {len(points)}")
    if kind == "circle":
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return Shape(name, (x - radius, y - radius, x + radius, y + radius), math.pi * radius**2)
    found = _mask(where, item.get("mask"), bounds(points))
    return None if found is None else Shape(name, *found)


def _points(where: str, written: Any) -> list[Point]:
    points: list[Point] = []
    for point in written if isinstance(written, list) else []:
        x, y = map(number, point) if isinstance(point, list) and len(point) == 2 else (None, None)
        if x is None or y is None:
            raise InputError(f"{where}: unreadable point {str(point)[:60]!r}")
        points.append((x, y))
    if not points:
        raise InputError(f'{where} has no "points"')
    return points


def _mask(where: str, text: Any, span: Box) -> tuple[Box, float] | None:
    """Box and area of a mask: a PNG in base64, not 0 where the object is, whose first and last pixels lie at
    the corners of `span`."""
    if not isinstance(text, str):
        raise InputError(f'{where}: has no "mask"')
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{where}: a mask of {width}x{height} pixels is too large to be one")
            if abs(width - 1 - (span[2] - span[0])) > 1 or abs(height - 1 - (span[3] - span[1])) > 1:
                raise InputError(f"{where}: its mask of {width}x{height} pixels does not fit its points")
            if opened.mode not in ("1", "L"):
                raise InputError(f"{where}: its mask is no grey PNG (mode {opened.mode})")
            mask = opened.convert("L")
    except (binascii.Error, OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error) as error:
        raise InputError(f"{where}: its mask is no whole PNG in base64 ({error})") from None
    inner = mask.getbbox()
    if inner is None:
        return None
    left, top = int(span[0]), int(span[1])
    box = (float(left + inner[0]), float(top + inner[1]), float(left + inner[2]), float(top + inner[3]))
    return box, float(width * height - mask.histogram()[0])


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like LabelMe, None if it does not."""
    count = sum(_is_labelme(path) for path in folder.named(".json"))
    return f'{count} JSON file(s) with LabelMe\'s "shapes"' if count else None


def _is_labelme(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(4096)) is not None
    except OSError:
        return False


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every LabelMe file anywhere below the folder, joined with its picture.

    Returns the source and one line per problem (unreadable JSON, JSON without its picture); a caller that
    gets problems must not go on. InputError for a folder without LabelMe files or pictures.
    """
    files, others, problems = read_each(folder.named(".json"), _read)
    notes: list[str] = []
    found: list[tuple[Path, Annotation]] = []
    for path, held in files:
        try:
            image = folder.image_of(path, *_names(path, held.annotation))
            found.append((image, held.annotation))
            if (named := PureWindowsPath(held.annotation.image)).stem.casefold() != image.stem.casefold():
                notes.append(
                    f"{path}: imagePath names {named.name!r}; taken as {image.name}'s by its own name"
                )
        except NoImageError as error:
            remedy = "; name the pictures' folder with --image-folder"
            if held.embedded:
                remedy += ", or extract the picture from the file's imageData (labelme_export_json does)"
            problems.append(f"{error}{remedy}")
        except InputError as error:
            problems.append(str(error))
    if not found and not problems:
        raise InputError(f"{folder.root}: no LabelMe annotations (*.json with shapes) in it or below")
    notes += passed_over(folder, others, "JSON file(s) that are not LabelMe")
    source = make_source(folder, NAME, found, notes)
    set_groups_and_splits(source, folder)
    return source, problems


def _names(path: Path, annotation: Annotation) -> tuple[str, str]:
    """LabelMe names a file like its picture. `imagePath`, which knows the suffix, is asked first where it
    agrees; where it does not, it is left over from a copy or a renaming."""
    agrees = PureWindowsPath(annotation.image).stem.casefold() == path.stem.casefold()
    return (annotation.image, path.stem) if agrees else (path.stem, annotation.image)
