"""Read one file of YOLO labels, as tools and people write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.annotations import Shape
from data_prep.formats.fields import parse_number
from data_prep.formats.outlines import bounding_box, polygon_area
from data_prep.formats.shapes import ShapeCollector
from data_prep.formats.yolo_data import DataSet
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_text

MAX_FRACTION = 2.0  # fractions beyond this are pixels, not a box that reaches out of its image


class PixelsError(InputError):
    """A label file has numbers that are no fractions; `numbers` are those of all its lines."""

    def __init__(self, message: str, numbers: Sequence[Sequence[float]]) -> None:
        super().__init__(message)
        self.numbers = numbers


@dataclass
class LabelFile:
    """The content of a label file: `shapes` in fractions of the image, or in pixels, notes on what was
    corrected, and what its lines hold that is ignored."""

    shapes: tuple[Shape, ...]
    notes: tuple[str, ...] = ()
    ignored: set[str] = field(default_factory=set)
    in_pixels: bool = False


@dataclass(frozen=True)
class LabelLine:
    """The class index of a line, the four numbers of a box or the six and more of an outline, and those that
    stand behind a box."""

    index: int
    numbers: list[float]
    more: list[float]


def centre_and_sides(numbers: Sequence[float]) -> Box:
    """Return the box of (centre x, centre y, width, height), which may be reversed."""
    cx, cy, width, height = numbers
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def read_labels(
    file: Path, data_set: DataSet, pixel_box: Callable[[Sequence[float]], Box] | None = None
) -> LabelFile:
    """Read one label file.

    Args:
        file: The text file.
        data_set: Its classes.
        pixel_box: Makes a box of four numbers where these are pixels, so that shapes are in pixels.

    Raises:
        PixelsError: There are numbers that are no fractions, and no `pixel_box`.
        InputError: A line is anything but a box or an outline of a class; it is named.
    """
    shapes = ShapeCollector()
    ignored = set()
    numbers: list[list[float]] = []
    no_fractions: list[str] = []
    for row, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {row}"
        class_name, content = _read_line(place, line, data_set)
        numbers.append(content.numbers)
        if too_large := [value for value in content.numbers if abs(value) > MAX_FRACTION]:
            no_fractions.append(f"{place}: {too_large[0]:g} is no share of a picture; write 0..1, not pixels")
        if content.more:
            ignored.add("a confidence, as predictions do" if len(content.more) == 1 else "keypoints")
        if has_commas(line):
            ignored.add("commas between numbers")
        box, area = _outline(content.numbers, pixel_box or centre_and_sides)
        named_place = f"{place} ({class_name!r}):"
        if len(content.numbers) == 4 and (box[0] > box[2] or box[1] > box[3]):
            shapes.note(f"{named_place} negative width or height; put right")
        corners = [(box[0], box[1]), (box[2], box[3])]
        shapes.add_unless_empty(Shape(class_name, bounding_box(corners), area), named_place)
    if no_fractions and not pixel_box:
        raise PixelsError(no_fractions[0], numbers)
    return LabelFile(shapes.shapes, tuple(shapes.notes), ignored, in_pixels=pixel_box is not None)


def _outline(numbers: Sequence[float], box: Callable[[Sequence[float]], Box]) -> tuple[Box, float | None]:
    if len(numbers) == 4:
        return box(numbers), None
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    return bounding_box(points), polygon_area(points)


def _read_line(place: str, line: str, data_set: DataSet) -> tuple[str, LabelLine]:
    """Return the class name and the content of a line. InputError if it is no box or outline of a class."""
    content = parse_line(line, data_set.keypoints, data_set.indices)
    if content is None:
        raise InputError(
            f"{place}: neither a box (class cx cy width height) nor an outline (class x1 y1 x2 y2 ...) "
            f"of plain numbers"
        )
    if content.index not in data_set.names:
        known = len(data_set.names)
        raise InputError(f"{place}: class {content.index} is not among the {known} names in {data_set.file}")
    if len(content.more) == 1 and not 0 <= content.more[0] <= 1:
        raise InputError(
            f"{place}: {content.more[0]:g} after the box is no confidence (0..1); take it out, and of a "
            "turned box write the four corners (class x1 y1 x2 y2 x3 y3 x4 y4)"
        )
    return data_set.names[content.index], content


def parse_line(line: str, keypoints: int = 0, indices: Mapping[str, int] | None = None) -> LabelLine | None:
    """Return what a line holds, None if it is neither a box nor an outline.

    Args:
        line: Numbers with blanks, commas or semicolons between them; commas in all of them are decimal ones.
        keypoints: How many numbers follow a box in a pose data set.
        indices: The class index of each class name, in lower case: a name may stand in place of its index.
    """
    words = _split(line)
    if indices and words[0].casefold() in indices:
        words[0] = str(indices[words[0].casefold()])
    values = [parse_number(word) for word in words]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 5 or not known[0].is_integer():
        return None
    box_lengths = (5, 6, 5 + keypoints) if keypoints else (5, 6)
    if len(known) in box_lengths:
        return LabelLine(int(known[0]), known[1:5], known[5:])
    return LabelLine(int(known[0]), known[1:], []) if len(known) % 2 and not keypoints else None


def has_commas(line: str) -> bool:
    return "," in line or ";" in line


def _split(line: str) -> list[str]:
    """Return the words of a line, at least one, with decimal points."""
    words = line.replace(";", " ").split()
    if not has_commas(line):
        return words
    if len(words) >= 5 and all(re.fullmatch(r"[^,.]+(,\d+)?", word) for word in words):
        return [word.replace(",", ".") for word in words]
    return re.split(r"[,\s]+", " ".join(words).strip(" ,"))
