"""Read tables of run-length masks, as Kaggle's competitions have them: a CSV with a row for each object.

The format (kaggle.com/c/severstal-steel-defect-detection, data): columns `ImageId`, `ClassId` (or both in
one, `ImageId_ClassId`, joined by `_`) and `EncodedPixels`, pairs of start and length over the pixels counted
from 1, down the columns. A row without runs says that the picture does not show the class. A table without a
column of classes has one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Annotation, Shape
from data_prep.formats.box_tables import CLASS_COLUMNS, IMAGE_COLUMNS
from data_prep.formats.csv_files import CsvFile, find_column, open_csv, possible_tables
from data_prep.formats.fields import parse_class_name
from data_prep.formats.image_lists import ImageList, read_image_lists
from data_prep.formats.outlines import mask_box
from data_prep.formats.shapes import UNNAMED
from data_prep.formats.sizes import image_size
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "run_table"
_RUNS = ("encodedpixels", "rle", "rlemask", "maskrle", "segmentation")
_IMAGE_AND_CLASS = "imageidclassid"
_NO_RUNS = {"", "-1", "nan", "none"}


@dataclass(frozen=True)
class _Columns:
    image: int
    runs: int
    class_name: int | None
    has_class_in_image: bool


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like tables of run-length masks, None if it does not."""
    count = len(_find_tables(folder))
    return f"{count} table(s) with columns for picture and run-length masks" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every table in the folder or below: a Shape for each row.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such table or no images.
    """
    source, problems = read_image_lists(
        folder, NAME, _find_tables(folder), _read_table, "table(s) of run-length masks"
    )
    return _with_unlisted(source, folder), problems


def _with_unlisted(source: AnnotatedSource, folder: SourceFolder) -> AnnotatedSource:
    """Return the source with the images that show nothing because no row is about them.

    Those are images beside listed ones, if no row is without runs: such a table lists what there is
    (Severstal's later `train.csv`). A table with such rows lists every image.
    """
    if not all(part.shapes for image in source.images for part in image.annotations):
        return source
    folders = {image.file.parent: image for image in source.images}
    images = {image.file: image for image in source.images}
    for path in source.unannotated:
        if beside := folders.get(path.parent):
            annotation = Annotation(beside.annotations[0].file)
            images[path] = AnnotatedImage(path, folder.key(path), [annotation], split=beside.split)
    added = len(images) - len(source.images)
    if not added:
        return source
    note = f"{added} picture(s) that no row is about, beside others: taken as showing nothing"
    return replace(
        source,
        images=tuple(images[path] for path in folder.images if path in images),
        unannotated=tuple(path for path in source.unannotated if path not in images),
        notes=(*source.notes, note),
    )


def _find_tables(folder: SourceFolder) -> list[Path]:
    return [path for path in possible_tables(folder) if _find_columns(open_csv(path))]


def _find_columns(table: CsvFile) -> _Columns | None:
    columns = table.columns
    image, runs = find_column(columns, (_IMAGE_AND_CLASS, *IMAGE_COLUMNS)), find_column(columns, _RUNS)
    if image is None or runs is None:
        return None
    rest = [name if index not in (image, runs) else "" for index, name in enumerate(columns)]
    return _Columns(image, runs, find_column(rest, CLASS_COLUMNS), columns[image] == _IMAGE_AND_CLASS)


def _read_table(content: ImageList) -> None:
    table = open_csv(content.file)
    columns = _find_columns(table)
    if columns is None:
        return
    if columns.class_name is None and not columns.has_class_in_image:
        content.notes.append(f"{content.file}: has no column of classes; all are called {UNNAMED!r}")
    for line, cells in table.rows():
        if len(cells) < len(table.columns):
            content.add_problem(f"line {line}", f"has {len(cells)} column(s), fewer than the header")
            continue
        name, class_text = cells[columns.image], UNNAMED
        if columns.has_class_in_image:
            name, _, class_text = name.rpartition("_")
        elif columns.class_name is not None:
            class_text = cells[columns.class_name]
        text = cells[columns.runs]
        if (entry := content.entry(name)) is None or text.casefold() in _NO_RUNS:
            continue
        try:
            class_name = parse_class_name(class_text)
            if class_name is None:
                raise InputError("names no class")
            size = image_size(entry.image)
            entry.size = (float(size[0]), float(size[1]))
            shape = Shape(class_name, *_outline(text, size))
            entry.shapes.add_unless_empty(shape, f"{content.file}, line {line}:")
        except InputError as error:
            content.add_problem(f"line {line}", error)


def _outline(text: str, size: tuple[int, int]) -> tuple[Box, float]:
    """Return the box and area of runs, `size` being the image's. InputError if they do not fit it."""
    parts = text.split()
    if len(parts) % 2 or not all(part.isdecimal() and len(part) < 12 for part in parts):
        raise InputError("its runs are not pairs of start and length")
    numbers = [int(part) for part in parts]
    runs = [
        (start - 1, start - 1 + length) for start, length in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    width, height = size
    if any(start < 0 or stop > width * height for start, stop in runs):
        raise InputError(f"its runs reach beyond a picture of {width}x{height}")
    found = mask_box(runs, height)  # rows of `mask_box` are the columns here
    if found is None:
        raise InputError("its runs are empty")
    (top, left, bottom, right), area = found
    return (left, top, right, bottom), float(area)
