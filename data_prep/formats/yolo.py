"""Read YOLO labels: a text file for each image, a line for each object, places as fractions of the image.

The format (https://docs.ultralytics.com/datasets/detect/ and /segment/): `class cx cy width height` for a
box, `class x1 y1 x2 y2 x3 y3 ...` for an outline, with the class as an index into the `names` of `data.yaml`.
Labels lie in `labels/` as images lie in `images/`, or beside them. What real folders do to it: names in
`classes.txt` or `obj.names` (darknet), a confidence after the box (predictions), `data.yaml` with paths of
another machine or one folder too high (Roboflow), no file for an image with nothing in it. Fractions are of
the upright image: its size comes from its header.

Which label file belongs to which image is found in yolo_layout.py, `data.yaml` is read in yolo_data.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_number
from data_prep.formats.layout import note_unused, require_images, set_groups_and_splits
from data_prep.formats.outlines import bounding_box, polygon_area
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.sizes import image_size
from data_prep.formats.yolo_data import (
    DataSet,
    data_set_of,
    find_data_sets,
    is_name_list,
    names_classes,
    set_splits,
)
from data_prep.formats.yolo_layout import YoloLayout
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_text

NAME = "yolo"
_MAX_FRACTION = 2.0  # fractions beyond this are pixels, not a box that reaches out of its image
_DECIMALS = 2  # of pixels: six digits of a fraction say no more, and so the box is the one that was drawn
_DETECT_FILES = 20


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like YOLO, None if it does not."""
    labels, _ = YoloLayout(folder).label_files()
    written = [path for path in labels if path.stat().st_size][:_DETECT_FILES]
    if not labels or not all(map(_looks_like_labels, written)):
        return None
    has_names = any(map(names_classes, folder.files))
    if not written and not has_names:
        return None
    return f"{len(labels)} label file(s) (*.txt)" + (" and the names of their classes" if has_names else "")


def _looks_like_labels(path: Path) -> bool:
    """Judge by the first line; an empty file says nothing against it."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    except OSError:
        return False
    line = start.split("\n", 1)[0]
    # With keypoints, of which only data.yaml tells, the count of numbers may be even.
    values = _parse_line(line) or _parse_line(line, max(1, len(line.split()) - 5))
    return not line or (values is not None and all(abs(value) <= _MAX_FRACTION for value in values[1]))


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every label file in the folder or below and find its image.

    An image without a label file, in a folder whose labels lie in a tree of their own, has nothing in it
    (Ultralytics' background images); their number is noted. Splits are those of `data.yaml`, else those of
    folder names.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no labels, class names or images.
    """
    layout = YoloLayout(folder)
    labels, others = layout.label_files()
    if not labels:
        raise InputError(f"{folder.root}: no YOLO labels (*.txt named like a picture) in it or below")
    require_images(folder, f"{folder.root}: {len(labels)} label file(s)")
    data_sets, notes = find_data_sets(folder)
    problems: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    label_folders: dict[Path, Path] = {}  # folder of images -> its own tree's folder of labels
    ignored: dict[str, list[Path]] = defaultdict(list)
    for path in labels:
        try:
            content = read_labels(path, data_set_of(path, data_sets))
            image = layout.image_of(path)
            pairs.append((image, _in_pixels(content, path, image)))
        except InputError as error:
            problems.append(str(error))
            continue
        if layout.has_own_label_tree(path, image):
            label_folders[image.parent] = path.parent
        for what in sorted(content.ignored):
            ignored[what].append(path)
    notes += _add_backgrounds(folder, pairs, label_folders)
    for what, files in ignored.items():
        notes.append(f"{len(files)} label file(s) hold {what}, passed over; for instance {files[0]}")
    others = [path for path in others if not is_name_list(path)]
    notes += note_unused(folder, others, "text file(s) that are no labels")
    source = make_source(folder, NAME, pairs)
    notes += set_splits(source, folder, data_sets)
    set_groups_and_splits(source, folder)
    return replace(source, notes=(*notes, *source.notes)), problems


def _add_backgrounds(
    folder: SourceFolder, pairs: list[tuple[Path, Annotation]], label_folders: dict[Path, Path]
) -> list[str]:
    """Add to `pairs` the images with nothing in them.

    Args:
        folder: All images.
        pairs: The images that have label files.
        label_folders: Folders of images whose labels lie in a tree of their own, with the folders of labels.

    Returns:
        Notes on these images, and on images with several label files.
    """
    notes = []
    labelled = {image for image, _ in pairs}
    if duplicates := len(pairs) - len(labelled):
        notes.append(f"{duplicates} label file(s) belong to a picture that has another one; both are used")
    backgrounds = [path for path in folder.images if path not in labelled and path.parent in label_folders]
    pairs += [(path, Annotation(label_folders[path.parent], path.name)) for path in backgrounds]
    if backgrounds:
        notes.append(
            f"{len(backgrounds)} picture(s) without a label file are taken as pictures with nothing in them "
            f"(YOLO's backgrounds), for instance {folder.key(backgrounds[0])}"
        )
    return notes


@dataclass
class LabelFile:
    """The content of a label file: `shapes` in fractions of the image, notes on what was corrected, and what
    its lines hold that is ignored."""

    shapes: tuple[Shape, ...]
    notes: tuple[str, ...] = ()
    ignored: set[str] = field(default_factory=set)


def read_labels(file: Path, data_set: DataSet) -> LabelFile:
    """Read one label file.

    InputError naming it and the line of anything but boxes and outlines of the classes of `data_set`.
    """
    shapes = ShapeCollector()
    ignored = set()
    for row, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {row}"
        class_name, fractions = _read_line(place, line, data_set)
        named_place = f"{place} ({class_name!r}):"
        box, area = _outline(fractions)
        if len(fractions) == 4:
            if (extra := len(line.split()) - 5) > 0:
                ignored.add("a confidence, as predictions do" if extra == 1 else "keypoints")
            if fractions[2] < 0 or fractions[3] < 0:
                shapes.note(f"{named_place} negative width or height; put right")
        shapes.add_unless_empty(Shape(class_name, box, area), named_place)
    return LabelFile(shapes.shapes, tuple(shapes.notes), ignored)


def _read_line(place: str, line: str, data_set: DataSet) -> tuple[str, list[float]]:
    """Return the class name and the numbers of a line. InputError if it is no box or outline of a class."""
    values = _parse_line(line, data_set.keypoints)
    if values is None:
        raise InputError(
            f"{place}: neither a box (class cx cy width height) nor an outline (class x1 y1 x2 y2 ...) "
            f"of plain numbers"
        )
    index, fractions = values
    if index not in data_set.names:
        known = len(data_set.names)
        raise InputError(f"{place}: class {index} is not among the {known} names in {data_set.file}")
    too_large = [value for value in fractions if abs(value) > _MAX_FRACTION]
    if too_large:
        raise InputError(f"{place}: {too_large[0]:g} is no share of a picture; write 0..1, not pixels")
    return data_set.names[index], fractions


def _parse_line(line: str, keypoints: int = 0) -> tuple[int, list[float]] | None:
    """Return the class index and the four numbers of a box or the six and more of an outline.

    None if it is neither. `keypoints` is how many numbers follow a box in a pose data set.
    """
    values = [parse_number(part) for part in line.split()]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 5 or not known[0].is_integer():
        return None
    box_lengths = (5, 6, 5 + keypoints) if keypoints else (5, 6)
    if len(known) in box_lengths:
        return int(known[0]), known[1:5]
    return (int(known[0]), known[1:]) if len(known) % 2 and not keypoints else None


def _outline(fractions: Sequence[float]) -> tuple[Box, float | None]:
    if len(fractions) == 4:
        cx, cy, width, height = fractions
        corners = [(cx - width / 2, cy - height / 2), (cx + width / 2, cy + height / 2)]
        return bounding_box(corners), None
    points = list(zip(fractions[::2], fractions[1::2], strict=True))
    return bounding_box(points), polygon_area(points)


def _in_pixels(content: LabelFile, file: Path, image: Path) -> Annotation:
    """Return the annotation of an image; its header is only read where there are shapes."""
    size = image_size(image) if content.shapes else None
    shapes = _scale(content.shapes, size) if size else ()
    return Annotation(file, image.name, size, tuple(shapes), notes=content.notes)


def _scale(shapes: Iterable[Shape], size: tuple[int, int]) -> Iterable[Shape]:
    width, height = size
    for shape in shapes:
        x1, y1, x2, y2 = (
            round(fraction * side, _DECIMALS)
            for fraction, side in zip(shape.box, (width, height) * 2, strict=True)
        )
        area = None if shape.area is None else shape.area * width * height
        yield Shape(shape.name, (x1, y1, x2, y2), area)
