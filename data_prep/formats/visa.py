"""Read VisA: CSV files that list images, and masks whose values are kinds of defect.

The format (Y. Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022): `split_csv/1cls.csv` and others beside it with the columns object, split, label
(normal or anomaly), image, mask; in each object's folder an `image_anno.csv` with image, label (normal, or
kinds as `bent,scratch`), mask. Paths are written from the root (`pcb1/Data/Images/Anomaly/000.JPG`). A mask
holds 0 and a number for each kind of defect, the same within an object.

The rules here. The kinds of an image come from `image_anno.csv`, without it they are `anomaly`. Each
connected region of a mask's value is a Shape. An image of one kind gives its name to all its regions. Of
several kinds, a value has the name that the object's images of one kind and one value give it, all alike; if
one value and one name are left over, they belong together; what is still open is a Shape `anomaly` beside the
names without a place. The column split is not used: in 1cls.csv there are no defects in train.

The CSV files are read in visa_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Annotation,
    Shape,
    plain_name,
)
from data_prep.formats.masks import Region, connected_regions, read_mask
from data_prep.formats.visa_rows import KINDS_FILE, FileFinder, Row, find_tables, read_rows
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "visa"
UNNAMED = "anomaly"
_MAX_VALUES = 32

ValueNames = Mapping[int, str]  # what values of masks are called


@dataclass(frozen=True)
class _Mask:
    """A mask: its size (width, height), the regions of each value, and how many specks were left out."""

    size: tuple[float, float]
    regions: Mapping[int, Sequence[Region]]
    specks: int


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like VisA, None if it does not."""
    files = find_tables(folder)
    return f"{len(files)} CSV file(s) with VisA's columns" if files else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every image that VisA's CSV files list, with the regions of its mask.

    Returns:
        The source and the problems, one line each (a row without its image, rows that contradict each other,
        an unreadable mask); a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file.
    """
    tables = find_tables(folder)
    if not tables:
        raise InputError(f"{folder.root}: no split_csv/*.csv or {KINDS_FILE} of VisA in it or below")
    problems: list[str] = []
    rows = _rows_by_image(folder, tables, problems)
    masks = _read_masks(rows.values(), problems)
    names = _names_by_object(folder, rows, masks)
    images = []
    for path in folder.images:
        if path in rows:
            annotation = _annotate(rows[path], masks.get(path), names.get(_object_of(folder, path), {}))
            images.append(AnnotatedImage(path, folder.key(path), [annotation]))
    if not images and not problems:
        raise InputError(f"{folder.root}: its {len(tables)} CSV file(s) list no picture")
    mask_files = {row.mask for row in rows.values()}
    unannotated = tuple(path for path in folder.images if path not in rows and path not in mask_files)
    note = "the column split was not used: VisA's 1cls.csv has no defects in train"
    return AnnotatedSource(NAME, tuple(images), unannotated, (note,)), problems


def _rows_by_image(folder: SourceFolder, tables: Iterable[Path], problems: list[str]) -> dict[Path, Row]:
    """Return the first row of each image. `problems` gets a line for each row that contradicts it, and for
    what cannot be read."""
    finder = FileFinder(folder)
    rows: dict[Path, Row] = {}
    for table in tables:
        try:
            for row in read_rows(table, finder, problems):
                first = rows.setdefault(row.image, row)
                if bool(first.kinds) != bool(row.kinds) or first.mask != row.mask:
                    place = f"{first.file}, line {first.line}"
                    problems.append(f"{table}, line {row.line}: says otherwise than {place} of one picture")
        except InputError as error:
            problems.append(str(error))
    return rows


def _read_masks(rows: Iterable[Row], problems: list[str]) -> dict[Path, _Mask]:
    """Return the mask of each image that has one; `problems` gets a line for each that cannot be read."""
    masks: dict[Path, _Mask] = {}
    for row in rows:
        if row.mask is not None:
            try:
                masks[row.image] = _read_mask(row.mask)
            except InputError as error:
                problems.append(str(error))
    return masks


def _read_mask(file: Path) -> _Mask:
    pixels = read_mask(file)
    values = [value for value in np.unique(pixels) if value != 0]
    if len(values) > _MAX_VALUES:
        raise InputError(
            f"{file}: {len(values)} different values, but a VisA mask has one for each kind of defect; "
            "save it without loss"
        )
    regions, specks = {}, 0
    for value in values:
        regions_of_value, left_out = connected_regions(pixels == value)
        if regions_of_value:
            regions[int(value)] = regions_of_value
        specks += left_out
    return _Mask((float(pixels.shape[1]), float(pixels.shape[0])), regions, specks)


def _object_of(folder: SourceFolder, image: Path) -> str:
    return image.relative_to(folder.image_root).parts[0]


def _names_by_object(
    folder: SourceFolder, rows: Mapping[Path, Row], masks: Mapping[Path, _Mask]
) -> dict[str, ValueNames]:
    """Return for each object the plain names of mask values, where images of one kind and one value agree."""
    candidates: dict[tuple[str, int], set[str]] = {}
    for path, mask in masks.items():
        kinds = rows[path].kinds
        if len(kinds) == 1 and len(mask.regions) == 1:
            (value,) = mask.regions
            candidates.setdefault((_object_of(folder, path), value), set()).add(plain_name(kinds[0]))
    names: dict[str, dict[int, str]] = {}
    for (object_name, value), plain_names in candidates.items():
        if len(plain_names) == 1:
            names.setdefault(object_name, {})[value] = plain_names.pop()
    return dict(names)


def _annotate(row: Row, mask: _Mask | None, object_names: ValueNames) -> Annotation:
    """Return the annotation of a row's image; `object_names` as `_names_by_object` returns them."""
    if not row.kinds:
        return Annotation(row.file)
    if row.mask is None or mask is None:
        note = f"{row.image}: no mask; its defects are known of the whole picture only"
        return Annotation(row.file, labels=row.kinds, notes=(note,))
    names = _value_names(list(mask.regions), row.kinds, object_names)
    notes = []
    if mask.specks:
        notes.append(f"{row.mask}: {mask.specks} speck(s) of a few pixels left out")
    unplaced = tuple(kind for kind in row.kinds if kind not in names.values())
    if unplaced:
        kept = f"; {UNNAMED!r} there" if UNNAMED in names.values() else ""
        notes.append(f"{row.mask}: does not tell where {', '.join(map(repr, unplaced))} is{kept}")
    shapes = [
        Shape(names[value], box, area) for value, regions in mask.regions.items() for box, area in regions
    ]
    return Annotation(row.mask, "", mask.size, tuple(shapes), unplaced, notes=tuple(notes))


def _value_names(values: Sequence[int], kinds: Sequence[str], object_names: ValueNames) -> dict[int, str]:
    """Return what each value of one mask is called, by the rules in the module's docstring."""
    if len(kinds) == 1:
        return dict.fromkeys(values, kinds[0])
    kind_of = {plain_name(kind): kind for kind in kinds}
    names = {value: kind_of[object_names[value]] for value in values if object_names.get(value) in kind_of}
    open_values = [value for value in values if value not in names]
    open_kinds = [kind for kind in kinds if kind not in names.values()]
    if len(open_values) == len(open_kinds) == 1:
        return names | {open_values[0]: open_kinds[0]}
    return names | dict.fromkeys(open_values, UNNAMED)
