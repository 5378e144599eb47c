"""Read XML of the first LabelMe, MIT's annotation tool on the web, which is not the LabelMe of today.

The format (B. C. Russell et al., "LabelMe: a database and web-based tool for image annotation", 2008;
github.com/CSAILVision/LabelMeAnnotationTool): one file for each image, `<annotation>` as in Pascal VOC, with
an `<object>` for each outline: `<polygon>` of `<pt>`, or `<segm>` with the `<box>` of a mask in another
file. Objects that are `<deleted>` stay in the file.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import AnnotatedSource, Annotation, Shape
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import pair_with_images, without_images
from data_prep.formats.layout import OtherFormatError, read_files, require_images
from data_prep.formats.outlines import Point, bounding_box, polygon_area
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.xml import is_labelme, parse_xml
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "labelme_xml"
_OTHER_FOLDERS = {"masks", "scribbles"}  # of pictures that LabelMe made of what was drawn


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like the first LabelMe, None if it does not."""
    count = sum(is_labelme(path) for path in folder.named(".xml"))
    return f"{count} XML file(s) with LabelMe's outlines of <pt>" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every LabelMe XML in the folder or below and find its image.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such XML or no images.
    """
    files = [path for path in folder.named(".xml") if is_labelme(path)]
    if not files:
        raise InputError(f"{folder.root}: no XML of LabelMe in it or below")
    require_images(folder, f"{folder.root}: {len(files)} XML file(s)")
    annotations, _, problems = read_files(files, read_annotation)
    source = pair_with_images(folder, NAME, annotations, problems)
    made = {
        path
        for path in source.unannotated
        if _OTHER_FOLDERS & {part.casefold() for part in path.relative_to(folder.image_root).parts[:-1]}
    }
    return without_images(source, made), problems


def read_annotation(file: Path) -> Annotation:
    """Read one XML file. InputError naming it if it is cut short or has an unreadable outline."""
    root = parse_xml(file, "LabelMe")
    if root.tag != "annotation":
        raise OtherFormatError(f"{file}: not LabelMe (its root is <{root.tag}>)")
    shapes = ShapeCollector()
    for position, element in enumerate(root.findall("object"), start=1):
        if (element.findtext("deleted") or "").strip() in ("1", "true"):
            continue
        name = parse_class_name(element.findtext("name"))
        if name is None:
            raise InputError(f"{file}: object {position} has no <name>")
        place = f"{file}: object {position} ({name})"
        shape = _shape(element, name, place)
        if shape is None:
            shapes.leave_out("point or line")
        else:
            shapes.add_unless_empty(shape, place)
    shapes.note_left_out(f"{file}: left out")
    return Annotation(
        file,
        (root.findtext("filename") or "").strip(),
        parse_size(root.findtext("imagesize/ncols"), root.findtext("imagesize/nrows")),
        shapes.shapes,
        notes=tuple(shapes.notes),
    )


def _shape(element: Element, name: str, place: str) -> Shape | None:
    """Return an object's shape, None for a point or a line. InputError naming the place if not readable."""
    if element.find("segm/box") is not None:
        x1, y1, x2, y2 = (
            _number(element.findtext(f"segm/box/{tag}"), place) for tag in ("xmin", "ymin", "xmax", "ymax")
        )
        return Shape(name, bounding_box([(x1, y1), (x2, y2)]))
    points: list[Point] = [
        (_number(point.findtext("x"), place), _number(point.findtext("y"), place))
        for point in element.findall("polygon/pt")
    ]
    if len(points) < 3:
        return None
    is_box = (element.findtext("type") or "").strip() == "bounding_box"
    return Shape(name, bounding_box(points), None if is_box else polygon_area(points))


def _number(text: str | None, place: str) -> float:
    value = parse_number(text)
    if value is None:
        raise InputError(f"{place}: unreadable coordinate {text!r}")
    return value
