"""Read one COCO file: its images with the shapes that its annotations give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_prep.annotations import Annotation, Shape
from data_prep.formats.coco_masks import mask_outline
from data_prep.formats.fields import parse_number, parse_size
from data_prep.formats.layout import OtherFormatError
from data_prep.formats.outlines import bounding_box, polygon_area, rotated_box
from data_prep.formats.shapes import ShapeCollector
from data_prep.synthetic import says_made
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json

LISTS = ("images", "annotations", "categories")
Id = int | float | str
Entry = TypeVar("Entry")
_PLAIN_NUMBER = re.compile("[0-9]{1,18}")
_SHARE = 1.5  # a file whose boxes hold no larger number has them in shares of the image, some reach outside


@dataclass
class CocoFile:
    """The content of one file: an annotation for each entry of `images`, in their order.

    `categories` are the names of all categories, `used_categories` of those that an annotation uses; `notes`
    and `problems` are lines on what was corrected and what cannot be used.
    """

    file: Path
    annotations: list[Annotation]
    categories: set[str]
    used_categories: set[str]
    notes: list[str]
    problems: list[str]
    is_made: bool = False
    """Whether the file says that its images were made, not taken."""


class _Messages:
    """Messages about places of one file: each text names its first place and counts the others."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: dict[str, list[str]] = {}

    def add(self, place: str, text: str) -> None:
        self._places.setdefault(text, []).append(place)

    def lines(self) -> list[str]:
        return [
            f"{self._file}, {places[0]}: {text}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
            for text, places in self._places.items()
        ]


@dataclass
class _Image:
    name: str
    size: tuple[float, float] | None
    shapes: ShapeCollector = field(default_factory=ShapeCollector)


def read_file(file: Path) -> CocoFile:
    """Read one JSON file. InputError naming it if it is not JSON, OtherFormatError if it is not COCO."""
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in LISTS):
        raise OtherFormatError(f"{file}: not COCO (expected the lists {', '.join(LISTS)} at the top)")
    problems, notes = _Messages(file), _Messages(file)
    categories = _read_categories(data["categories"], problems)
    images = _read_images(data["images"], problems, notes)
    used = set()
    in_shares = _are_shares(data["annotations"])
    for index, item in enumerate(data["annotations"]):
        place = _place("annotations", index, item)
        try:
            category, image = _category_and_image(item, categories, images)
            used.add(category)
            if in_shares:
                item = _in_pixels(item, image)
                notes.add(place, "its place is in shares of the picture, not in pixels; taken as such")
            _add_shape(item, category, image, place, f"{file}, {place} ({category!r}):", notes)
        except InputError as error:
            problems.add(place, str(error))
    annotations = [
        Annotation(file, image.name, image.size, image.shapes.shapes, notes=tuple(image.shapes.notes))
        for image in images.values()
    ]
    names = set(categories.values())
    return CocoFile(file, annotations, names, used, notes.lines(), problems.lines(), says_made(data))


def _place(list_name: str, index: int, item: object) -> str:
    id = _parse_id(item.get("id")) if isinstance(item, dict) else None
    return f"{list_name}[{index}]" + (f" (id {id!r})" if id is not None else "")


def _parse_id(value: object) -> Id | None:
    """Return an id, None if `value` cannot be one. 7 and 7.0, which table tools write, are the same id."""
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None


def _look_up(entries: Mapping[Id, Entry], written: object) -> Entry | None:
    """Return the entry with an id, None if there is none. An id that is a number in one list and a text in
    the other, as VGG VIA writes them, is the same id."""
    id = _parse_id(written)
    if id is None or id in entries:
        return None if id is None else entries[id]
    if isinstance(id, str):
        return entries.get(int(id)) if _PLAIN_NUMBER.fullmatch(id) else None
    return entries.get(str(id))


def _read_categories(items: Sequence[Any], problems: _Messages) -> dict[Id, str]:
    """Return the name of each category by its id."""
    categories: dict[Id, str] = {}
    for index, item in enumerate(items):
        place = _place("categories", index, item)
        key, name = (_parse_id(item.get("id")), item.get("name")) if isinstance(item, dict) else (None, None)
        if key is None or not isinstance(name, str) or not name.strip():
            problems.add(place, "a category needs an id and a name")
        elif categories.setdefault(key, name.strip()) != name.strip():
            problems.add(place, "its id belongs to another category already")
    return categories


def _read_images(items: Sequence[Any], problems: _Messages, notes: _Messages) -> dict[Id, _Image]:
    """Return each image by its id, still without shapes."""
    images: dict[Id, _Image] = {}
    names: set[str] = set()
    for index, item in enumerate(items):
        place = _place("images", index, item)
        fields = item if isinstance(item, dict) else {}
        key, name = _parse_id(fields.get("id")), fields.get("file_name")
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
            images[key] = _Image(name, parse_size(fields.get("width"), fields.get("height")))
    return images


def _category_and_image(
    item: object, categories: dict[Id, str], images: dict[Id, _Image]
) -> tuple[str, _Image]:
    """Return the name of an annotation's category and its image."""
    if not isinstance(item, dict):
        raise InputError("an annotation is an object with image_id, category_id and bbox")
    image, category = _look_up(images, item.get("image_id")), _look_up(categories, item.get("category_id"))
    if image is None:
        raise InputError("its image_id is not among the ids in `images`")
    if category is None:
        raise InputError("its category_id is not among the ids in `categories`")
    return category, image


def _are_shares(items: Sequence[Any]) -> bool:
    """Return whether the boxes are in shares of the image, as Azure's services write them."""
    boxes = [item["bbox"] for item in items if isinstance(item, dict) and isinstance(item.get("bbox"), list)]
    numbers = [number for box in boxes for part in box if (number := parse_number(part)) is not None]
    return any(numbers) and all(abs(number) <= _SHARE for number in numbers)


def _in_pixels(item: dict[str, Any], image: _Image) -> dict[str, Any]:
    """Return an annotation in shares of its image with its bbox and polygons in pixels."""
    if image.size is None:
        raise InputError("its bbox is in shares of the picture, and its entry of `images` states no size")
    size = image.size

    def scale(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        numbers = [parse_number(part) for part in value]
        if None in numbers or not all(abs(number or 0) <= _SHARE for number in numbers):
            return [scale(part) for part in value]
        return [(number or 0) * size[index % 2] for index, number in enumerate(numbers)]

    return {**item, "bbox": scale(item.get("bbox")), "segmentation": scale(item.get("segmentation"))}


def _add_shape(
    item: dict[str, Any], category: str, image: _Image, place: str, full_place: str, notes: _Messages
) -> None:
    """Add an annotation's shape to its image.

    Args:
        item: The entry of `annotations`.
        category: The name of its category.
        image: Its image, which gets the shape, or a note if it is empty or a duplicate.
        place: The entry's place in the file, for `notes`.
        full_place: The same with the file's name and the category, for notes on the image.
        notes: Gets notes on the file; many entries may have the same one.

    Raises:
        InputError: The entry has no readable box or outline; the message does not name the place.
    """
    outline, area = _segmentation(item.get("segmentation"), image.size, place, notes)
    if item.get("bbox") not in (None, []):
        box, is_reversed = _bbox(item["bbox"])
        if is_reversed:
            image.shapes.note(f"{full_place} the box has a negative width or height; put right")
        if degrees := _rotation(item):
            box, area = _rotated(box, degrees, outline, area)
            notes.add(place, "is turned, the angle stands apart from its bbox; the box around it is taken")
    elif outline is not None:
        box = outline
        notes.add(place, "has no bbox; taken from its segmentation")
    else:
        raise InputError("has neither a bbox nor a segmentation")
    if item.get("iscrowd") in (1, "1"):
        notes.add(place, "iscrowd: the box stands for several objects and is taken as one")
    image.shapes.add_unless_empty(Shape(category, box, area), full_place)


def _bbox(value: object) -> tuple[Box, bool]:
    """Return the corners of [x, y, width, height], and whether a side was negative."""
    numbers = [parse_number(part) for part in value] if isinstance(value, list) else []
    x, y, width, height = numbers if len(numbers) == 4 else [None] * 4
    if x is None or y is None or width is None or height is None:
        raise InputError("its bbox is not four numbers (x, y, width, height)")
    return bounding_box([(x, y), (x + width, y + height)]), width < 0 or height < 0


def _rotation(item: dict[str, Any]) -> float:
    """Return the degrees by which a bbox is rotated about its centre, 0 for none.

    CVAT (the COCO writer of Datumaro) keeps them in `attributes`; an attribute of that name that is no number
    is one of the user's own.
    """
    attributes = item.get("attributes")
    written = attributes.get("rotation") if isinstance(attributes, dict) else item.get("rotation")
    return (parse_number(written) or 0.0) % 360


def _rotated(box: Box, degrees: float, outline: Box | None, area: float | None) -> tuple[Box, float | None]:
    """Return the box around a rotated bbox, and the area in it.

    Args:
        box: The bbox, before it is rotated.
        degrees: Its rotation.
        outline: The box around its segmentation, None without one. Where that is more than the bbox once
            more, it lies in its place already and counts.
        area: The area of the segmentation.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    is_bbox = area is not None and abs(area - width * height) <= 0.01 * width * height
    if outline and not (is_bbox and all(abs(a - b) <= 1 for a, b in zip(outline, box, strict=True))):
        return outline, area
    return rotated_box(box, degrees)


def _segmentation(
    value: object, image_size: tuple[float, float] | None, place: str, notes: _Messages
) -> tuple[Box | None, float | None]:
    """Return the box and area of a segmentation, in pixels; (None, None) if it outlines nothing."""
    if isinstance(value, dict):
        outline = mask_outline(value, image_size)
        if outline is None:
            notes.add(place, "its mask is empty and passed over")
            return None, None
        return outline
    if not isinstance(value, list | None):
        raise InputError("its segmentation is neither a list of polygons nor a run-length mask")
    if value and not any(isinstance(part, list) for part in value):
        notes.add(place, "its segmentation is a polygon without the list around it; taken as one")
        value = [value]
    polygons = []
    for part in value or []:
        numbers = [parse_number(coordinate) for coordinate in part] if isinstance(part, list) else [None]
        known = [coordinate for coordinate in numbers if coordinate is not None]
        if len(known) < len(numbers) or len(known) % 2:
            raise InputError("a polygon of its segmentation is not a list of x, y, x, y, ...")
        if len(known) < 6:
            notes.add(place, "a polygon of fewer than three points is passed over")
        else:
            polygons.append(list(zip(known[::2], known[1::2], strict=True)))
    if not polygons:
        return None, None
    points = [point for polygon in polygons for point in polygon]
    return bounding_box(points), sum(map(polygon_area, polygons))
