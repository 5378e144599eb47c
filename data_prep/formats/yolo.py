"""Read YOLO labels: a text file for each image, a line for each object, places as fractions of the image.

The format (https://docs.ultralytics.com/datasets/detect/ and /segment/): `class cx cy width height` for a
box, `class x1 y1 x2 y2 x3 y3 ...` for an outline, with the class as an index into the `names` of `data.yaml`.
Labels lie in `labels/` as images lie in `images/`, or beside them. What real folders do to it: names in
`classes.txt` or `obj.names` (darknet), a confidence after the box (predictions), `data.yaml` with paths of
another machine or one folder too high (Roboflow), no file for an image with nothing in it, commas between
numbers, pixels in place of fractions. Fractions are of the upright image: its size comes from its header.

Which label file belongs to which image is found in yolo_layout.py, `data.yaml` is read in yolo_data.py, a
label file in yolo_labels.py; what its numbers mean where they are pixels is found in yolo_pixels.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.layout import note_unused, require_images, set_groups_and_splits
from data_prep.formats.sizes import image_size
from data_prep.formats.yolo_data import (
    DataSet,
    data_set_of,
    find_data_sets,
    is_name_list,
    names_classes,
    set_splits,
)
from data_prep.formats.yolo_labels import MAX_FRACTION, LabelFile, PixelsError, parse_line, read_labels
from data_prep.formats.yolo_layout import YoloLayout
from data_prep.formats.yolo_pixels import READINGS, find_reading
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "yolo"
_DECIMALS = 2  # of pixels: six digits of a fraction say no more, and so the box is the one that was drawn
_DETECT_FILES = 20


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like YOLO, None if it does not."""
    labels, _ = YoloLayout(folder).label_files()
    written = [path for path in labels if path.stat().st_size][:_DETECT_FILES]
    has_names = any(map(names_classes, folder.files))
    if not labels or not (written or has_names):
        return None
    # Of a file that does not look so among others that do, `read` says what is wrong.
    if 2 * sum(_looks_like_labels(path, has_names) for path in written) < len(written):
        return None
    return f"{len(labels)} label file(s) (*.txt)" + (" and the names of their classes" if has_names else "")


def _looks_like_labels(path: Path, has_names: bool) -> bool:
    """Judge by the first line; an empty file says nothing against it. Numbers in pixels, and names of classes
    in place of their numbers, are labels only where classes are named (`has_names`)."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    except OSError:
        return False
    line = start.split("\n", 1)[0]
    if not line:
        return True
    # With keypoints, of which only data.yaml tells, the count of numbers may be even.
    content = parse_line(line) or parse_line(line, max(1, len(line.split()) - 5))
    by_name = parse_line(re.sub(r"^[^\s,;]+", "0", line)) if has_names and not content else None
    numbers = content or by_name
    if numbers is None:
        return False
    return (content is not None and has_names) or max(map(abs, numbers.numbers)) <= MAX_FRACTION


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
    pairs: list[tuple[Path, Annotation]] = []
    label_folders: dict[Path, Path] = {}  # folder of images -> its own tree's folder of labels
    ignored: dict[str, list[Path]] = defaultdict(list)
    contents, problems = _read_files(layout, labels, data_sets, notes)
    for path, image, content in contents:
        try:
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


def _read_files(
    layout: YoloLayout, labels: Iterable[Path], data_sets: list[DataSet], notes: list[str]
) -> tuple[list[tuple[Path, Path, LabelFile]], list[str]]:
    """Read label files and find their images.

    Returns:
        (label file, image, content) of each that can be used, and a problem for each other. `notes` gets a
        line if numbers in pixels were read.
    """
    contents: list[tuple[Path, Path, LabelFile]] = []
    problems: list[str] = []
    in_pixels: list[tuple[Path, Path, PixelsError]] = []
    for path in labels:
        try:
            image = layout.image_of(path)
            contents.append((path, image, read_labels(path, data_set_of(path, data_sets))))
        except PixelsError as error:
            in_pixels.append((path, image, error))
        except InputError as error:
            problems.append(str(error))
    if not in_pixels:
        return contents, problems
    try:
        sizes = [(error, image_size(image)) for _, image, error in in_pixels]
        reading = find_reading([(numbers, size) for error, size in sizes for numbers in error.numbers])
    except InputError as error:
        return contents, [*problems, str(error)]
    if isinstance(reading, list):
        would_fit = " and as ".join(f"({name})" for name in reading)
        why = (
            f"; as pixels they could be read as {would_fit}"
            if reading
            else "; as pixels no order of them fits the pictures"
        )
        return contents, [*problems, *(f"{error}{why}" for *_, error in in_pixels)]
    notes.append(
        f"{len(in_pixels)} label file(s) are in pixels, read as class, {reading}: by any other order boxes "
        f"would lie outside their pictures; for instance {in_pixels[0][0]}"
    )
    for path, image, _ in in_pixels:
        contents.append((path, image, read_labels(path, data_set_of(path, data_sets), READINGS[reading])))
    return contents, problems


def _in_pixels(content: LabelFile, file: Path, image: Path) -> Annotation:
    """Return the annotation of an image; its header is only read where there are shapes."""
    size = image_size(image) if content.shapes else None
    shapes = _scale(content.shapes, size) if size and not content.in_pixels else content.shapes
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
