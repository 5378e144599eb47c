"""Annotations in one form, whatever format they came in: every reader gives it and all other code uses it.

A reader (data_prep/formats) turns files into an `AnnotatedSource` of `AnnotatedImage`s without opening an
image; `merge_annotations` then checks all annotations of one image against the decoded image.
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

    `area` is in pixels squared where the annotation outlines more than a box (a mask, a polygon), else None.
    """

    name: str
    box: Box
    area: float | None = None


@dataclass(frozen=True, slots=True)  # a table may hold a million
class Conversation:
    """A conversation about an image that the annotation itself holds.

    `turns` are one or more (question, answer) pairs, texts that are not empty and hold no `<image>`;
    `language` is None where the annotation does not state it.
    """

    turns: tuple[tuple[str, str], ...]
    task: str = "vqa"
    language: str | None = None


@dataclass(frozen=True)
class Annotation:
    """What one file states about one image.

    `image` is the image's name as the file writes it, "" if it does not; `size` is the (width, height) that
    it states, None where absent or zero. Boxes are ordered (x1 <= x2, y1 <= y2) but not yet checked against
    the decoded image. `labels` are classes of the image as a whole, without a place.
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
    """An image file with all its annotations.

    `key` is its path below the source, without suffix; `group` and `split` are those that the source itself
    states, None where it states none.
    """

    file: Path
    key: str
    annotations: list[Annotation] = field(default_factory=list)
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class AnnotatedSource:
    """What a folder of annotated images holds, in the order of the images' keys.

    `unannotated` are the images without any annotation; `notes` say what was ignored or corrected, a line
    each. `made` are the annotation files that say their images were made, not taken.
    """

    format: str
    images: tuple[AnnotatedImage, ...]
    unannotated: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    made: tuple[Path, ...] = ()


def make_source(
    folder: SourceFolder, format: str, pairs: Iterable[tuple[Path, Annotation]], notes: Iterable[str] = ()
) -> AnnotatedSource:
    """Return the source that (image, annotation) pairs make.

    Args:
        folder: All images, in their order.
        format: What `--format` calls the format.
        pairs: An image may be in several.
        notes: Lines on what was ignored or corrected.

    An image without annotation in a folder of masks (`names_masks`), with the name of an annotated one, is
    its mask and no unannotated image.
    """
    by_image: dict[Path, AnnotatedImage] = {}
    for image, annotation in pairs:
        annotated = by_image.setdefault(image, AnnotatedImage(image, folder.key(image)))
        annotated.annotations.append(annotation)
    images = tuple(by_image[image] for image in folder.images if image in by_image)
    stems = {image.stem.casefold() for image in by_image}
    unannotated: list[Path] = []
    masks: list[Path] = []
    for image in folder.images:
        if image not in by_image:
            is_mask = image.stem.casefold() in stems and folder.in_mask_folder(image)
            (masks if is_mask else unannotated).append(image)
    if masks:
        notes = [*notes, f"{len(masks)} picture(s) taken for masks of others, for instance {masks[0]}"]
    return AnnotatedSource(format, images, tuple(unannotated), tuple(notes))


def merge_annotations(
    image: AnnotatedImage, upright: tuple[int, int], orientation: int = 1
) -> tuple[list[Shape], list[str]]:
    """Merge all annotations of an image, with boxes in pixels of the upright image.

    An annotation that states the size before rotation was made by a tool that does not rotate: its boxes are
    rotated along. A size of the same aspect ratio is an image scaled after annotating: its boxes are scaled
    along. Where the size does not tell (none is stated, or that of a square or of an image rotated by half a
    turn), boxes are taken as drawn on the upright image, with a note.

    Args:
        image: The image with its annotations.
        upright: Its (width, height) after the rotation that its EXIF orientation asks for.
        orientation: That orientation, 1 to 8.

    Returns:
        The shapes, each once, and the notes of the annotations with one more for each box that was corrected.

    Raises:
        InputError: An annotation states a size of another aspect ratio.
    """
    shapes: list[Shape] = []
    notes: list[str] = []
    for annotation in image.annotations:
        notes.extend(annotation.notes)
        is_rotated = orientation >= 5 and annotation.size == upright[::-1] and annotation.size != upright
        scale = (1.0, 1.0) if is_rotated else _scale(annotation, image.file, upright)
        if is_rotated:
            notes.append(f"{annotation.file}: boxes drawn before EXIF rotation; turned along")
        elif annotation.shapes and _rotation_is_unknown(annotation.size, upright, orientation):
            notes.append(
                f"{annotation.file}: its size does not tell if boxes were drawn before EXIF rotation"
            )
        if scale != (1.0, 1.0):
            made_for, real = _format_size(annotation.size), _format_size(upright)
            notes.append(f"{annotation.file}: made for {made_for}, scaled to {real}")
        for shape in annotation.shapes:
            box = _rotate(shape.box, upright, orientation) if is_rotated else shape.box
            merged = _fit(Shape(shape.name, box, shape.area), scale, upright, annotation.file, notes)
            if merged is not None and merged not in shapes:
                shapes.append(merged)
    return shapes, notes


def _fit(
    shape: Shape, scale: tuple[float, float], size: tuple[int, int], file: Path, notes: list[str]
) -> Shape | None:
    """Scale a shape and clip it to its image.

    Args:
        shape: A shape as annotated.
        scale: The factors for x and y.
        size: The image's (width, height).
        file: The annotation file, for `notes`.
        notes: Gets a note on a shape that is clipped or left out.

    Returns:
        The shape; None if less than a pixel of it is inside the image.
    """
    scale_x, scale_y = scale
    x1, y1, x2, y2 = shape.box
    scaled = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
    clipped = clip(scaled, size)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        notes.append(f"{file}: box of {shape.name!r} is empty or outside; left out")
        return None
    if any(abs(a - b) > 1 for a, b in zip(scaled, clipped, strict=True)):
        notes.append(f"{file}: box of {shape.name!r} reached outside; clipped")
    # Clipping takes the same fraction of the area as of the box.
    area_scale = area(clipped) / area(scaled) * scale_x * scale_y
    return Shape(shape.name, clipped, None if shape.area is None else shape.area * area_scale)


def clip(box: Box, size: tuple[float, float]) -> Box:
    """Return `box` clipped to an image of `size` (width, height)."""
    width, height = size
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _rotate(box: Box, upright: tuple[int, int], orientation: int) -> Box:
    """Return where a box on the stored image is on the upright one, whose (width, height) is `upright`.

    For the orientations that swap width and height (TIFF 6.0, tag 274): 5 transposed, 6 to be rotated
    clockwise, 7 transversed, 8 counter-clockwise.
    """
    width, height = upright
    y1, x1, y2, x2 = box
    if orientation in (6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def _rotation_is_unknown(
    size: tuple[float, float] | None, upright: tuple[int, int], orientation: int
) -> bool:
    """Return whether boxes on the stored and on the upright image cannot be told apart by the stated size."""
    return orientation > 1 and (size is None or orientation < 5 or upright[0] == upright[1])


def _scale(annotation: Annotation, image: Path, upright: tuple[int, int]) -> tuple[float, float]:
    """Return the factors for x and y from the size that an annotation states to the real one."""
    if annotation.size is None or annotation.size == upright:
        return 1.0, 1.0
    scale_x, scale_y = upright[0] / annotation.size[0], upright[1] / annotation.size[1]
    if abs(scale_x / scale_y - 1) > 0.02:
        raise InputError(
            f"{annotation.file}: made for a picture of {_format_size(annotation.size)}, "
            f"but {image.name} is {_format_size(upright)}"
        )
    return scale_x, scale_y


def _format_size(size: Iterable[float] | None) -> str:
    return "x".join(f"{value:g}" for value in size or ())


def plain_name(name: str) -> str:
    """Return a class name without regard to case, underscores, hyphens and spacing."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
