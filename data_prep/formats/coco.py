"""COCO annotations: boxes, polygons and masks of many pictures in one JSON file.

The format: lists `images`, `annotations` and `categories` joined by ids; `bbox` is [x, y, width, height] in
pixels from the top left; `segmentation` is a list of polygons or a run-length mask (T.-Y. Lin et al.,
"Microsoft COCO", 2014; https://cocodataset.org/#format-data). What real files do to it: several files for
one folder, a `_annotations.coco.json` beside the pictures of each split and a category that nothing uses
(Roboflow), `file_name` with a foreign folder, boxes without size or with a negative one, no `bbox`, one
picture listed twice, ids of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.layout import (
    OtherFormatError,
    passed_over,
    read_each,
    require_images,
    set_groups_and_splits,
)
from data_prep.formats.outlines import bounds, mask_box, number, polygon_area, size
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.images import MAX_PIXELS

NAME = "coco"
_LISTS = ("images", "annotations", "categories")
_LOOKED_AT = 1 << 16  # bytes at each end of a file


@dataclass
class CocoFile:
    """What one JSON file says: an annotation per entry of `images`, the names of its categories, those of
    them that an annotation uses, what was put right and what cannot be used, a line each."""

    file: Path
    annotations: list[Annotation]
    categories: set[str]
    used: set[str]
    notes: list[str]
    problems: list[str]


class _Tally:
    """Lines about many places of one file: the first place of each kind is named, the others are counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: dict[str, list[str]] = {}

    def add(self, place: str, what: str) -> None:
        self._places.setdefault(what, []).append(place)

    def lines(self) -> list[str]:
        return [
            f"{self._file}, {places[0]}: {what}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
            for what, places in self._places.items()
        ]


@dataclass
class _Image:
    name: str
    size: tuple[float, float] | None
    shapes: dict[Shape, None] = field(default_factory=dict)  # ordered, and quick to look up
    notes: list[str] = field(default_factory=list)


def read_file(file: Path) -> CocoFile:
    """Read one JSON file. InputError naming it if it is not JSON, OtherFormatError if it is not COCO."""
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in _LISTS):
        raise OtherFormatError(f"{file}: not COCO (expected the lists {', '.join(_LISTS)} at the top)")
    problems, notes = _Tally(file), _Tally(file)
    names = _category_names(data["categories"], problems)
    images = _images(data["images"], problems, notes)
    used = set()
    for index, item in enumerate(data["annotations"]):
        place = _place("annotations", index, item)
        try:
            name, image = _owner(item, names, images)
            used.add(name)
            where = f"{file}, {place} ({name!r})"
            shape = _shape(item, name, image, where, place, notes)
        except InputError as error:
            problems.add(place, str(error))
            continue
        if shape is None:
            image.notes.append(f"{where}: the box has no width or no height; left out")
        elif shape in image.shapes:
            image.notes.append(f"{where}: is there twice; kept once")
        else:
            image.shapes[shape] = None
    annotations = [
        Annotation(file, image.name, image.size, tuple(image.shapes), notes=tuple(image.notes))
        for image in images.values()
    ]
    return CocoFile(file, annotations, set(names.values()), used, notes.lines(), problems.lines())


def _place(of: str, index: int, item: object) -> str:
    named = f" (id {item['id']!r})" if isinstance(item, dict) and _id(item.get("id")) is not None else ""
    return f"{of}[{index}]{named}"


def _id(value: object) -> int | float | str | None:
    """An id, None if `value` cannot be one. 7 and 7.0, which table tools write, are the same id."""
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None


def _category_names(items: Sequence[Any], problems: _Tally) -> dict[int | float | str, str]:
    names: dict[int | float | str, str] = {}
    for index, item in enumerate(items):
        place = _place("categories", index, item)
        key, name = (_id(item.get("id")), item.get("name")) if isinstance(item, dict) else (None, None)
        if key is None or not isinstance(name, str) or not name.strip():
            problems.add(place, "a category needs an id and a name")
        elif names.setdefault(key, name.strip()) != name.strip():
            problems.add(place, "its id belongs to another category already")
    return names


def _images(items: Sequence[Any], problems: _Tally, notes: _Tally) -> dict[int | float | str, _Image]:
    images: dict[int | float | str, _Image] = {}
    names: set[str] = set()
    for index, item in enumerate(items):
        place = _place("images", index, item)
        key, name = (_id(item.get("id")), item.get("file_name")) if isinstance(item, dict) else (None, None)
        if key is None or not isinstance(name, str) or not name.strip():
            problems.add(place, "an image needs an id and a file_name")
        elif key in images:
            if images[key].name == name:
                notes.add(place, "is there twice; kept once")
            else:
                problems.add(place, "its id belongs to another image already")
        else:
            if name in names:
                notes.add(place, "the same file_name under another id; what is said of both is joined")
            names.add(name)
            images[key] = _Image(name, size(item.get("width"), item.get("height")))
    return images


def _owner(
    item: object, names: dict[int | float | str, str], images: dict[int | float | str, _Image]
) -> tuple[str, _Image]:
    """The category's name and the image that an annotation is about."""
    if not isinstance(item, dict):
        raise InputError("an annotation is an object with image_id, category_id and bbox")
    image_id, category_id = _id(item.get("image_id")), _id(item.get("category_id"))
    if image_id is None or image_id not in images:
        raise InputError("its image_id is not among the ids in `images`")
    if category_id is None or category_id not in names:
        raise InputError("its category_id is not among the ids in `categories`")
    return names[category_id], images[image_id]


def _shape(
    item: dict[str, Any], name: str, image: _Image, where: str, place: str, notes: _Tally
) -> Shape | None:
    """The annotation's shape; None for a box without width or height."""
    outline, area = _outline(item.get("segmentation"), image.size, place, notes)
    if item.get("bbox") not in (None, []):
        box, reversed_ = _box(item["bbox"])
        if reversed_:
            image.notes.append(f"{where}: the box has a negative width or height; put right")
    elif outline is not None:
        box = outline
        notes.add(place, "has no bbox; taken from its segmentation")
    else:
        raise InputError("has neither a bbox nor a segmentation")
    if item.get("iscrowd") in (1, "1"):
        notes.add(place, "iscrowd: the box stands for several objects and is taken as one")
    return Shape(name, box, area) if box[0] < box[2] and box[1] < box[3] else None


def _box(value: object) -> tuple[Box, bool]:
    """The corners of [x, y, width, height], and whether a side was negative."""
    numbers = [number(part) for part in value] if isinstance(value, list) else []
    x, y, width, height = numbers if len(numbers) == 4 else [None] * 4
    if x is None or y is None or width is None or height is None:
        raise InputError("its bbox is not four numbers (x, y, width, height)")
    return bounds([(x, y), (x + width, y + height)]), width < 0 or height < 0


def _outline(
    value: object, stated: tuple[float, float] | None, place: str, notes: _Tally
) -> tuple[Box | None, float | None]:
    """The box and area, in pixels, of a segmentation; (None, None) where it outlines nothing."""
    if isinstance(value, dict):
        return _mask(value, stated, place, notes)
    if not isinstance(value, list | None):
        raise InputError("its segmentation is neither a list of polygons nor a run-length mask")
    if value and not any(isinstance(part, list) for part in value):
        notes.add(place, "its segmentation is a polygon without the list around it; taken as one")
        value = [value]
    polygons = []
    for part in value or []:
        numbers = [number(coordinate) for coordinate in part] if isinstance(part, list) else [None]
        known = [coordinate for coordinate in numbers if coordinate is not None]
        if len(known) < len(numbers) or len(known) % 2:
            raise InputError("a polygon of its segmentation is not a list of x, y, x, y, ...")
        if len(known) < 6:
            notes.add(place, "a polygon of fewer than three points is passed over")
        else:
            polygons.append(list(zip(known[::2], known[1::2], strict=True)))
    if not polygons:
        return None, None
    return bounds([point for polygon in polygons for point in polygon]), sum(map(polygon_area, polygons))


def _mask(
    value: dict[str, Any], stated: tuple[float, float] | None, place: str, notes: _Tally
) -> tuple[Box | None, float | None]:
    """Runs go down the columns, and the first is of pixels outside (`rleEncode`, `rleToBbox` and `rleArea`
    in cocodataset/cocoapi, common/maskApi.c)."""
    sides = value.get("size")
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise InputError("the size of its mask is not two whole numbers (height, width)")
    height, width = sides
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise InputError("the size of its mask is not that of a picture")
    if stated is not None and stated != (width, height):
        raise InputError("its mask has another size than the image")
    counts = value.get("counts")
    if isinstance(counts, str):
        counts = decode_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError("the counts of its mask are not run lengths")
    if sum(counts) > width * height:
        raise InputError("the runs of its mask are longer than the picture")
    runs, at = [], 0
    for index, count in enumerate(counts):
        if index % 2:
            runs.append((at, at + count))
        at += count
    found = mask_box(runs, height)
    if found is None:
        notes.add(place, "its mask is empty and passed over")
        return None, None
    (top, left, bottom, right), area = found
    return (left, top, right, bottom), float(area)


def decode_counts(text: str) -> list[int]:
    """The run lengths in a compressed mask. InputError if it is none.

    A character holds 6 bits, its code less 48: five of the number, lowest first, and 32 where more follow;
    the number's sign is the highest of its bits. From the fourth on, numbers are differences to the last but
    one (`rleToString` in cocodataset/cocoapi, common/maskApi.c).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise InputError("the counts of its mask are not a compressed run-length mask")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise InputError("the counts of its mask are cut short")
    return counts


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like COCO, None if it does not."""
    count = sum(_is_coco(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with {', '.join(_LISTS)} at the top" if count else None


def _is_coco(path: Path) -> bool:
    """By the keys in its first and last bytes: a list between them may be hundreds of megabytes long."""
    try:
        with path.open("rb") as file:
            ends = file.read(_LOOKED_AT)
            length = file.seek(0, 2)
            file.seek(max(_LOOKED_AT, length - _LOOKED_AT))
            ends += b"\n" + file.read()
    except OSError:
        return False
    if not re.match(rb"(?:\xef\xbb\xbf)?\s*\{", ends):
        return False
    keys = {key for key in _LISTS if re.search(rb'"%s"\s*:\s*\[' % key.encode(), ends)}
    return len(keys) > 1 or ("images" in keys and b'"file_name"' in ends)


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every COCO file anywhere below the folder, joined with its pictures.

    A picture in `images` without annotations was looked at and shows nothing. Its split is that of its
    folder (`valid`, `train2017`), else of the file that lists it (`instances_train.json`). Returns the source
    and one line per problem; a caller that gets problems must not go on. InputError for a folder without COCO
    files or pictures.
    """
    files = [path for path in folder.named(".json") if _is_coco(path)]
    if not files:
        raise InputError(f"{folder.root}: no COCO annotations (*.json) in it or below")
    require_images(folder, f"{folder.root}: {len(files)} COCO file(s)")
    read_files, others, problems = read_each(files, read_file)
    if not read_files and not problems:
        raise InputError(f"{folder.root}: none of its JSON file(s) has the lists {', '.join(_LISTS)}")
    others += set(folder.named(".json")) - set(files)
    notes = passed_over(folder, others, "JSON file(s) that are not COCO")
    used = {name for _, coco in read_files for name in coco.used}
    unused = {name for _, coco in read_files for name in coco.categories} - used
    if unused:
        listed = ", ".join(map(repr, sorted(unused)))
        notes.append(f"categories that no annotation uses, {len(unused)} in all: {listed}")

    found: list[tuple[Path, Annotation]] = []
    splits: dict[Path, set[Split]] = {}
    for file, coco in read_files:
        notes += coco.notes
        problems += coco.problems
        split = _split_of_file(folder, file)
        pairs = _pair(folder, coco, split, problems)
        found += pairs
        if split:
            for image, _ in pairs:
                splits.setdefault(image, set()).add(split)
    torn = [image for image, named in splits.items() if len(named) > 1]
    if torn:
        notes.append(
            f"{len(torn)} picture(s) are listed for several splits, such as {torn[0]}; that is not used"
        )
    source = make_source(folder, NAME, found, notes)
    for item in source.images:
        if len(named := splits.get(item.file, set())) == 1:
            item.split = min(named)
    set_groups_and_splits(source, folder)
    return source, problems


def _split_of_file(folder: SourceFolder, file: Path) -> Split | None:
    """By the folders below the source that a COCO file lies in, else by the words of its name."""
    return split_in(file.relative_to(folder.root).parent.parts) or split_in(
        re.findall("[a-z0-9]+", file.stem)
    )


def _pair(
    folder: SourceFolder, coco: CocoFile, split: Split | None, problems: list[str]
) -> list[tuple[Path, Annotation]]:
    """(picture, what is said of it) for each entry of `images`."""
    pairs: list[tuple[Path, Annotation]] = []
    owners: dict[Path, str] = {}
    lost: list[str] = []
    for annotation in coco.annotations:
        try:
            image = folder.image_of(coco.file, annotation.image, split=split, owners=owners)
            pairs.append((image, annotation))
        except InputError as error:
            lost.append(str(error))
    if lost:
        problems.append(lost[0] + (f" (and {len(lost) - 1} more of its images)" if lost[1:] else ""))
    return pairs
