"""Label Studio annotations, as exported with "JSON" or "JSON-MIN" (labelstud.io/guide/export).

The format: one JSON list of tasks. A task names its picture by an address in `data` and holds `annotations`,
one per annotator, each a list of results: shapes in percent of the picture's sides, with the classes under
the name of their kind (`rectanglelabels`), and choices about the picture. A rectangle is turned clockwise
about its top left corner (labelstud.io/templates/image_bbox, "Rotation and anchor point"), an ellipse about
its centre; a brush stroke is packed as data_prep/formats/brush.py says. In JSON-MIN, one annotation is left
of each task, its results lie beside the data under the names of the labelling tags.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import Any

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.brush import brush_runs
from data_prep.formats.labelstudio_tasks import (
    Result,
    Task,
    image_names,
    read_tasks,
)
from data_prep.formats.layout import passed_over, read_each, require_images, set_groups_and_splits
from data_prep.formats.outlines import (
    bounds,
    ellipse_box,
    mask_box,
    name_of,
    number,
    polygon_area,
    turned_corners,
)
from data_prep.formats.sizes import image_size
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.html.markup import readable
from llava.common.images import MAX_PIXELS

NAME = "labelstudio"

Outline = tuple[Box, float | None]  # a shape's box and, where it is more than a box, the area it covers

_PLAIN_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint", "vector")
# The first bytes of JSON and of JSON-MIN.
_START = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*\[\s*\{(?:"
    rb'(?=.*"(?:annotations|completions)"\s*:\s*\[)(?=.*"(?:result"\s*:\s*\[|data"\s*:\s*\{))'
    rb'|(?=.*"(?:annotation_id|(?:rectangle|polygon|ellipse|brush|keypoint)labels)"\s*:))',
    re.S,
)


def annotate(task: Task, file: Path, image: tuple[float, float]) -> Annotation:
    """What `task` of `file` says, in pixels of its stated size, else of `picture` (width, height).

    Brush strokes, polygons, ellipses and turned rectangles become the boxes around them. Points and what has
    no class are left out with a note. InputError naming the task for a shape that cannot be read.
    """
    width, height = task.size or image
    notes = list(task.notes)
    shapes: list[Shape] = []
    labels: list[str] = []
    left_out: Counter[str] = Counter()
    with_class = {result.id for result in task.results if result.kind.endswith("labels")} - {""}
    about_shape = with_class | {result.id for result in task.results if result.kind in _PLAIN_SHAPES}
    for place, result in enumerate(task.results, start=1):
        where = f"{task.where}: {result.kind} {place}"
        if result.kind == "choices":
            if result.id in about_shape or "x" in result.value or "points" in result.value:
                left_out["choices about a shape"] += 1
            else:
                labels += _classes(where, result)
            continue
        if not result.kind.endswith("labels"):
            if result.id not in with_class:
                without = " without a class" if result.kind in _PLAIN_SHAPES else ""
                left_out[result.kind + without] += 1
            continue
        classes = _classes(where, result)
        if not classes:
            left_out[f"{result.kind} without a class"] += 1
            continue
        outline = _outline(where, result.value, width, height, notes)
        if outline is None:
            left_out[result.kind] += 1
            continue
        for name in classes:
            shape = Shape(name, *outline)
            if shape in shapes:
                notes.append(f"{where} ({name}) is there twice; kept once")
            else:
                shapes.append(shape)
    if left_out:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"{task.where}: left out: {readable(listed)}")
    unique = tuple(dict.fromkeys(labels))
    return Annotation(file, task.address, (width, height), tuple(shapes), unique, notes=tuple(notes))


def _classes(where: str, result: Result) -> list[str]:
    written = result.value.get(result.kind)
    names = [name_of(name) for name in written] if isinstance(written, list) else [name_of(written)]
    if None in names and written is not None:
        raise InputError(f"{where} has an unreadable class (found {str(written)[:60]!r})")
    return list(dict.fromkeys(name for name in names if name is not None))


def _outline(
    where: str, value: dict[str, Any], width: float, height: float, notes: list[str]
) -> Outline | None:
    """None for a shape that covers no area. What is put right is added to `notes`."""

    def percent(written: object, whole: float) -> float:
        share = number(written)
        if share is None:
            raise InputError(f"{where} has an unreadable number (found {str(written)[:60]!r})")
        return share * whole / 100

    turn = percent(value.get("rotation") or 0, 100)
    if "rle" in value:
        return _brush(where, value["rle"], width, height)
    if isinstance(points := value.get("points"), list):
        corners = []
        for point in points:
            if not isinstance(point, list) or len(point) != 2:
                raise InputError(f"{where} has an unreadable point {str(point)[:60]!r}")
            corners.append((percent(point[0], width), percent(point[1], height)))
        return (bounds(corners), polygon_area(corners)) if len(corners) > 2 else None
    if "radiusX" in value:
        centre = percent(value.get("x"), width), percent(value.get("y"), height)
        radii = percent(value.get("radiusX"), width), percent(value.get("radiusY"), height)
        return ellipse_box(centre, radii, turn), math.pi * abs(radii[0] * radii[1])
    if not {"x", "y", "width", "height"} <= value.keys():
        return None
    x, y = percent(value["x"], width), percent(value["y"], height)
    box = (x, y, x + percent(value["width"], width), y + percent(value["height"], height))
    if not turn:
        if box[0] > box[2] or box[1] > box[3]:
            notes.append(f"{where} was reversed; put right")
        return bounds([box[:2], box[2:]]), None
    notes.append(f"{where} is turned by {turn:g} degrees; the box around it is taken")
    corners = turned_corners(box, turn, (x, y))
    return bounds(corners), polygon_area(corners)


def _brush(where: str, packed: Any, width: float, height: float) -> Outline | None:
    try:
        if not isinstance(packed, list):
            raise TypeError("no list of bytes")
        if not 0 < width * height <= MAX_PIXELS or width != int(width) or height != int(height):
            raise ValueError(f"for a picture of {width:g}x{height:g}")
        found = mask_box(brush_runs(bytes(packed), int(width * height)), int(width))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: its brush stroke cannot be unpacked ({error})") from None
    return None if found is None else (found[0], float(found[1]))


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like Label Studio, None if it does not."""
    count = sum(_is_labelstudio(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with Label Studio's tasks" if count else None


def _is_labelstudio(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(8192)) is not None
    except OSError:
        return False


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every Label Studio export anywhere below the folder, each of its tasks joined with its picture.

    Returns the source and one line per problem (unreadable JSON, a task without its picture); a caller that
    gets problems must not go on. InputError for a folder without exports or pictures.
    """
    files, others, problems = read_each(folder.named(".json"), read_tasks)
    notes: list[str] = []
    found: list[tuple[Path, Annotation]] = []
    for path, (tasks, bad, said) in files:
        if tasks:
            require_images(folder, f"{path}: speaks of {len(tasks)} picture(s)")
        problems += bad
        notes += said
        task_of: dict[Path, str] = {}
        renamed = 0
        for task in tasks:
            try:
                names = image_names(task.address)
                image = folder.image_of(path, *names)
                if other := task_of.get(image):
                    raise InputError(f"{task.where}: speaks of {image.name}, as does {other}; keep one")
                task_of[image] = task.where
                renamed += image.stem.casefold() != PureWindowsPath(names[0]).stem.casefold()
                found.append((image, annotate(task, path, task.size or image_size(image))))
            except InputError as error:
                problems.append(str(error))
        if renamed:
            notes.append(f"{path}: {renamed} picture(s) found by the name that they had before the upload")
    if not found and not problems:
        raise InputError(f"{folder.root}: no finished Label Studio annotations (*.json) in it or below")
    notes += passed_over(folder, others, "JSON file(s) that are not Label Studio's")
    source = make_source(folder, NAME, found, notes)
    set_groups_and_splits(source, folder)
    return source, problems
