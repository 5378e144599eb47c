"""An annotated picture becomes units: the whole picture or a crop per component, encoded, with its boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise

import numpy as np
from PIL import Image

from data_prep.annotations import AnnotatedPicture, Shape, Talk, clip, merge, plain_name
from data_prep.recipe import Kind, Recipe
from llava.boxes import Box, area, intersection
from llava.errors import InputError
from llava.pictures import open_picture

_EXIF_ORIENTATION = 0x0112
_HASH_SIDE = 16


@dataclass(frozen=True)
class Unit:
    """What questions are asked about: a picture or a crop, as written to the output.

    `key` is unique in a source; `source` is the key of its picture. `image` is its name in the output, made
    from its content. Boxes are in pixels of `size` (width, height); their names are the recipe's.
    """

    key: str
    source: str
    image: str
    size: tuple[int, int]
    components: tuple[Shape, ...]
    defects: tuple[Shape, ...]
    labels: tuple[str, ...] = ()  # kinds of defect only
    talks: tuple[Talk, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds of defect shown, the largest box's first, those without a place last."""
        ordered = sorted(self.defects, key=lambda shape: (-area(shape.box), shape.name, shape.box))
        return list(dict.fromkeys([*(shape.name for shape in ordered), *self.labels]))

    @property
    def label(self) -> str:
        """The most conspicuous kind of defect (largest box), `none` where there is none."""
        return next(iter(self.kinds), "none")


@dataclass(frozen=True)
class Prepared:
    """One source picture: its units with their JPEG bytes, its perceptual hash, notes, and how many things
    were left out for which reason."""

    key: str
    units: tuple[tuple[Unit, bytes], ...]
    fingerprint: bytes
    notes: tuple[str, ...]
    left_out: Mapping[str, int]


def prepare(picture: AnnotatedPicture, recipe: Recipe, names: Mapping[str, Kind | None]) -> Prepared:
    """Decode `picture` once and cut, scale and encode its units; the same input gives the same bytes.

    `names` is `recipe.known_names()`. InputError naming the file for a damaged picture or boxes of another
    picture.
    """
    image, shapes, notes = open_annotated(picture)
    known = [
        replace(shape, name=kind.name)
        for shape in shapes
        if (kind := names[plain_name(shape.name)]) is not None
    ]
    component_names = {kind.name for kind in recipe.components}
    labels = [
        kind.name
        for annotation in picture.annotations
        for label in annotation.labels
        if (kind := names[plain_name(label)]) is not None and kind.name not in component_names
    ]
    talks = tuple(talk for annotation in picture.annotations for talk in annotation.talks)
    components = [shape for shape in known if shape.name in component_names]
    defects = [shape for shape in known if shape.name not in component_names]
    whole = Unit(
        picture.key,
        picture.key,
        "",
        image.size,
        tuple(components),
        tuple(defects),
        tuple(dict.fromkeys(labels)),
        talks,
    )
    left_out: dict[str, int] = {}
    if recipe.unit == "picture":
        cuts: list[tuple[Unit, Box]] = [(whole, (0, 0, *image.size))]
    else:
        cuts = _crops(whole, recipe, left_out)
    units = tuple(_encode(unit, image.crop(_whole_pixels(box)), recipe) for unit, box in cuts)
    return Prepared(picture.key, units, perceptual_hash(image), tuple(notes), left_out)


def open_annotated(picture: AnnotatedPicture) -> tuple[Image.Image, list[Shape], list[str]]:
    """The decoded, upright picture, its boxes in pixels of it, and a note per thing put right. InputError
    naming the file for a damaged picture or boxes of another picture."""
    image = open_picture(picture.file)
    shapes, notes = merge(picture, image.size, _orientation(picture))
    return image, shapes, notes


def _orientation(picture: AnnotatedPicture) -> int:
    with Image.open(picture.file) as opened:
        return int(opened.getexif().get(_EXIF_ORIENTATION, 1))


def _crops(whole: Unit, recipe: Recipe, left_out: dict[str, int]) -> list[tuple[Unit, Box]]:
    """A crop per component, or per window of it.

    A defect belongs to each crop that holds its centre, because there it is seen; a crop that shows only the
    rim of a defect has no honest answer and is left out.
    """
    crops: list[tuple[Unit, Box]] = []
    homeless = set(whole.defects)

    def leave_out(reason: str, count: int = 1) -> None:
        if count:
            left_out[reason] = left_out.get(reason, 0) + count

    parts = [
        Shape(component.name, part)
        for component in whole.components
        for part in _windows(component.box, recipe.crops.windows)
    ]
    for number, component in enumerate(parts):
        x1, y1, x2, y2 = component.box
        side = max(x2 - x1, y2 - y1)
        if side < recipe.crops.min_side:
            leave_out("crops smaller than crops.min_side")
            continue
        margin = recipe.crops.context * side
        crop = _pixel_box((x1 - margin, y1 - margin, x2 + margin, y2 + margin), whole.size)
        inside = [shape for shape in whole.defects if _holds_centre(crop, shape.box)]
        homeless -= set(inside)
        if any(intersection(crop, shape.box) > 0 for shape in whole.defects if shape not in inside):
            leave_out("crops that cut a defect at their edge")
            continue
        size = (round(crop[2] - crop[0]), round(crop[3] - crop[1]))
        unit = Unit(
            f"{whole.key}#{number}",
            whole.source,
            "",
            size,
            (_moved(component, crop, size),),
            tuple(_moved(shape, crop, size) for shape in inside),
        )
        crops.append((unit, crop))
    leave_out("defects outside every component's crop", len(homeless))
    leave_out("pictures without a component", int(not whole.components))
    return crops


def _windows(box: Box, count: int) -> list[Box]:
    """`box` in `count` equal parts along its longer side."""
    x1, y1, x2, y2 = box
    cuts = [number / count for number in range(count + 1)]
    if x2 - x1 >= y2 - y1:
        xs = [x1 + (x2 - x1) * cut for cut in cuts]
        return [(left, y1, right, y2) for left, right in pairwise(xs)]
    ys = [y1 + (y2 - y1) * cut for cut in cuts]
    return [(x1, top, x2, bottom) for top, bottom in pairwise(ys)]


def _pixel_box(box: Box, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = clip(box, size)
    return float(np.floor(x1)), float(np.floor(y1)), float(np.ceil(x2)), float(np.ceil(y2))


def _whole_pixels(box: Box) -> tuple[int, int, int, int]:
    return int(box[0]), int(box[1]), int(box[2]), int(box[3])


def _holds_centre(crop: Box, box: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return crop[0] <= x <= crop[2] and crop[1] <= y <= crop[3]


def _moved(shape: Shape, crop: Box, size: tuple[int, int]) -> Shape:
    x1, y1, x2, y2 = shape.box
    return replace(shape, box=clip((x1 - crop[0], y1 - crop[1], x2 - crop[0], y2 - crop[1]), size))


def _encode(unit: Unit, image: Image.Image, recipe: Recipe) -> tuple[Unit, bytes]:
    longest = max(image.size)
    if longest > recipe.pictures.max_side:
        factor = recipe.pictures.max_side / longest
        width, height = (max(1, round(side * factor)) for side in image.size)
        x, y = width / image.width, height / image.height
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        unit = replace(
            unit,
            size=(width, height),
            components=tuple(_scaled(shape, x, y) for shape in unit.components),
            defects=tuple(_scaled(shape, x, y) for shape in unit.defects),
        )
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=recipe.pictures.quality, subsampling=0)
    data = buffer.getvalue()
    return replace(unit, image=f"images/{hashlib.sha1(data).hexdigest()[:16]}.jpg"), data


def _scaled(shape: Shape, x: float, y: float) -> Shape:
    x1, y1, x2, y2 = shape.box
    area = None if shape.area is None else shape.area * x * y
    return Shape(shape.name, (x1 * x, y1 * y, x2 * x, y2 * y), area)


def perceptual_hash(image: Image.Image) -> bytes:
    """dHash of 256 bits (N. Krawetz, "Kind of Like That", 2013): is each cell of a 17x16 grid darker than
    the next? Re-encoded and scaled copies differ in a few bits, other pictures in some 80 and more."""
    grey = image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


def check_names(
    pictures: tuple[AnnotatedPicture, ...], recipe: Recipe, names: Mapping[str, Kind | None]
) -> None:
    """InputError naming the first file with a class that the recipe does not know."""
    for picture in pictures:
        for annotation in picture.annotations:
            for name in (*(shape.name for shape in annotation.shapes), *annotation.labels):
                if plain_name(name) not in names:
                    known = ", ".join(kind.name for kind in [*recipe.components, *recipe.defects])
                    raise InputError(
                        f"{annotation.file}: class {name!r} is not in the recipe (it knows {known}); "
                        f"add it to components, defects, sound or ignore"
                    )
