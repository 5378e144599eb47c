"""Turn the results of a Label Studio task into shapes in pixels and labels.

A rectangle is rotated clockwise about its top left corner (labelstud.io/templates/image_bbox, "Rotation and
anchor point"), an ellipse about its centre; a brush stroke is packed as data_prep/formats/brush.py says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from data_prep.annotations import Annotation, Shape
from data_prep.formats.brush import brush_runs
from data_prep.formats.fields import parse_class_name, parse_number
from data_prep.formats.labelstudio_tasks import Result, Task
from data_prep.formats.outlines import (
    Point,
    bounding_box,
    ellipse_box,
    mask_box,
    polygon_area,
    rotated_corners,
)
from data_prep.formats.shapes import ShapeCollector
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.images import MAX_PIXELS

Outline = tuple[Box, float | None]  # a shape's box and, where it is more than a box, the area it covers
Size = tuple[float, float]  # (width, height) in pixels

_PLAIN_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint", "vector")


def annotate(task: Task, file: Path, image_size: Size) -> Annotation:
    """Return the annotation that `task` of `file` gives, in pixels.

    Brush strokes, polygons, ellipses and rotated rectangles become the boxes around them. Points and what has
    no class are left out with a note. Percents are of the task's stated size, of `image_size` (width, height)
    where it states none. InputError naming the task for a shape that cannot be read.
    """
    size = task.size or image_size
    shapes = ShapeCollector()
    for note in task.notes:
        shapes.note(note)
    labels: list[str] = []
    with_class = {result.id for result in task.results if _has_class(result)} - {""}
    of_shapes = with_class | {result.id for result in task.results if result.kind in _PLAIN_SHAPES}
    for position, result in enumerate(task.results, start=1):
        place = f"{task.place}: {result.kind} {position}"
        if result.kind == "choices":
            if result.id in of_shapes or "x" in result.value or "points" in result.value:
                shapes.leave_out("choices about a shape")
            else:
                labels += _class_names(place, result)
        elif _has_class(result):
            _add_shapes(result, place, size, shapes)
        elif result.id not in with_class:
            without = " without a class" if result.kind in _PLAIN_SHAPES else ""
            shapes.leave_out(result.kind + without)
    shapes.note_left_out(f"{task.place}: left out")
    return Annotation(
        file, task.address, size, shapes.shapes, tuple(dict.fromkeys(labels)), notes=tuple(shapes.notes)
    )


def _has_class(result: Result) -> bool:
    return result.kind.endswith("labels")


def _add_shapes(result: Result, place: str, size: Size, shapes: ShapeCollector) -> None:
    """Add the shape of a result, once for each of its classes."""
    class_names = _class_names(place, result)
    if not class_names:
        shapes.leave_out(f"{result.kind} without a class")
        return
    outline = _outline(place, result.value, size, shapes.notes)
    if outline is None:
        shapes.leave_out(result.kind)
        return
    for class_name in class_names:
        shapes.add(Shape(class_name, *outline), f"{place} ({class_name})")


def _class_names(place: str, result: Result) -> list[str]:
    written = result.value.get(result.kind)
    names = [parse_class_name(name) for name in (written if isinstance(written, list) else [written])]
    if None in names and written is not None:
        raise InputError(f"{place} has an unreadable class (found {str(written)[:60]!r})")
    return list(dict.fromkeys(name for name in names if name is not None))


def _outline(place: str, value: dict[str, Any], size: Size, notes: list[str]) -> Outline | None:
    """Return the outline of a result, None for a shape that covers no area.

    Args:
        place: The result's place in the file, for messages.
        value: What the result holds, places in percent.
        size: The (width, height) in pixels that the percents are of.
        notes: Gets a note on what is corrected or simplified.

    Raises:
        InputError: A number, a point or a brush stroke is not readable.
    """
    width, height = size
    degrees = _percent(place, value.get("rotation") or 0, 100)
    if "rle" in value:
        return _brush_outline(place, value["rle"], size)
    if isinstance(points := value.get("points"), list):
        corners = [_point(place, point, size) for point in points]
        return (bounding_box(corners), polygon_area(corners)) if len(corners) > 2 else None
    if "radiusX" in value:
        centre = _percent(place, value.get("x"), width), _percent(place, value.get("y"), height)
        radii = _percent(place, value.get("radiusX"), width), _percent(place, value.get("radiusY"), height)
        return ellipse_box(centre, radii, degrees), math.pi * abs(radii[0] * radii[1])
    if not {"x", "y", "width", "height"} <= value.keys():
        return None
    x, y = _percent(place, value["x"], width), _percent(place, value["y"], height)
    right, bottom = x + _percent(place, value["width"], width), y + _percent(place, value["height"], height)
    if not degrees:
        if x > right or y > bottom:
            notes.append(f"{place} was reversed; put right")
        return bounding_box([(x, y), (right, bottom)]), None
    notes.append(f"{place} is turned by {degrees:g} degrees; the box around it is taken")
    corners = rotated_corners((x, y, right, bottom), degrees, (x, y))
    return bounding_box(corners), polygon_area(corners)


def _percent(place: str, written: object, side: float) -> float:
    """Return so many percent of `side`, in its unit."""
    percent = parse_number(written)
    if percent is None:
        raise InputError(f"{place} has an unreadable number (found {str(written)[:60]!r})")
    return percent * side / 100


def _point(place: str, point: object, size: Size) -> Point:
    if not isinstance(point, list) or len(point) != 2:
        raise InputError(f"{place} has an unreadable point {str(point)[:60]!r}")
    return _percent(place, point[0], size[0]), _percent(place, point[1], size[1])


def _brush_outline(place: str, packed: Any, size: Size) -> Outline | None:
    width, height = size
    try:
        if not isinstance(packed, list):
            raise TypeError("no list of bytes")
        if not 0 < width * height <= MAX_PIXELS or width != int(width) or height != int(height):
            raise ValueError(f"for a picture of {width:g}x{height:g}")
        found = mask_box(brush_runs(bytes(packed), int(width * height)), int(width))
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: its brush stroke cannot be unpacked ({error})") from None
    return None if found is None else (found[0], float(found[1]))
