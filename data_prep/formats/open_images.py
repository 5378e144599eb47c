"""Read Open Images: CSV files of boxes and of verified labels, with boxes as shares of the picture.

The format (A. Kuznetsova et al., "The Open Images Dataset V4", 2020;
https://storage.googleapis.com/openimages/web/download_v7.html): `*-annotations-bbox.csv` with `ImageID`,
`LabelName`, `XMin`, `XMax`, `YMin`, `YMax` (0..1); `*-human-imagelabels.csv` with `ImageID`, `LabelName` and
`Confidence`, where 0 says that the class is not there; `class-descriptions*.csv` with the names of the codes
in LabelName. Images are named by ImageID. Masks are not read: each has its box.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.box_tables import from_shares
from data_prep.formats.csv_files import open_csv
from data_prep.formats.fields import parse_class_name
from data_prep.formats.image_lists import ImageList, read_image_lists, without_images
from data_prep.formats.outlines import bounding_box
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "open_images"
_LABEL_COLUMNS = ("imageid", "labelname", "confidence")
_BOX_COLUMNS = ("imageid", "labelname", "xmin", "xmax", "ymin", "ymax")
_PLACES = ("xmin", "ymin", "xmax", "ymax")


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Open Images, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} CSV file(s) with Open Images' ImageID and LabelName" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every CSV of boxes and of labels in the folder or below.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    names = _class_names(folder)
    read_file = partial(_read_file, names=names)
    source, problems = read_image_lists(
        folder, NAME, _find_files(folder), read_file, "CSV file(s) of Open Images"
    )
    masks = {path for path in source.unannotated if "masks" in path.relative_to(folder.image_root).parts[:-1]}
    return without_images(source, masks), problems


def _find_files(folder: SourceFolder) -> list[Path]:
    files = []
    for path in folder.named(".csv"):
        columns = set(open_csv(path).columns)
        is_boxes = columns >= {*_BOX_COLUMNS, "isoccluded"}
        if is_boxes or (columns >= set(_LABEL_COLUMNS) and not columns & {"xmin", "maskpath"}):
            files.append(path)
    return files


def _class_names(folder: SourceFolder) -> dict[str, str]:
    """Return the name of each code, from the files that describe classes; the first row may be a header."""
    names: dict[str, str] = {}
    for path in folder.named(".csv"):
        if "class-descriptions" in path.name or path.name == "classes.csv":
            for _, cells in open_csv(path).rows(header=False):
                if len(cells) > 1 and cells[0] != "LabelName" and (name := parse_class_name(cells[1])):
                    names[cells[0]] = name
    return names


def _read_file(content: ImageList, names: Mapping[str, str]) -> None:
    table = open_csv(content.file)
    index = {name: position for position, name in enumerate(table.columns)}
    is_boxes = "xmin" in index
    for line, cells in table.rows():
        place = f"line {line}"
        if len(cells) < len(table.columns):
            content.add_problem(place, f"has {len(cells)} column(s), fewer than the header")
            continue
        code = parse_class_name(cells[index["labelname"]])
        entry = content.entry(cells[index["imageid"]])
        if code is None or entry is None:
            content.add_problem(place, "names no class") if entry else None
            continue
        if not is_boxes:
            confidence = table.number(cells[index["confidence"]])
            if confidence is None or confidence > 0:
                entry.labels[names.get(code, code)] = None
            continue
        values = [table.number(cells[index[column]]) for column in _PLACES]
        x1, y1, x2, y2 = values
        if x1 is None or y1 is None or x2 is None or y2 is None:
            content.add_problem(place, "has no readable XMin, YMin, XMax, YMax")
            continue
        try:
            shape = Shape(names.get(code, code), from_shares(bounding_box([(x1, y1), (x2, y2)]), entry))
            entry.shapes.add_unless_empty(shape, f"{content.file}, {place}:")
        except InputError as error:
            content.add_problem(place, error)
