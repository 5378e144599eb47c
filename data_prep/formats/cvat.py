"""CVAT annotations as exported with "CVAT for images 1.1" (docs.cvat.ai, XML annotation format).

The format: one XML, `<annotations>` with an `<image name width height>` per picture, which holds its shapes,
each with a `label`, and a `<tag label>` per class of the picture as a whole. An export of a project also says
the `subset` of each picture. Boxes and ellipses may be turned (`rotation`, clockwise degrees about their
centre). A mask is run lengths, background first, in rows of the rectangle that `left`, `top`, `width` and
`height` state.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.layout import (
    OtherFormatError,
    passed_over,
    read_each,
    require_images,
    set_groups_and_splits,
)
from data_prep.formats.outlines import (
    Point,
    bounds,
    ellipse_box,
    mask_box,
    name_of,
    number,
    polygon_area,
    size,
    turned_corners,
)
from data_prep.formats.xml import parse, starts_with
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError

NAME = "cvat"

_WITHOUT_AREA = ("polyline", "points", "skeleton")
_CUBOID = [(f"x{corner}{face}", f"y{corner}{face}") for face in "12" for corner in ("tl", "bl", "tr", "br")]


@dataclass(frozen=True)
class Entry:
    """One `<image>`: what is said of it, and the split that its subset is, None where it says none."""

    annotation: Annotation
    split: Split | None


def read_entries(file: Path) -> tuple[list[Entry], list[str], list[str]]:
    """Read one XML file: its pictures, a line per picture that cannot be used, and notes on the whole.

    Turned boxes, ellipses, polygons, masks and cuboids become the boxes around them. Polylines, points and
    skeletons have no area and are left out with a note. InputError naming the file if it is malformed, not
    CVAT or made of the tracks of a video.
    """
    root = parse(file, "CVAT")
    if root.tag != "annotations":
        raise OtherFormatError(f"{file}: not CVAT (its root is <{root.tag}>, expected <annotations>)")
    if root.find("track") is not None:
        raise InputError(f"{file}: holds the tracks of a video; export it as 'CVAT for images 1.1' instead")
    entries: list[Entry] = []
    problems: list[str] = []
    for image in root.findall("image"):
        try:
            entries.append(_entry(file, image))
        except InputError as error:
            problems.append(str(error))
    return entries, problems, _notes(file, root, entries)


def _notes(file: Path, root: Element, entries: list[Entry]) -> list[str]:
    notes = []
    if empty := sum(not (entry.annotation.shapes or entry.annotation.labels) for entry in entries):
        notes.append(
            f"{file}: {empty} picture(s) without a shape or tag, taken as showing none of the classes"
        )
    attributes = sorted({item.get("name", "") for item in root.iterfind("image/*/attribute")})
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


def _entry(file: Path, image: Element) -> Entry:
    name = image.get("name", "")
    if not name:
        raise InputError(f"{file}: the <image> with id {image.get('id')!r} has no name")
    where = f"{file}, image {name!r}"
    notes: list[str] = []
    shapes: list[Shape] = []
    labels: list[str] = []
    left_out: Counter[str] = Counter()
    for place, item in enumerate(image, start=1):
        label = name_of(item.get("label"))
        if label is None:
            raise InputError(f"{where}: <{item.tag}> {place} has no label")
        what = f"{where}: <{item.tag}> {place} ({label})"
        if item.tag == "tag":
            labels.append(label)
        elif item.get("outside") == "1":
            left_out["out of view"] += 1
        elif item.tag in _WITHOUT_AREA:
            left_out[item.tag] += 1
        elif (shape := _shape(what, label, item, notes)) is None:
            left_out["empty mask"] += 1
        elif shape in shapes:
            notes.append(f"{what} is there twice; kept once")
        else:
            shapes.append(shape)
    if left_out:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"{where}: shapes without an area or out of view left out: {listed}")
    stated = size(image.get("width"), image.get("height"))
    tags = tuple(dict.fromkeys(labels))
    annotation = Annotation(file, name, stated, tuple(shapes), tags, notes=tuple(notes))
    return Entry(annotation, split_in([image.get("subset", "")]))


def _shape(what: str, label: str, item: Element, notes: list[str]) -> Shape | None:
    """None for a mask without a set pixel. What is put right is added to `notes`."""
    turn = _numbers(what, item, "rotation")[0] if item.get("rotation") else 0.0
    if item.tag == "box":
        x1, y1, x2, y2 = _numbers(what, item, "xtl", "ytl", "xbr", "ybr")
        if x1 > x2 or y1 > y2:
            notes.append(f"{what} was reversed; put right")
        box = bounds([(x1, y1), (x2, y2)])
        if not turn:
            return Shape(label, box)
        notes.append(f"{what} is turned by {turn:g} degrees; the box around it is taken")
        corners = turned_corners(box, turn, ((x1 + x2) / 2, (y1 + y2) / 2))
        return Shape(label, bounds(corners), polygon_area(corners))
    if item.tag == "ellipse":
        x, y, across, down = _numbers(what, item, "cx", "cy", "rx", "ry")
        return Shape(label, ellipse_box((x, y), (across, down), turn), math.pi * abs(across * down))
    if item.tag == "polygon":
        points = _points(what, item.get("points", ""))
        return Shape(label, bounds(points), polygon_area(points))
    if item.tag == "cuboid":
        corners = [(x, y) for x, y in (_numbers(what, item, *names) for names in _CUBOID)]
        notes.append(f"{what}: the box around its eight corners is taken")
        return Shape(label, bounds(corners))
    if item.tag == "mask":
        return _mask(what, label, item)
    raise InputError(f"{what} is of an unknown kind; redraw it as a polygon or remove it")


def _numbers(what: str, item: Element, *names: str) -> list[float]:
    values = [number(item.get(name)) for name in names]
    for name, value in zip(names, values, strict=True):
        if value is None:
            raise InputError(f"{what} has no readable {name} (found {item.get(name)!r})")
    return [value for value in values if value is not None]


def _points(what: str, text: str) -> list[Point]:
    """`x,y;x,y;...`, at least three."""
    points: list[Point] = []
    for pair in text.split(";"):
        x, y = map(number, pair.split(",")) if pair.count(",") == 1 else (None, None)
        if x is None or y is None:
            raise InputError(f"{what} has an unreadable point {pair[:60]!r}")
        points.append((x, y))
    if len(points) < 3:
        raise InputError(f"{what} has {len(points)} point(s), expected at least 3")
    return points


def _mask(what: str, label: str, item: Element) -> Shape | None:
    left, top, width, height = (
        int(value) for value in _numbers(what, item, "left", "top", "width", "height")
    )
    lengths = [number(text) for text in item.get("rle", "").split(",")]
    known = [int(length) for length in lengths if length is not None and length >= 0 and length.is_integer()]
    if width < 1 or height < 1 or len(known) < len(lengths) or sum(known) != width * height:
        raise InputError(f"{what}: its rle does not fill its {width}x{height} pixels")
    found = mask_box(_set_runs(known), width)
    if found is None:
        return None
    (x1, y1, x2, y2), area = found
    return Shape(label, (left + x1, top + y1, left + x2, top + y2), float(area))


def _set_runs(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Run lengths, background first -> where the set pixels begin and end."""
    edges = accumulate(lengths, initial=0)
    return (run for place, run in enumerate(pairwise(edges)) if place % 2)


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like CVAT, None if it does not."""
    count = sum(starts_with(path, "annotations") for path in folder.named(".xml"))
    return f"{count} XML file(s) with <annotations> as root" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every CVAT file anywhere below the folder, each of its pictures joined with the picture file.

    Returns the source and one line per problem (unreadable XML, an image without its picture); a caller that
    gets problems must not go on. InputError for a folder without CVAT files or pictures.
    """
    files, others, problems = read_each(folder.named(".xml"), read_entries)
    notes: list[str] = []
    found: list[tuple[Path, Annotation]] = []
    splits: dict[Path, Split] = {}
    for path, (entries, bad, said) in files:
        if entries:
            require_images(folder, f"{path}: speaks of {len(entries)} picture(s)")
        problems += bad
        notes += said
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
            found.append((image, entry.annotation))
    if not found and not problems:
        raise InputError(f"{folder.root}: no CVAT annotations (*.xml with <annotations>) in it or below")
    notes += passed_over(folder, others, "XML file(s) that are not CVAT")
    source = make_source(folder, NAME, found, notes)
    for annotated in source.images:
        annotated.split = splits.get(annotated.file)
    set_groups_and_splits(source, folder)
    return source, problems
