"""Read KITTI labels: a text file for each image, a line for each object.

The format (A. Geiger et al., "Are we ready for Autonomous Driving?", CVPR 2012; readme.txt of the object
development kit; NVIDIA TAO writes it too): `type truncated occluded alpha left top right bottom` in pixels,
then seven numbers of the object's place in the room and perhaps a score. `DontCare` marks what was not
labelled.
"""

from __future__ import annotations

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.fields import parse_number
from data_prep.formats.outlines import bounding_box
from data_prep.formats.text_labels import find_label_files, read_label_files
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "kitti"


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like KITTI, None if it does not."""
    count = len(find_label_files(folder, _parse_line))
    return f"{count} text file(s) with KITTI's 15 columns" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every label file in the folder or below and find its image. An empty file shows nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no labels or no images.
    """
    files = find_label_files(folder, _parse_line)
    return read_label_files(folder, NAME, files, _parse_line, "KITTI labels (*.txt)")


def _parse_line(line: str) -> Shape | str:
    name, *rest = line.split()
    values = [parse_number(part) for part in rest]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or len(numbers) not in (14, 15) or parse_number(name) is not None:
        raise InputError("expected a class and KITTI's 14 numbers")
    if name.casefold() == "dontcare":
        return "DontCare"
    x1, y1, x2, y2 = numbers[3:7]
    return Shape(name, bounding_box([(x1, y1), (x2, y2)]))
