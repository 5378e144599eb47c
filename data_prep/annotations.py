"""What an annotation says, whatever format it came in: the shapes that every reader gives and all else uses.

A reader (data_prep/formats) turns files into a `Source` of `AnnotatedPicture`s without opening a picture;
`merge_annotations` then holds what several annotations say of one picture against the real, decoded picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.source_folder import SourceFolder, Split
from llava.common.boxes import Box, area
from llava.common.errors import InputError


@dataclass(frozen=True)
class Shape:
    """One annotated object: its class as written in the file and its box in pixels, x1 < x2, y1 < y2.

    `area` in pixels squared where the annotation outlines more than a box (a mask, a polygon), else None.
    """

    name: str
    box: Box
    area: float | None = None


@dataclass(frozen=True, slots=True)  # a table may hold a million
class Conversation:
    """A conversation that the annotation itself holds: one or more (question, answer) pairs about the
    picture, texts that are not empty and hold no `<image>`. `language` is None where the annotation does not
    say."""

    turns: tuple[tuple[str, str], ...]
    task: str = "vqa"
    language: str | None = None


@dataclass(frozen=True)
class Annotation:
    """What one file says of one picture.

    `picture` is the picture's name as the file writes it, "" if it does not; `size` is (width, height) as it
    states, None where absent or zero. Boxes are ordered (x1 <= x2, y1 <= y2) but not yet held against the
    real picture. `labels` are classes of the picture as a whole, without a place.
    """

    file: Path
    image: str = ""
    size: tuple[float, float] | None = None
    shapes: tuple[Shape, ...] = ()
    labels: tuple[str, ...] = ()
    conversations: tuple[Conversation, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class AnnotatedImage:
    """A picture and all that speaks of it. `key` is its path below the source, without suffix; `group` and
    `split` are what the source itself says of them, None where it says nothing."""

    file: Path
    key: str
    annotations: list[Annotation] = field(default_factory=list)
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class AnnotatedSource:
    """What a folder of annotated pictures holds, in the order of the pictures' keys. `unannotated` pictures
    are spoken of by nothing; `notes` tell what else was passed over or put right, a line each."""

    format: str
    images: tuple[AnnotatedImage, ...]
    unannotated: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def make_source(
    folder: SourceFolder, format: str, said: Iterable[tuple[Path, Annotation]], notes: Iterable[str] = ()
) -> AnnotatedSource:
    """The source made of (picture, what is said of it) pairs, in the pictures' order."""
    found: dict[Path, AnnotatedImage] = {}
    for image, annotation in said:
        known = found.setdefault(image, AnnotatedImage(image, folder.key(image)))
        known.annotations.append(annotation)
    joined = tuple(found[image] for image in folder.images if image in found)
    alone = tuple(image for image in folder.images if image not in found)
    return AnnotatedSource(format, joined, alone, tuple(notes))


def merge_annotations(
    image: AnnotatedImage, upright: tuple[int, int], orientation: int = 1
) -> tuple[list[Shape], list[str]]:
    """All boxes of a picture in pixels of the upright picture, and a note per box that had to be fixed.

    `upright` is the picture's size (width, height) after the rotation that its EXIF `orientation` (1..8)
    asks for. An annotation that states the size before rotation was made by a tool that does not rotate: its
    boxes are turned along. A size of the same shape is a picture scaled after annotating: its boxes are
    scaled along. Any other size is an InputError. Where the size does not tell (none is stated, or that of a
    square or of a picture turned by half), boxes are taken as drawn on the upright picture, with a note.
    """
    shapes: list[Shape] = []
    notes: list[str] = []
    for annotation in image.annotations:
        notes.extend(annotation.notes)
        turned = orientation >= 5 and annotation.size == upright[::-1] and annotation.size != upright
        scale_x, scale_y = (1.0, 1.0) if turned else _scale(annotation, image.file, upright)
        if turned:
            notes.append(f"{annotation.file}: boxes drawn before EXIF rotation; turned along")
        elif annotation.shapes and _may_be_turned(annotation.size, upright, orientation):
            notes.append(
                f"{annotation.file}: its size does not tell if boxes were drawn before EXIF rotation"
            )
        if (scale_x, scale_y) != (1.0, 1.0):
            notes.append(f"{annotation.file}: made for {_by(annotation.size)}, scaled to {_by(upright)}")
        for shape in annotation.shapes:
            x1, y1, x2, y2 = _turn(shape.box, upright, orientation) if turned else shape.box
            scaled = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
            clipped = clip(scaled, upright)
            if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
                notes.append(f"{annotation.file}: box of {shape.name!r} is empty or outside; left out")
                continue
            if any(abs(a - b) > 1 for a, b in zip(scaled, clipped, strict=True)):
                notes.append(f"{annotation.file}: box of {shape.name!r} reached outside; clipped")
            # What is cut off at the picture's edge takes its share of the area along.
            kept = area(clipped) / area(scaled) * scale_x * scale_y
            merged = Shape(shape.name, clipped, None if shape.area is None else shape.area * kept)
            if merged not in shapes:
                shapes.append(merged)
    return shapes, notes


def clip(box: Box, size: tuple[float, float]) -> Box:
    """`box` held inside a picture of `size` (width, height)."""
    width, height = size
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _turn(box: Box, upright: tuple[int, int], orientation: int) -> Box:
    """A box on the stored picture -> on the upright one, for the orientations that swap width and height
    (TIFF 6.0, tag 274: 5 transposed, 6 to be turned clockwise, 7 transversed, 8 counter-clockwise)."""
    width, height = upright
    y1, x1, y2, x2 = box
    if orientation in (6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def _may_be_turned(size: tuple[float, float] | None, upright: tuple[int, int], orientation: int) -> bool:
    return orientation > 1 and (size is None or orientation < 5 or upright[0] == upright[1])


def _scale(annotation: Annotation, image: Path, upright: tuple[int, int]) -> tuple[float, float]:
    if annotation.size is None or annotation.size == upright:
        return 1.0, 1.0
    scale_x, scale_y = upright[0] / annotation.size[0], upright[1] / annotation.size[1]
    if abs(scale_x / scale_y - 1) > 0.02:
        raise InputError(
            f"{annotation.file}: made for a picture of {_by(annotation.size)}, "
            f"but {image.name} is {_by(upright)}"
        )
    return scale_x, scale_y


def _by(size: Iterable[float] | None) -> str:
    return "x".join(f"{value:g}" for value in size or ())


def plain_name(name: str) -> str:
    """A class name without regard to case, underscores, hyphens and spacing."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
