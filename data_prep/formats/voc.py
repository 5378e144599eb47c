"""Read Pascal VOC annotations as they are in the wild.

The format: one XML file for each image, `<annotation>` with `<filename>`, `<size>` and an `<object>` for each
box (The PASCAL Visual Object Classes Challenge 2012, development kit, section 3.1). What real folders do to
it: `<filename>` without extension or left over from another image, a foreign `<path>`, several XML files for
one image, fractional, reversed or outlying boxes, images kept anywhere, boxes with an angle. Splits are those
of `ImageSets/Main`, else those of folder names. Coordinates are taken as pixels from
the left and top edge, as today's annotation tools write them; the 1-based origin of VOC's own development kit
would move a box by one pixel, which no answer shows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_number, parse_size
from data_prep.formats.layout import (
    OtherFormatError,
    images_of_list,
    note_unused,
    read_files,
    require_images,
    set_groups_and_splits,
    set_listed_splits,
)
from data_prep.formats.outlines import bounding_box, rotated_box
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.xml import has_root, is_labelme, parse_xml
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "voc"


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Pascal VOC, None if it does not."""
    count = sum(has_root(path, "annotation") and not is_labelme(path) for path in folder.named(".xml"))
    return f"{count} XML file(s) with <annotation> as root" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every VOC file in the folder or below and find its image.

    Returns:
        The source and the problems, one line each (unreadable XML, XML without its image); a caller that
        gets problems must not go on.

    Raises:
        InputError: The folder holds no XML or no images.
    """
    files = folder.named(".xml")
    if not files:
        raise InputError(f"{folder.root}: no Pascal VOC annotations (*.xml) in it or below")
    require_images(folder, f"{folder.root}: {len(files)} XML file(s)")
    annotations, others, problems = read_files(files, read_annotation)
    pairs: list[tuple[Path, Annotation]] = []
    for path, annotation in annotations:
        try:
            # The XML's own stem comes first: tools keep it in step with the image, while <filename> is
            # often left over from a copy or a renaming.
            image = folder.image_of(path, path.stem, annotation.image)
            pairs.append((image, _with_filename_note(folder, annotation, image)))
        except InputError as error:
            problems.append(str(error))
    if not pairs and not problems:
        raise InputError(f"{folder.root}: none of its {len(files)} XML file(s) is Pascal VOC")
    notes = note_unused(folder, others, "XML file(s) that are not Pascal VOC")
    listed = _image_sets(folder, notes)
    source = make_source(folder, NAME, pairs, notes)
    notes_on_splits = set_listed_splits(source, listed)
    set_groups_and_splits(source, folder)
    return replace(source, notes=(*source.notes, *notes_on_splits)), problems


def _image_sets(folder: SourceFolder, notes: list[str]) -> dict[Path, set[Split]]:
    """Return the splits that `ImageSets/Main/train.txt` and its like list images for, a name a line.

    `notes` gets a line on names without an image. The lists of a class (`cat_train.txt`) say no more.
    """
    listed: dict[Path, set[Split]] = defaultdict(set)
    for file in folder.named(".txt"):
        above = [part.casefold() for part in file.relative_to(folder.root).parent.parts]
        split = split_in([file.stem])
        if split and (above[-1:] == ["imagesets"] or above[-2:] == ["imagesets", "main"]):
            for image in images_of_list(file, folder, notes):
                listed[image].add(split)
    return listed


def _with_filename_note(folder: SourceFolder, annotation: Annotation, image: Path) -> Annotation:
    """Add a note if the annotation's <filename> is that of another image that exists as well."""
    written = annotation.image
    try:
        agrees = not written or folder.image_of(annotation.file, written).stem == image.stem
    except InputError:  # left over from a copy or a renaming
        agrees = True
    if agrees:
        return annotation
    note = f"{annotation.file}: its <filename> is {written!r}; taken for {image.name}, by its own name"
    return replace(annotation, notes=(*annotation.notes, note))


def read_annotation(file: Path) -> Annotation:
    """Read one XML file. InputError naming it if it is cut short, not VOC, or has an unreadable box."""
    root = parse_xml(file, "Pascal VOC")
    if root.tag != "annotation":
        raise OtherFormatError(f"{file}: not Pascal VOC (its root is <{root.tag}>, expected <annotation>)")
    shapes = ShapeCollector()
    for position, element in enumerate(root.findall("object"), start=1):
        class_name = (element.findtext("name") or "").strip()
        if not class_name:
            raise InputError(f"{file}: object {position} has no <name>")
        place = f"{file}: box {position} ({class_name})"
        box, degrees = _box(file, position, element)
        x1, y1, x2, y2 = box
        if x1 > x2 or y1 > y2:
            shapes.note(f"{place} was reversed; put right")
        shape = Shape(class_name, bounding_box([(x1, y1), (x2, y2)]))
        if degrees:
            shape = Shape(class_name, *rotated_box(shape.box, degrees))
            shapes.note(f"{place} is turned by {degrees:g} degrees; the box around it is taken")
        shapes.add(shape, place)
    image = (root.findtext("filename") or "").strip()
    size = parse_size(root.findtext("size/width"), root.findtext("size/height"))
    return Annotation(file, image, size, shapes.shapes, notes=tuple(shapes.notes))


def _box(file: Path, position: int, element: Element) -> tuple[Box, float]:
    """Return the box of an <object> as written, which may be reversed, and the degrees by which it is rotated
    about its centre.

    roLabelImg writes a rotated box as <robndbox> with its angle in radians, CVAT as <bndbox> with an
    attribute `rotation` in degrees.
    """
    if element.find("robndbox") is not None:
        cx, cy, width, height, radians = _numbers(
            file, position, element, "robndbox", ("cx", "cy", "w", "h", "angle")
        )
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        return box, math.degrees(radians) % 360
    x1, y1, x2, y2 = _numbers(file, position, element, "bndbox", ("xmin", "ymin", "xmax", "ymax"))
    written = [
        attribute.findtext("value")
        for attribute in element.iterfind("attributes/attribute")
        if attribute.findtext("name") == "rotation"
    ]
    return (x1, y1, x2, y2), (parse_number(next(iter(written), None)) or 0.0) % 360


def _numbers(file: Path, position: int, element: Element, parent: str, tags: tuple[str, ...]) -> list[float]:
    """Return the numbers in children of an <object>'s `parent`. InputError naming one that is not
    readable."""
    values = []
    for tag in tags:
        text = element.findtext(f"{parent}/{tag}")
        value = parse_number(text)
        if value is None:
            raise InputError(f"{file}: object {position} has no readable <{tag}> (found {text!r})")
        values.append(value)
    return values
