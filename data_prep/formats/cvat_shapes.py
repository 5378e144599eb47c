"""Read the shapes in CVAT's XML: boxes, ellipses, polygons, masks and cuboids.

Boxes and ellipses may be rotated (`rotation`, clockwise degrees about their centre). A mask is run lengths,
background first, in rows of the rectangle that `left`, `top`, `width` and `height` state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from xml.etree.ElementTree import Element

from data_prep.annotations import Shape
from data_prep.formats.fields import parse_number
from data_prep.formats.outlines import (
    Point,
    bounding_box,
    ellipse_box,
    mask_box,
    polygon_area,
    rotated_box,
)
from data_prep.formats.shapes import ShapeCollector
from llava.common.errors import InputError

_WITHOUT_AREA = ("polyline", "points", "skeleton")
_CUBOID = [(f"x{corner}{face}", f"y{corner}{face}") for face in "12" for corner in ("tl", "bl", "tr", "br")]


def add_shape(element: Element, class_name: str, place: str, shapes: ShapeCollector) -> None:
    """Add the shape of an element to `shapes`; `place` is the element's place in the file."""
    if element.get("outside") == "1":
        shapes.leave_out("out of view")
    elif element.tag in _WITHOUT_AREA:
        shapes.leave_out(element.tag)
    elif (shape := read_shape(place, class_name, element, shapes.notes)) is None:
        shapes.leave_out("empty mask")
    else:
        shapes.add(shape, place)


def read_shape(place: str, class_name: str, element: Element, notes: list[str]) -> Shape | None:
    """Return the shape of an element, None for a mask without a set pixel.

    Args:
        place: The element's place in the file, for messages.
        class_name: Its label.
        element: A <box>, <ellipse>, <polygon>, <cuboid> or <mask>.
        notes: Gets a note on what is corrected or simplified.

    Raises:
        InputError: The element is of another kind or not readable.
    """
    degrees = numbers_of(place, element, "rotation")[0] if element.get("rotation") else 0.0
    if element.tag == "box":
        return _box(place, class_name, element, degrees, notes)
    if element.tag == "ellipse":
        x, y, rx, ry = numbers_of(place, element, "cx", "cy", "rx", "ry")
        return Shape(class_name, ellipse_box((x, y), (rx, ry), degrees), math.pi * abs(rx * ry))
    if element.tag == "polygon":
        points = _points(place, element.get("points", ""))
        return Shape(class_name, bounding_box(points), polygon_area(points))
    if element.tag == "cuboid":
        corners = [(x, y) for x, y in (numbers_of(place, element, *names) for names in _CUBOID)]
        notes.append(f"{place}: the box around its eight corners is taken")
        return Shape(class_name, bounding_box(corners))
    if element.tag == "mask":
        return _mask(place, class_name, element)
    raise InputError(f"{place} is of an unknown kind; redraw it as a polygon or remove it")


def _box(place: str, class_name: str, element: Element, degrees: float, notes: list[str]) -> Shape:
    """Return the shape of a <box>, which is rotated clockwise by `degrees`; `notes` as in `read_shape`."""
    x1, y1, x2, y2 = numbers_of(place, element, "xtl", "ytl", "xbr", "ybr")
    if x1 > x2 or y1 > y2:
        notes.append(f"{place} was reversed; put right")
    box = bounding_box([(x1, y1), (x2, y2)])
    if not degrees:
        return Shape(class_name, box)
    notes.append(f"{place} is turned by {degrees:g} degrees; the box around it is taken")
    return Shape(class_name, *rotated_box(box, degrees))


def numbers_of(place: str, element: Element, *names: str) -> list[float]:
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
        int(value) for value in numbers_of(place, element, "left", "top", "width", "height")
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
