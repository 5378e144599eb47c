"""Read the lists that the Keras and TensorFlow ports of YOLO train on: a line for each image.

The format (github.com/qqwweee/keras-yolo3, README; roboflow.com/formats/yolov4-pytorch-txt): `path
x1,y1,x2,y2,class x1,y1,x2,y2,class ...` in pixels, the class as an index into a text with a name on each line
(`_classes.txt`, `classes.txt`, `voc_classes.txt`). A line with a path alone is a picture with nothing in it.
"""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.csv_files import possible_tables
from data_prep.formats.image_lists import ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_text

NAME = "keras_yolo"
_BOX = r"-?\d+(?:\.\d+)?(?:,-?\d+(?:\.\d+)?){3},\d+"
_SUFFIX = "|".join(map(re.escape, sorted(IMAGE_SUFFIXES)))
# A name may hold spaces.
_LINE = re.compile(rf"(?P<name>.+?(?:{_SUFFIX}))(?P<boxes>(?:\s+{_BOX})*)\s*", re.I)
_NAMES_FILE = re.compile(r"(?:.*[_-])?classes(?:[_-].*)?", re.I)
_DETECT_BYTES, _DETECT_LINES = 1 << 16, 20


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like lists of keras-yolo, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} list(s) of pictures, each followed by x1,y1,x2,y2,class" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every list in the folder or below.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no list or no images.
    """
    return read_image_lists(
        folder, NAME, _find_files(folder), _read_file, "list(s) of pictures with boxes (*.txt)"
    )


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in possible_tables(folder) if _is_list(path)]


def _is_list(path: Path) -> bool:
    """Judge by the first lines: most are pictures, and one has a box."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = [text for line in file.readlines(_DETECT_BYTES)[:_DETECT_LINES] if (text := line.strip())]
    except OSError:
        return False
    matches = [match for line in lines if (match := _LINE.fullmatch(line))]
    return 2 * len(matches) > len(lines) and any(match["boxes"] for match in matches)


def _read_file(content: ImageList) -> None:
    names = _class_names(content)
    for number, line in enumerate(read_text(content.file).splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            content.add_problem(f"line {number}", "expected `path x1,y1,x2,y2,class ...`")
        elif entry := content.entry(match["name"]):
            for position, box in enumerate(match["boxes"].split(), start=1):
                *corners, index = box.split(",")
                if len(index) > 6 or int(index) >= len(names):
                    content.add_problem(
                        f"line {number}", f"class {index[:9]} is not among {len(names)} names"
                    )
                    continue
                x1, y1, x2, y2 = (float(corner) for corner in corners)
                shape = Shape(names[int(index)], bounding_box([(x1, y1), (x2, y2)]))
                entry.shapes.add_unless_empty(shape, f"{content.file}, line {number}: box {position}:")


def _class_names(content: ImageList) -> list[str]:
    """Return the names in the text nearest to the list: beside it, else the only one of the source."""
    named = [
        path
        for path in content.folder.named(".txt", ".names")
        if path.suffix.lower() == ".names" or _NAMES_FILE.fullmatch(path.stem)
    ]
    beside = [path for path in named if path.parent == content.file.parent]
    if len(beside or named) != 1:
        found = "several texts" if named else "no text"
        raise InputError(f"{content.file}: {found} with names of classes; put one _classes.txt beside it")
    lines = [" ".join(line.split()) for line in read_text((beside or named)[0]).splitlines()]
    return [line for line in lines if line]
