"""Read CVAT annotations as exported with "CVAT for images 1.1" (docs.cvat.ai, XML annotation format).

The format: one XML, `<annotations>` with an `<image name width height>` for each image, which holds its
shapes, each with a `label`, and a `<tag label>` for each class of the image as a whole. An export of a
project also says the `subset` of each image. Boxes and ellipses may be rotated (`rotation`, clockwise degrees
about their centre). A mask is run lengths, background first, in rows of the rectangle that `left`, `top`,
`width` and `height` state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.layout import (
    OtherFormatError,
    note_unused,
    read_files,
    require_images,
    set_groups_and_splits,
)
from data_prep.formats.outlines import (
    Point,
    bounding_box,
    ellipse_box,
    mask_box,
    polygon_area,
    rotated_box,
)
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.xml import has_root, parse_xml
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError

NAME = "cvat"

_WITHOUT_AREA = ("polyline", "points", "skeleton")
_CUBOID = [(f"x{corner}{face}", f"y{corner}{face}") for face in "12" for corner in ("tl", "bl", "tr", "br")]


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like CVAT, None if it does not."""
    count = sum(has_root(path, "annotations") for path in folder.named(".xml"))
    return f"{count} XML file(s) with <annotations> as root" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every CVAT file in the folder or below and find its images.

    Returns:
        The source and the problems, one line each (unreadable XML, an entry without its image); a caller
        that gets problems must not go on.

    Raises:
        InputError: The folder holds no CVAT files or no images.
    """
    files, others, problems = read_files(folder.named(".xml"), read_entries)
    notes: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    splits: dict[Path, Split] = {}
    for path, (entries, problems_of_file, notes_of_file) in files:
        if entries:
            require_images(folder, f"{path}: speaks of {len(entries)} picture(s)")
        problems += problems_of_file
        notes += notes_of_file
        owners: dict[Path, str] = {}
        for entry in entries:
            try:
                name = entry.annotation.image
                image = folder.image_of(path, name, split=entry.split, owners=owners)
            except InputError as error:
                problems.append(str(error))
                continue
            if entry.split and splits.setdefault(image, entry.split) != entry.split:
                problems.append(f"{path}: {image.name} is in two subsets, {splits[image]} and {entry.split}")
            pairs.append((image, entry.annotation))
    if not pairs and not problems:
        raise InputError(f"{folder.root}: no CVAT annotations (*.xml with <annotations>) in it or below")
    notes += note_unused(folder, others, "XML file(s) that are not CVAT")
    source = make_source(folder, NAME, pairs, notes)
    for annotated in source.images:
        annotated.split = splits.get(annotated.file)
    set_groups_and_splits(source, folder)
    return source, problems


@dataclass(frozen=True)
class Entry:
    """One `<image>`: its annotation, and the split that its subset is, None if it is none."""

    annotation: Annotation
    split: Split | None


def read_entries(file: Path) -> tuple[list[Entry], list[str], list[str]]:
    """Read one XML file.

    Rotated boxes, ellipses, polygons, masks and cuboids become the boxes around them. Polylines, points and
    skeletons have no area and are left out with a note.

    Returns:
        Its entries, a problem for each `<image>` that cannot be used, and notes on the file as a whole.

    Raises:
        InputError: The file is malformed or holds the tracks of a video.
        OtherFormatError: It is not CVAT.
    """
    root = parse_xml(file, "CVAT")
    if root.tag != "annotations":
        raise OtherFormatError(f"{file}: not CVAT (its root is <{root.tag}>, expected <annotations>)")
    if root.find("track") is not None:
        raise InputError(f"{file}: holds the tracks of a video; export it as 'CVAT for images 1.1' instead")
    entries: list[Entry] = []
    problems: list[str] = []
    for image in root.findall("image"):
        try:
            entries.append(_read_entry(file, image))
        except InputError as error:
            problems.append(str(error))
    return entries, problems, _notes_on_file(file, root, entries)


def _notes_on_file(file: Path, root: Element, entries: list[Entry]) -> list[str]:
    notes = []
    if empty := sum(not (entry.annotation.shapes or entry.annotation.labels) for entry in entries):
        notes.append(
            f"{file}: {empty} picture(s) without a shape or tag, taken as showing none of the classes"
        )
    attributes = sorted({element.get("name", "") for element in root.iterfind("image/*/attribute")})
    if attributes:
        notes.append(
            f"{file}: attributes of shapes and tags are not used ({', '.join(map(repr, attributes))})"
        )
    subsets = {image.get("subset", "") for image in root.iterfind("image")} - {"", "default"}
    if others := sorted(name for name in subsets if split_in([name]) is None):
        notes.append(
            f"{file}: subset(s) {', '.join(map(repr, others))} are no split; train, val and test are known"
        )
    return notes


def _read_entry(file: Path, image: Element) -> Entry:
    name = image.get("name", "")
    if not name:
        raise InputError(f"{file}: the <image> with id {image.get('id')!r} has no name")
    image_place = f"{file}, image {name!r}"
    shapes = ShapeCollector()
    labels: list[str] = []
    for position, element in enumerate(image, start=1):
        place = f"{image_place}: <{element.tag}> {position}"
        class_name = parse_class_name(element.get("label"))
        if class_name is None:
            raise InputError(f"{place} has no label")
        if element.tag == "tag":
            labels.append(class_name)
        else:
            _add_shape(element, class_name, f"{place} ({class_name})", shapes)
    shapes.note_left_out(f"{image_place}: shapes without an area or out of view left out")
    annotation = Annotation(
        file,
        name,
        parse_size(image.get("width"), image.get("height")),
        shapes.shapes,
        tuple(dict.fromkeys(labels)),
        notes=tuple(shapes.notes),
    )
    return Entry(annotation, split_in([image.get("subset", "")]))


def _add_shape(element: Element, class_name: str, place: str, shapes: ShapeCollector) -> None:
    """Add the shape of an element to `shapes`; `place` is the element's place in the file."""
    if element.get("outside") == "1":
        shapes.leave_out("out of view")
    elif element.tag in _WITHOUT_AREA:
        shapes.leave_out(element.tag)
    elif (shape := _shape(place, class_name, element, shapes.notes)) is None:
        shapes.leave_out("empty mask")
    else:
        shapes.add(shape, place)


def _shape(place: str, class_name: str, element: Element, notes: list[str]) -> Shape | None:
    """Return the shape of an element, None for a mask without a set pixel.

    Args:
        place: The element's place in the file, for messages.
        class_name: Its label.
        element: A <box>, <ellipse>, <polygon>, <cuboid> or <mask>.
        notes: Gets a note on what is corrected or simplified.

    Raises:
        InputError: The element is of another kind or not readable.
    """
    degrees = _numbers(place, element, "rotation")[0] if element.get("rotation") else 0.0
    if element.tag == "box":
        return _box(place, class_name, element, degrees, notes)
    if element.tag == "ellipse":
        x, y, rx, ry = _numbers(place, element, "cx", "cy", "rx", "ry")
        return Shape(class_name, ellipse_box((x, y), (rx, ry), degrees), math.pi * abs(rx * ry))
    if element.tag == "polygon":
        points = _points(place, element.get("points", ""))
        return Shape(class_name, bounding_box(points), polygon_area(points))
    if element.tag == "cuboid":
        corners = [(x, y) for x, y in (_numbers(place, element, *names) for names in _CUBOID)]
        notes.append(f"{place}: the box around its eight corners is taken")
        return Shape(class_name, bounding_box(corners))
    if element.tag == "mask":
        return _mask(place, class_name, element)
    raise InputError(f"{place} is of an unknown kind; redraw it as a polygon or remove it")


def _box(place: str, class_name: str, element: Element, degrees: float, notes: list[str]) -> Shape:
    """Return the shape of a <box>, which is rotated clockwise by `degrees`; `notes` as in `_shape`."""
    x1, y1, x2, y2 = _numbers(place, element, "xtl", "ytl", "xbr", "ybr")
    if x1 > x2 or y1 > y2:
        notes.append(f"{place} was reversed; put right")
    box = bounding_box([(x1, y1), (x2, y2)])
    if not degrees:
        return Shape(class_name, box)
    notes.append(f"{place} is turned by {degrees:g} degrees; the box around it is taken")
    return Shape(class_name, *rotated_box(box, degrees))


def _numbers(place: str, element: Element, *names: str) -> list[float]:
    """Return the numbers in attributes of an element. InputError naming one that is not readable."""
    values = [parse_number(element.get(name)) for name in names]
    for name, value in zip(names, values, strict=True):
        if value is None:
            raise InputError(f"{place} has no readable {name} (found {element.get(name)!r})")
    return [value for value in values if value is not None]


def _points(place: str, text: str) -> list[Point]:
    """Return the points of `x,y;x,y;...`, at least three."""
    points: list[Point] = []
    for pair in text.split(";"):
        x, y = map(parse_number, pair.split(",")) if pair.count(",") == 1 else (None, None)
        if x is None or y is None:
            raise InputError(f"{place} has an unreadable point {pair[:60]!r}")
        points.append((x, y))
    if len(points) < 3:
        raise InputError(f"{place} has {len(points)} point(s), expected at least 3")
    return points


def _mask(place: str, class_name: str, element: Element) -> Shape | None:
    left, top, width, height = (
        int(value) for value in _numbers(place, element, "left", "top", "width", "height")
    )
    lengths = [parse_number(text) for text in element.get("rle", "").split(",")]
    known = [int(length) for length in lengths if length is not None and length >= 0 and length.is_integer()]
    if width < 1 or height < 1 or len(known) < len(lengths) or sum(known) != width * height:
        raise InputError(f"{place}: its rle does not fill its {width}x{height} pixels")
    found = mask_box(_set_runs(known), width)
    if found is None:
        return None
    (x1, y1, x2, y2), area = found
    return Shape(class_name, (left + x1, top + y1, left + x2, top + y2), float(area))


def _set_runs(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Yield where the set pixels begin and end, from run lengths of which the first is background."""
    edges = accumulate(lengths, initial=0)
    return (run for index, run in enumerate(pairwise(edges)) if index % 2)
