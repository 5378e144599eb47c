"""Pascal VOC annotations as they are in the wild.

The format: one XML per picture, `<annotation>` with `<filename>`, `<size>` and an `<object>` per box
(The PASCAL Visual Object Classes Challenge 2012, development kit, section 3.1). What real folders do to
it: `<filename>` without extension or left over from another picture, a foreign `<path>`, several XML files
for one picture, fractional, reversed or outlying boxes, pictures kept anywhere. Coordinates are taken as
pixels from the left and top edge, as today's annotation tools write them; the 1-based origin of VOC's own
development kit would move a box by one pixel, which no answer shows.
"""

from __future__ import annotations

from dataclasses import replace
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
from data_prep.formats.outlines import number as parsed
from data_prep.formats.outlines import size
from data_prep.formats.xml import parse, starts_with
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "voc"


def read_annotation(file: Path) -> Annotation:
    """Read one XML file; InputError naming it if it is cut short, not VOC, or has an unreadable box."""
    root = parse(file, "Pascal VOC")
    if root.tag != "annotation":
        raise OtherFormatError(f"{file}: not Pascal VOC (its root is <{root.tag}>, expected <annotation>)")
    notes: list[str] = []
    shapes: list[Shape] = []
    for number, item in enumerate(root.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: object {number} has no <name>")
        x1, y1, x2, y2 = _corners(file, number, item)
        if x1 > x2 or y1 > y2:
            notes.append(f"{file}: box {number} ({name}) was reversed; put right")
        shape = Shape(name, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        if shape in shapes:
            notes.append(f"{file}: box {number} ({name}) is there twice; kept once")
        else:
            shapes.append(shape)
    image = (root.findtext("filename") or "").strip()
    return Annotation(file, image, _size(root), tuple(shapes), notes=tuple(notes))


def _corners(file: Path, number: int, item: Element) -> Box:
    values = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = item.findtext(f"bndbox/{tag}")
        value = parsed(text)
        if value is None:
            raise InputError(f"{file}: object {number} has no readable <{tag}> (found {text!r})")
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _size(root: Element) -> tuple[float, float] | None:
    return size(root.findtext("size/width"), root.findtext("size/height"))


def _noting_another(folder: SourceFolder, annotation: Annotation, image: Path) -> Annotation:
    """With a note where its <filename> is that of another picture that is there as well."""
    written = annotation.image
    try:
        same = not written or folder.image_of(annotation.file, written).stem == image.stem
    except InputError:  # left over from a copy or a renaming
        same = True
    if same:
        return annotation
    note = f"{annotation.file}: its <filename> is {written!r}; taken for {image.name}, by its own name"
    return replace(annotation, notes=(*annotation.notes, note))


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like Pascal VOC, None if it does not."""
    count = sum(starts_with(path, "annotation") for path in folder.named(".xml"))
    return f"{count} XML file(s) with <annotation> as root" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every VOC file anywhere below the folder, joined with its picture.

    Returns the source and one line per problem (unreadable XML, XML without its picture); a caller that
    gets problems must not go on. InputError for a folder without XML or pictures.
    """
    files = folder.named(".xml")
    if not files:
        raise InputError(f"{folder.root}: no Pascal VOC annotations (*.xml) in it or below")
    require_images(folder, f"{folder.root}: {len(files)} XML file(s)")
    annotations, others, problems = read_each(files, read_annotation)
    found: list[tuple[Path, Annotation]] = []
    for path, annotation in annotations:
        try:
            # The XML's own stem comes first: tools keep it in step with the picture, while <filename> is
            # often left over from a copy or a renaming.
            image = folder.image_of(path, path.stem, annotation.image)
            found.append((image, _noting_another(folder, annotation, image)))
        except InputError as error:
            problems.append(str(error))
    if not found and not problems:
        raise InputError(f"{folder.root}: none of its {len(files)} XML file(s) is Pascal VOC")
    notes = passed_over(folder, others, "XML file(s) that are not Pascal VOC")
    source = make_source(folder, NAME, found, notes)
    set_groups_and_splits(source, folder)
    return source, problems
