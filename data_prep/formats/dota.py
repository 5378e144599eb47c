"""Read DOTA labels, turned boxes as their four corners: a text file for each image, a line for each object.

The format (G.-S. Xia et al., "DOTA", CVPR 2018; https://captain-whu.github.io/DOTA/dataset.html): `x1 y1 x2
y2 x3 y3 x4 y4 class difficulty` in pixels, perhaps after two lines `imagesource:...` and `gsd:...`.
Roboflow calls it YOLOv5 Oriented Bounding Boxes and writes it in `labelTxt`. Ultralytics' own OBB labels,
which begin with the number of a class, are read as outlines by `yolo`.
"""

from __future__ import annotations

import re

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.fields import parse_class_name, parse_number
from data_prep.formats.outlines import bounding_box, polygon_area
from data_prep.formats.text_labels import find_label_files, read_label_files
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "dota"


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like DOTA, None if it does not."""
    count = len(find_label_files(folder, _parse_line))
    return f"{count} text file(s) with four corners and a class on each line" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every label file in the folder or below and find its image. An empty file shows nothing.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no labels or no images.
    """
    files = find_label_files(folder, _parse_line)
    return read_label_files(folder, NAME, files, _parse_line, "DOTA labels (*.txt)")


def _parse_line(line: str) -> Shape | None:
    if re.match(r"(?:imagesource|gsd)\s*:", line, re.I):
        return None
    parts = line.replace(",", " ").split()
    numbers = [parse_number(part) for part in parts[:8]]
    known = [number for number in numbers if number is not None]
    # A name may hold spaces; the number behind it says how hard the object is to see.
    rest = parts[8:-1] if len(parts) > 9 and parts[-1].isdigit() else parts[8:]
    name = parse_class_name(" ".join(rest))
    is_name = name is not None and any(parse_number(part) is None for part in rest)  # not YOLO's keypoints
    if len(known) < 8 or name is None or not is_name:
        raise InputError("expected `x1 y1 x2 y2 x3 y3 x4 y4 class difficulty`")
    points = list(zip(known[::2], known[1::2], strict=True))
    return Shape(name, bounding_box(points), polygon_area(points))
