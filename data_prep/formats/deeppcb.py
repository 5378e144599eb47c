"""Read DeepPCB: pairs of a tested board and its template, and a text of the tested one's defects.

The format (S. Tang et al., "Online PCB Defect Detector On A New PCB Defect Dataset", 2019;
github.com/tangsanli5201/DeepPCB): `00041/00041000_test.jpg` and `00041/00041000_temp.jpg`, and
`00041_not/00041000.txt` with a line `x1 y1 x2 y2 type` for each defect. `trainval.txt` and `test.txt` list
pairs. Templates have no defects; they are the same boards, so that they would give the answer away, and are
not used.
"""

from __future__ import annotations

from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.fields import parse_number
from data_prep.formats.image_lists import without_images
from data_prep.formats.layout import read_files, require_images, set_groups_and_splits
from data_prep.formats.outlines import bounding_box
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_text

NAME = "deeppcb"
_TYPES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")  # 1 to 6 in the files
_TESTED, _TEMPLATE = "_test", "_temp"


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like DeepPCB, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} text file(s) of pictures named *{_TESTED} and *{_TEMPLATE}" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every text of a pair and find the tested image.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such pairs.
    """
    files = _find_files(folder)
    if not files:
        raise InputError(
            f"{folder.root}: no texts of pictures named *{_TESTED} and *{_TEMPLATE}, as in DeepPCB"
        )
    require_images(folder, f"{folder.root}: {len(files)} text(s) of DeepPCB")
    annotations, _, problems = read_files(files, read_boxes)
    pairs: list[tuple[Path, Annotation]] = []
    for file, annotation in annotations:
        try:
            pairs.append((folder.image_of(file, file.stem + _TESTED), annotation))
        except InputError as error:
            problems.append(str(error))
    templates = {path for path in folder.images if path.stem.casefold().endswith(_TEMPLATE)}
    note = f"{len(templates)} picture(s) of templates ({_TEMPLATE}) were not used"
    source = make_source(folder, NAME, pairs, [note])
    set_groups_and_splits(source, folder)
    return without_images(source, templates), problems


def _find_files(folder: SourceFolder) -> list[Path]:
    """Return the texts whose name is that of a pair."""
    stems = {image.stem.casefold() for image in folder.images}
    return [
        path
        for path in folder.named(".txt")
        if {path.stem.casefold() + _TESTED, path.stem.casefold() + _TEMPLATE} <= stems
    ]


def read_boxes(file: Path) -> Annotation:
    """Read one text. InputError naming file and line if it is not readable."""
    shapes = ShapeCollector()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        values = [parse_number(part) for part in line.replace(",", " ").split()]
        known = [value for value in values if value is not None]
        if len(known) != 5 or len(values) != 5 or known[4] not in range(1, len(_TYPES) + 1):
            raise InputError(
                f"{file}, line {number}: expected `x1 y1 x2 y2 type`, the type 1 to {len(_TYPES)}"
            )
        x1, y1, x2, y2, kind = known
        shape = Shape(_TYPES[int(kind) - 1], bounding_box([(x1, y1), (x2, y2)]))
        shapes.add_unless_empty(shape, f"{file}, line {number}:")
    return Annotation(file, shapes=shapes.shapes, notes=tuple(shapes.notes))
