"""Read tables of boxes: a CSV with a row for each box, which names the picture, the class and the place.

Many tools write one, each with other names for the columns: TensorFlow's examples and Roboflow
(`filename,width,height,class,xmin,ymin,xmax,ymax`; github.com/tensorflow/models, object_detection, and
roboflow.com/formats/tensorflow-object-detection-csv), VoTT (`image,xmin,ymin,xmax,ymax,label`;
github.com/microsoft/VoTT), keras-retinanet (no header: `path,x1,y1,x2,y2,class`, and `path,,,,,` for a
picture without objects; github.com/fizyr/keras-retinanet), makesense.ai (no header: `class,x,y,width,height,
picture,width,height`), Kaggle's competitions (`image_id,...,bbox`).

The rules here. Columns may come in any order and spelling (`X_Min`, `roi.x1`, `bbox_xmin`). A place is four
corners, a corner with width and height, a centre with width and height, or all in one column `bbox`. Whether
a `bbox` is two corners or a corner with width and height is told by all boxes of the file: where both would
be possible, nothing is guessed. Places of which nearly all lie within 0..1 are shares of the picture. Rows
without a place say that the picture shows nothing. A table without a column of classes has one class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.csv_files import CsvFile, find_column, open_csv, possible_tables
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.outlines import bounding_box
from data_prep.formats.shapes import UNNAMED
from data_prep.formats.sizes import image_size
from data_prep.formats.table_columns import has_required_columns
from data_prep.source_folder import IMAGE_SUFFIXES, SPLIT_NAMES, SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError

NAME = "box_table"
_SHARE = 1.5  # numbers up to here may be shares of a picture that a box reaches out of
_FAR_OUTSIDE = 1.25  # boxes that end so many picture's sides from the corner are read wrongly
IMAGE_COLUMNS = (
    *("filename", "image", "imagename", "imageid", "imagepath", "imagefile", "imagefilename", "img"),
    *("imgname", "imgid", "imgpath", "imgfile", "file", "filepath", "path", "picture", "photo", "frame"),
    *("imagefilepath", "fname", "images", "id", "name"),
)
CLASS_COLUMNS = (
    *("class", "classname", "label", "labelname", "category", "categoryname", "defecttype", "defect"),
    *("objectclass", "classid", "labelid", "categoryid", "tag", "tags", "labels", "classes", "type"),
    *("damagetype", "damage", "species", "object", "name", "target", "diagnosis", "anomaly", "cls"),
    *("defectclass", "defectname", "damageclass", "fault", "faulttype", "condition", "status", "state"),
    *("grade", "level", "severity", "annotation"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "usage")
SIZES = (("width", "height"), ("imagewidth", "imageheight"), ("imgwidth", "imgheight"))
_PLACES = {
    "corners": (
        ("xmin", "ymin", "xmax", "ymax"),
        ("x1", "y1", "x2", "y2"),
        ("x0", "y0", "x1", "y1"),
        ("left", "top", "right", "bottom"),
        ("xtl", "ytl", "xbr", "ybr"),
        ("minx", "miny", "maxx", "maxy"),
        ("xleft", "ytop", "xright", "ybottom"),
    ),
    "corner and size": tuple(
        (*corner, *size)
        for corner in (("x", "y"), ("xmin", "ymin"), ("x1", "y1"), ("left", "top"))
        for size in (("w", "h"), ("width", "height"))
    ),
    "centre and size": tuple(
        (*centre, *size)
        for centre in (("xcenter", "ycenter"), ("cx", "cy"), ("xcentre", "ycentre"), ("centerx", "centery"))
        for size in (("w", "h"), ("width", "height"))
    ),
}
_ONE_COLUMN = ("bbox", "box", "boundingbox", "bndbox", "bboxes")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class _Layout:
    """Which columns of a table are what; `place` are four columns, or one that holds all numbers.

    `in_shares` says whether the numbers are shares of the image; only all rows can tell.
    """

    image: int
    place: tuple[int, ...]
    kind: str  # a key of `_PLACES`, "" where it is one column
    class_name: int | None
    size: tuple[int, int] | None
    split: int | None
    header: bool = True
    in_shares: bool = False


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like tables of boxes, None if it does not."""
    count = len(_find_tables(folder))
    return f"{count} table(s) with columns for picture, class and the sides of a box" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every table in the folder or below: a Shape for each row.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such table or no images.
    """
    return read_image_lists(folder, NAME, _find_tables(folder), _read_table, "table(s) of boxes (*.csv)")


def _find_tables(folder: SourceFolder) -> list[Path]:
    return [path for path in possible_tables(folder) if find_layout(open_csv(path))]


def find_layout(table: CsvFile) -> _Layout | None:
    """Return which columns are what; None if it is no table of boxes, or that of another format."""
    columns = table.columns
    if has_required_columns(table.first_row) or {"regionshapeattributes", "maskpath"} & set(columns):
        return None
    if {"imageid", "labelname", "xmin", "isoccluded"} <= set(columns):  # Open Images
        return None
    plain = [re.sub(r"^(?:bbox|box|roi|bndbox)(?=.)", "", name) for name in columns]
    image = find_column(columns, IMAGE_COLUMNS)
    if image is None:
        return _layout_without_header(table)
    found = next(
        (
            (kind, tuple(plain.index(name) for name in names))
            for kind, choices in _PLACES.items()
            for names in choices
            if set(names) <= set(plain)
        ),
        None,
    )
    if found is None:
        one = find_column(columns, _ONE_COLUMN)
        found = ("", (one,)) if one is not None else None
    if found is None:
        return None
    kind, place = found
    sizes = [(plain.index(w), plain.index(h)) for w, h in SIZES if {w, h} <= set(plain)]
    rest = [name if index not in (image, *place) else "" for index, name in enumerate(columns)]
    return _Layout(
        image,
        place,
        kind,
        find_column(rest, CLASS_COLUMNS),
        next((size for size in sizes if not set(size) & set(place)), None),
        find_column(rest, SPLIT_COLUMNS),
    )


def _layout_without_header(table: CsvFile) -> _Layout | None:
    cells = table.first_row
    is_makesense = len(cells) == 8 and Path(cells[5]).suffix.lower() in IMAGE_SUFFIXES
    if is_makesense and all(table.number(cell) is not None for cell in (*cells[1:5], *cells[6:])):
        return _Layout(5, (1, 2, 3, 4), "corner and size", 0, (6, 7), None, header=False)
    if len(cells) != 6 or Path(cells[0]).suffix.lower() not in IMAGE_SUFFIXES:
        return None
    if not all(not cell or table.number(cell) is not None for cell in cells[1:5]):
        return None
    return _Layout(0, (1, 2, 3, 4), "corners", 5, None, None, header=False)


def _read_table(content: ImageList) -> None:
    table = open_csv(content.file)
    layout = find_layout(table)
    if layout is None:
        return
    layout = _judge(content, table, layout)
    if layout.class_name is None:
        content.notes.append(f"{content.file}: has no column of classes; all are called {UNNAMED!r}")
    width = max(layout.image, *layout.place, layout.class_name or 0) + 1
    for line, cells in table.rows(header=layout.header):
        if len(cells) < width:
            content.add_problem(f"line {line}", f"has {len(cells)} column(s), fewer than the header")
        elif entry := _entry(content, layout, cells):
            try:
                _add_row(entry, table, layout, cells, f"{content.file}, line {line}:")
            except InputError as error:
                content.add_problem(f"line {line}", error)


def _entry(content: ImageList, layout: _Layout, cells: Sequence[str]) -> ImageEntry | None:
    stated = cells[layout.split] if layout.split is not None and layout.split < len(cells) else ""
    entry = content.entry(cells[layout.image], SPLIT_NAMES.get(stated.casefold()))
    if entry and entry.size is None and layout.size and max(layout.size) < len(cells):
        entry.size = parse_size(cells[layout.size[0]], cells[layout.size[1]])
    return entry


def _numbers(table: CsvFile, layout: _Layout, cells: Sequence[str]) -> list[float] | None:
    """Return the four numbers of a row's place, None if it has none. InputError if they are not readable."""
    texts = [cells[index] for index in layout.place]
    if not any(texts):
        return None
    if len(texts) == 1:
        values = [parse_number(text) for text in _NUMBER.findall(texts[0])]
    else:
        values = [table.number(text) for text in texts]
    known = [value for value in values if value is not None]
    if len(known) != 4 or len(values) != 4:
        raise InputError(f"a box without four numbers (found {', '.join(map(repr, texts))[:80]})")
    return known


def _boxes(table: CsvFile, layout: _Layout) -> Iterator[tuple[list[str], list[float]]]:
    width = max(layout.image, *layout.place) + 1
    for _, cells in table.rows(header=layout.header):
        try:
            numbers = _numbers(table, layout, cells) if len(cells) >= width else None
        except InputError:
            continue  # named when the rows are read
        if numbers:
            yield cells, numbers


@dataclass
class BoxJudge:
    """Counts what the four numbers of all boxes of a file can be."""

    count: int = 0
    _small: int = 0
    _not_corners: int = 0
    _not_sizes: int = 0

    def add(self, numbers: Sequence[float], size: tuple[float, float] | None) -> None:
        """Count a box; `size` is its image's (width, height), None where that is not asked for."""
        x, y, right, bottom = numbers
        self.count += 1
        self._small += max(map(abs, numbers)) <= _SHARE
        self._not_corners += right <= x or bottom <= y
        if size:
            width, height = size
            self._not_sizes += x + right > _FAR_OUTSIDE * width or y + bottom > _FAR_OUTSIDE * height

    @property
    def in_shares(self) -> bool:
        return self.count > 0 and self._small > 0.9 * self.count

    def kind(self) -> str:
        """Return the key of `_PLACES` that fits, "" where both do. A few boxes may be reversed or reach
        outside."""
        if self._not_corners * 10 < self._not_sizes:
            return "corners"
        return "corner and size" if self._not_sizes * 10 < self._not_corners else ""


def _judge(content: ImageList, table: CsvFile, layout: _Layout) -> _Layout:
    """Return the layout with what only all rows together tell: what one column holds, and if it is shares.

    InputError if the boxes in one column fit as corners as well as with width and height.
    """
    judge = BoxJudge()
    for cells, numbers in _boxes(table, layout):
        entry = None if layout.kind else _entry(content, layout, cells)
        judge.add(numbers, (entry.size or image_size(entry.image)) if entry else None)
    layout = replace(layout, in_shares=judge.in_shares, kind=layout.kind or judge.kind())
    if layout.kind or not judge.count:
        return layout
    raise InputError(
        f"{content.file}: its boxes may be two corners as well as a corner with width and height; write "
        "four columns xmin, ymin, xmax, ymax or x, y, w, h"
    )


def _add_row(entry: ImageEntry, table: CsvFile, layout: _Layout, cells: Sequence[str], place: str) -> None:
    """Add the shape of a row to its image; `place` is the row's, for notes.

    InputError if the row has no readable box, or no class.
    """
    numbers = _numbers(table, layout, cells)
    if numbers is None:
        return
    name = UNNAMED if layout.class_name is None else parse_class_name(cells[layout.class_name])
    if name is None:
        raise InputError("names no class")
    x1, y1, x2, y2 = numbers
    if layout.kind != "corners":
        width, height = x2, y2
        if layout.kind == "centre and size":
            x1, y1 = x1 - width / 2, y1 - height / 2
        x2, y2 = x1 + width, y1 + height
    if x1 > x2 or y1 > y2:
        entry.shapes.note(f"{place} the box was reversed; put right")
    box = bounding_box([(x1, y1), (x2, y2)])
    entry.shapes.add_unless_empty(Shape(name, from_shares(box, entry) if layout.in_shares else box), place)


def from_shares(box: Box, entry: ImageEntry) -> Box:
    """Return a box in shares of an image in pixels of the upright image. InputError if it is in pixels."""
    if max(map(abs, box)) > 2:
        raise InputError("is in pixels, where the others are in shares of the picture")
    entry.size = width, height = image_size(entry.image)
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height
