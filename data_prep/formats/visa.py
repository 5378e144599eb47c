"""VisA: CSV files that list pictures, and masks whose values are kinds of defect.

The format (Y. Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022): `split_csv/1cls.csv` and others beside it with the columns object, split, label
(normal or anomaly), image, mask; in each object's folder an `image_anno.csv` with image, label (normal, or
kinds as `bent,scratch`), mask. Paths are written from the root (`pcb1/Data/Images/Anomaly/000.JPG`). A mask
holds 0 and a number for each kind of defect, the same within an object.

The rules here. The kinds of a picture come from `image_anno.csv`, without it they are `anomaly`. Each
connected region of a mask's value is a Shape. A picture of one kind gives its name to all its regions. Of
several kinds, a value has the name that the object's pictures of one kind and one value give it, all alike;
if one value and one name are left over, they belong together; what is still open is a Shape `anomaly` beside
the names without a place. The column split is not used: in 1cls.csv there are no defects in train.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Annotation,
    Shape,
    plain_name,
)
from data_prep.formats.masks import read_mask, regions
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_text

NAME = "visa"
UNNAMED = "anomaly"
_SOUND = "normal"
_KINDS_FILE = "image_anno.csv"
_KINDS_COLUMNS = {"image", "label"}
_SPLIT_COLUMNS = {"object", "split", "label", "image", "mask"}
_MOST_VALUES = 32


@dataclass(frozen=True)
class _Row:
    """A line of a CSV file. `kinds` is empty for a sound picture."""

    file: Path
    line: int
    image: Path
    kinds: tuple[str, ...]
    mask: Path | None


@dataclass(frozen=True)
class _Marked:
    """A mask: its size (width, height) and, for each value, its regions as (box, area)."""

    size: tuple[float, float]
    regions: Mapping[int, Sequence[tuple[Box, float]]]
    specks: int


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like VisA, None if it does not."""
    files = _tables(folder)
    return f"{len(files)} CSV file(s) with VisA's columns" if files else None


def _tables(folder: SourceFolder) -> list[Path]:
    """VisA's CSV files, those that name kinds first."""
    kinds, splits = [], []
    for path in folder.named(".csv"):
        if path.name == _KINDS_FILE and _header(path) >= _KINDS_COLUMNS:
            kinds.append(path)
        elif path.parent.name == "split_csv" and _header(path) >= _SPLIT_COLUMNS:
            splits.append(path)
    return [*kinds, *splits]


def _header(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            line = file.readline(500)
    except OSError:
        return set()
    return {name.strip() for name in line.decode("utf-8-sig", "replace").split(",")}


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every picture that VisA's CSV files list, with the regions of its mask.

    Returns the source and one line per problem (a row without its picture, rows that contradict each other,
    an unreadable mask). InputError for a folder without such a file.
    """
    tables = _tables(folder)
    if not tables:
        raise InputError(f"{folder.root}: no split_csv/*.csv or {_KINDS_FILE} of VisA in it or below")
    finder = _Finder(folder)
    problems: list[str] = []
    rows: dict[Path, _Row] = {}
    for table in tables:
        try:
            for row in _rows(table, finder, problems):
                first = rows.setdefault(row.image, row)
                if bool(first.kinds) != bool(row.kinds) or first.mask != row.mask:
                    where = f"{first.file}, line {first.line}"
                    problems.append(f"{table}, line {row.line}: says otherwise than {where} of one picture")
        except InputError as error:
            problems.append(str(error))

    marked: dict[Path, _Marked] = {}
    for row in rows.values():
        if row.mask is not None:
            try:
                marked[row.image] = _mark(row.mask)
            except InputError as error:
                problems.append(str(error))
    told = _told(folder, rows, marked)
    images = []
    for path in folder.images:
        if path in rows:
            annotation = _annotation(rows[path], marked.get(path), told.get(_object(folder, path), {}))
            images.append(AnnotatedImage(path, folder.key(path), [annotation]))
    if not images and not problems:
        raise InputError(f"{folder.root}: its {len(tables)} CSV file(s) list no picture")
    masks = {row.mask for row in rows.values()}
    alone = tuple(path for path in folder.images if path not in rows and path not in masks)
    note = "the column split was not used: VisA's 1cls.csv has no defects in train"
    return AnnotatedSource(NAME, tuple(images), alone, (note,)), problems


class _Finder:
    """Finds files by the paths written in a table, without regard to case."""

    def __init__(self, folder: SourceFolder) -> None:
        self.root = folder.root
        self.files = {path.relative_to(folder.root).as_posix().casefold(): path for path in folder.files}
        for path in folder.images:
            self.files[path.relative_to(folder.image_root).as_posix().casefold()] = path

    def find(self, table: Path, written: str) -> Path | None:
        parts = PurePosixPath(written.strip().replace("\\", "/").casefold()).parts
        # Where the root is one object's folder, paths begin with its name.
        tails = [parts, parts[1:]] if table.parent == self.root else [parts]
        return next((self.files[name] for tail in tails if (name := "/".join(tail)) in self.files), None)


def _rows(table: Path, finder: _Finder, problems: list[str]) -> list[_Row]:
    """The rows of one file; a problem for each that cannot be used. InputError if the file cannot."""
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""), skipinitialspace=True)
    try:
        for values in reader:
            line = reader.line_num
            cells = {(name or "").strip(): text for name, text in values.items() if isinstance(text, str)}
            kinds = _kinds(cells.get("label", ""))
            written, mask_written = cells.get("image", "").strip(), cells.get("mask", "").strip()
            image = finder.find(table, written) if written else None
            mask = finder.find(table, mask_written) if mask_written else None
            if not written or kinds is None:
                problems.append(f"{table}, line {line}: no {'label' if written else 'image'}")
            elif image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
                problems.append(f"{table}, line {line}: no picture {written!r} below {finder.root}")
            elif mask_written and mask is None:
                problems.append(f"{table}, line {line}: no mask {mask_written!r} below {finder.root}")
            elif mask and not kinds:
                problems.append(f"{table}, line {line}: {_SOUND}, but with a mask; correct one of them")
            else:
                rows.append(_Row(table, line, image, kinds, mask))
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: not valid CSV ({error})") from None
    return rows


def _kinds(label: str) -> tuple[str, ...] | None:
    """The kinds that a label names, each once; none for `normal`. None where there is no label."""
    names: dict[str, str] = {}
    for part in label.split(","):
        if name := part.strip():
            names.setdefault(plain_name(name), name)
    if not names:
        return None
    return tuple(name for plain, name in names.items() if plain != _SOUND)


def _mark(file: Path) -> _Marked:
    mask = read_mask(file)
    values = [value for value in np.unique(mask) if value != 0]
    if len(values) > _MOST_VALUES:
        raise InputError(
            f"{file}: {len(values)} different values, but a VisA mask has one for each kind of defect; "
            "save it without loss"
        )
    found, specks = {}, 0
    for value in values:
        marked, left_out = regions(mask == value)
        if marked:
            found[int(value)] = marked
        specks += left_out
    return _Marked((float(mask.shape[1]), float(mask.shape[0])), found, specks)


def _object(folder: SourceFolder, image: Path) -> str:
    return image.relative_to(folder.image_root).parts[0]


def _told(
    folder: SourceFolder, rows: Mapping[Path, _Row], marked: Mapping[Path, _Marked]
) -> dict[str, dict[int, str]]:
    """For each object the plain names of mask values, as far as pictures of one kind and one value agree."""
    seen: dict[tuple[str, int], set[str]] = {}
    for path, mask in marked.items():
        kinds = rows[path].kinds
        if len(kinds) == 1 and len(mask.regions) == 1:
            (value,) = mask.regions
            seen.setdefault((_object(folder, path), value), set()).add(plain_name(kinds[0]))
    told: dict[str, dict[int, str]] = {}
    for (object_name, value), names in seen.items():
        if len(names) == 1:
            told.setdefault(object_name, {})[value] = names.pop()
    return told


def _annotation(row: _Row, marked: _Marked | None, told: Mapping[int, str]) -> Annotation:
    if not row.kinds:
        return Annotation(row.file)
    if row.mask is None or marked is None:
        note = f"{row.image}: no mask; its defects are known of the whole picture only"
        return Annotation(row.file, labels=row.kinds, notes=(note,))
    names = _names(list(marked.regions), row.kinds, told)
    notes = []
    if marked.specks:
        notes.append(f"{row.mask}: {marked.specks} speck(s) of a few pixels left out")
    homeless = tuple(kind for kind in row.kinds if kind not in names.values())
    if homeless:
        kept = f"; {UNNAMED!r} there" if UNNAMED in names.values() else ""
        notes.append(f"{row.mask}: does not tell where {', '.join(map(repr, homeless))} is{kept}")
    shapes = [
        Shape(names[value], box, area) for value, found in marked.regions.items() for box, area in found
    ]
    return Annotation(row.mask, "", marked.size, tuple(shapes), homeless, notes=tuple(notes))


def _names(values: Sequence[int], kinds: Sequence[str], told: Mapping[int, str]) -> dict[int, str]:
    """What each value of one mask is called: see the module's text."""
    if len(kinds) == 1:
        return dict.fromkeys(values, kinds[0])
    by_plain = {plain_name(kind): kind for kind in kinds}
    names = {value: by_plain[told[value]] for value in values if told.get(value) in by_plain}
    open_values = [value for value in values if value not in names]
    open_kinds = [kind for kind in kinds if kind not in names.values()]
    if len(open_values) == len(open_kinds) == 1:
        return names | {open_values[0]: open_kinds[0]}
    return names | dict.fromkeys(open_values, UNNAMED)
