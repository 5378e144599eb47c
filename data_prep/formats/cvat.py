"""Read CVAT annotations as exported with "CVAT for images 1.1" or "for video 1.1" (docs.cvat.ai, XML format).

The format: one XML, `<annotations>` with an `<image name width height>` for each image, which holds its
shapes, each with a `label`, and a `<tag label>` for each class of the image as a whole. An export of a
project also says the `subset` of each image. That of a video holds a `<track label>` for each object, with
its shape in each frame.

Shapes are read in cvat_shapes.py, tracks in cvat_video.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from data_prep.annotations import AnnotatedSource, Annotation, make_source
from data_prep.formats.cvat_shapes import add_shape
from data_prep.formats.cvat_video import read_video
from data_prep.formats.fields import parse_class_name, parse_size
from data_prep.formats.layout import (
    OtherFormatError,
    note_unused,
    read_files,
    require_images,
    set_groups_and_splits,
)
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.xml import has_root, parse_xml
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError

NAME = "cvat"


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
    files, others, problems = read_files(folder.named(".xml"), partial(_read_file, folder))
    notes: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    splits: dict[Path, Split] = {}
    videos: dict[Path, Path] = {}  # frame -> the file of its video
    for path, (entries, problems_of_file, notes_of_file) in files:
        if entries:
            require_images(folder, f"{path}: speaks of {len(entries)} picture(s)")
        problems += problems_of_file
        notes += notes_of_file
        owners: dict[Path, str] = {}
        for entry in entries:
            try:
                name = entry.annotation.image
                image = entry.frame or folder.image_of(path, name, split=entry.split, owners=owners)
            except InputError as error:
                problems.append(str(error))
                continue
            if entry.split and splits.setdefault(image, entry.split) != entry.split:
                problems.append(f"{path}: {image.name} is in two subsets, {splits[image]} and {entry.split}")
            pairs.append((image, entry.annotation))
            if entry.frame:
                videos[image] = path
    if not pairs and not problems:
        raise InputError(f"{folder.root}: no CVAT annotations (*.xml with <annotations>) in it or below")
    notes += note_unused(folder, others, "XML file(s) that are not CVAT")
    source = make_source(folder, NAME, pairs, notes)
    for annotated in source.images:
        annotated.split = splits.get(annotated.file)
        if annotated.file in videos and len(set(videos.values())) > 1:
            annotated.group = videos[annotated.file].relative_to(folder.root).as_posix()
    set_groups_and_splits(source, folder)
    return source, problems


@dataclass(frozen=True)
class Entry:
    """One `<image>` or frame of a video: its annotation, the split that its subset is, None if it is none,
    and the picture of the frame."""

    annotation: Annotation
    split: Split | None
    frame: Path | None = None


def _read_file(folder: SourceFolder, file: Path) -> tuple[list[Entry], list[str], list[str]]:
    """Read one XML file of images or of videos: what it returns and raises is as of `read_entries`."""
    root = _parse(file)
    if root.find("track") is None:
        return _read_images(file, root)
    frames, problems, notes = read_video(folder, file, root)
    entries = [Entry(frame.annotation, frame.split, frame.file) for frame in frames]
    notes.append(f"{file}: frames of one video show the same things; they are no proof for other videos")
    return entries, problems, [*notes, *_notes_on_file(file, root, entries)]


def _parse(file: Path) -> Element:
    root = parse_xml(file, "CVAT")
    if root.tag != "annotations":
        raise OtherFormatError(f"{file}: not CVAT (its root is <{root.tag}>, expected <annotations>)")
    return root


def read_entries(file: Path) -> tuple[list[Entry], list[str], list[str]]:
    """Read one XML file of images.

    Rotated boxes, ellipses, polygons, masks and cuboids become the boxes around them. Polylines, points and
    skeletons have no area and are left out with a note.

    Returns:
        Its entries, a problem for each `<image>` that cannot be used, and notes on the file as a whole.

    Raises:
        InputError: The file is malformed.
        OtherFormatError: It is not CVAT.
    """
    return _read_images(file, _parse(file))


def _read_images(file: Path, root: Element) -> tuple[list[Entry], list[str], list[str]]:
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
    attributes = sorted({element.get("name", "") for element in root.iterfind(".//attribute[@name]")})
    if attributes:
        notes.append(
            f"{file}: attributes of shapes and tags are not used ({', '.join(map(repr, attributes))})"
        )
    subsets = {image.get("subset", "") for image in root} - {"", "default"}
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
            add_shape(element, class_name, f"{place} ({class_name})", shapes)
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
