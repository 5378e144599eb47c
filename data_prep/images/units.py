"""Cut an annotated image into units with boxes: the whole image, crops around components, or tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.annotations import (
    AnnotatedImage,
    Conversation,
    Shape,
    clip,
    merge_annotations,
    plain_name,
)
from data_prep.images.decode import decoded
from data_prep.images.fingerprint import fingerprint
from data_prep.images.points import find_points
from data_prep.images.store import CachedImage, ImageStore, part_name
from data_prep.images.taken import time_taken
from data_prep.images.tiles import cut, grid, to_image, visible
from data_prep.recipe.families import DefectKind
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import Split
from data_prep.synthetic import Origin
from llava.common.boxes import Box, area, holds_centre, intersection
from llava.common.errors import InputError
from llava.common.files import sha256


@dataclass(frozen=True, slots=True)
class Unit:
    """What questions are asked about: an image, a crop or a tile, as written to the output.

    `key` is unique in a source; `source` is the key of its source image. `image` is its name in the output,
    made from its content. Boxes are in pixels of `size` (width, height); their names are the recipe's. `crop`
    is the part of the upright source image that it shows, in pixels of that; None: all of it, at its size.
    `photo` is the source image's own name: its path below the source. `origin` tells how the image was made,
    None for what a camera took.
    """

    key: str
    source: str
    image: str
    size: tuple[int, int]
    components: tuple[Shape, ...]
    defects: tuple[Shape, ...]
    labels: tuple[str, ...] = ()  # kinds of defect only
    conversations: tuple[Conversation, ...] = ()
    crop: Box | None = None
    photo: str = ""
    origin: Origin | None = None

    @property
    def name(self) -> str:
        """The photo's own name, for people to read; of a crop or tile also which part of the photo it is."""
        if self.crop is None or self.key == self.source:
            return self.photo
        x1, y1, x2, y2 = map(round, self.crop)
        return f"{self.photo} (x {x1} to {x2}, y {y1} to {y2})"

    @property
    def kinds(self) -> list[str]:
        """The kinds of defect that the unit shows, the largest box's first, those without a box last."""
        ordered = sorted(self.defects, key=lambda shape: (-area(shape.box), shape.name, shape.box))
        return list(dict.fromkeys([*(shape.name for shape in ordered), *self.labels]))

    @property
    def label(self) -> str:
        """The most conspicuous kind of defect (largest box), `none` where there is none."""
        return next(iter(self.kinds), "none")

    def in_image(self, box: Box) -> Box:
        """Return a box on this unit in pixels of its source image."""
        return box if self.crop is None else to_image(box, self.crop, self.size)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A source image whose units are written.

    `file` is the source file, `crops` are the written crops of its components. `left_out` counts what was
    left out, by reason; `group` and `split` are those that the source states. `digest` is the SHA-256 of its
    file and `cached` what the next conversion need not find out again.
    """

    key: str
    units: tuple[Unit, ...]
    file: Path
    crops: tuple[Path, ...]
    notes: tuple[str, ...]
    left_out: Mapping[str, int]
    group: str | None
    split: Split | None
    digest: str
    cached: CachedImage

    @property
    def changes(self) -> tuple[str, ...]:
        return self.cached.changes

    @property
    def fingerprint(self) -> bytes:
        return self.cached.fingerprint


def prepare_image(
    annotated: AnnotatedImage, recipe: Recipe, names: Mapping[str, DefectKind | None], store: ImageStore
) -> PreparedImage:
    """Cut, scale, encode and write the units of an image; the same input gives the same bytes.

    The image is decoded only if the store does not hold all of it.

    Args:
        annotated: The image with its annotations.
        recipe: Says how it is cut and written.
        names: `recipe.known_names()`.
        store: Writes the units' images.

    Raises:
        InputError: The file is damaged or the boxes are of another image; it names the file.
    """
    try:
        digest = sha256(annotated.file)
    except OSError as error:
        raise InputError(f"{annotated.file}: cannot be read ({error.strerror})") from None
    with ExitStack() as stack:
        image: Image.Image | None = None
        cached = store.find_cached(digest)
        if cached is None:
            opened = stack.enter_context(decoded(annotated.file))
            image = opened.image
            cached = CachedImage(
                size=image.size,
                orientation=opened.orientation,
                changes=opened.changes,
                fingerprint=fingerprint(image),
                points=find_points(image),
                taken=time_taken(annotated.file),
            )
        shapes, notes = merge_annotations(annotated, cached.size, cached.orientation)
        left_out: dict[str, int] = {}
        units, parts = [], {}
        for unit in cut_units(whole_unit(annotated, cached.size, shapes, recipe, names), recipe, left_out):
            assert unit.crop is not None
            part = part_name(unit.crop)
            name = cached.parts.get(part)
            if name is None or not store.reuse(name):
                image = image or stack.enter_context(decoded(annotated.file)).image
                name = store.write(encode_part(image, unit.crop, recipe))
            parts[part] = name
            units.append(_scaled_down(replace(unit, image=name), recipe.pictures.max_side))
    return PreparedImage(
        annotated.key,
        tuple(units),
        annotated.file,
        tuple(store.folder / unit.image for unit in units if recipe.unit == "object"),
        tuple(notes),
        left_out,
        annotated.group,
        annotated.split,
        digest,
        cached.model_copy(update={"parts": parts}),
    )


def whole_unit(
    image: AnnotatedImage,
    size: tuple[int, int],
    shapes: list[Shape],
    recipe: Recipe,
    names: Mapping[str, DefectKind | None],
) -> Unit:
    """Return the whole image as a unit, not written yet, with the shapes and labels that the recipe knows."""
    # Two of the source's names may be aliases of one class, for the same object.
    kept = list(
        dict.fromkeys(
            replace(shape, name=kind.name)
            for shape in shapes
            if (kind := names[plain_name(shape.name)]) is not None
        )
    )
    component_names = {kind.name for kind in recipe.components}
    labels = [
        kind.name
        for annotation in image.annotations
        for label in annotation.labels
        if (kind := names[plain_name(label)]) is not None and kind.name not in component_names
    ]
    return Unit(
        image.key,
        image.key,
        "",
        size,
        tuple(shape for shape in kept if shape.name in component_names),
        tuple(shape for shape in kept if shape.name not in component_names),
        tuple(dict.fromkeys(labels)),
        tuple(conversation for annotation in image.annotations for conversation in annotation.conversations),
        (0.0, 0.0, float(size[0]), float(size[1])),
        image.key + image.file.suffix,
    )


def cut_units(whole: Unit, recipe: Recipe, left_out: dict[str, int]) -> list[Unit]:
    """Return the units of an image at the image's scale, each with its `crop`."""
    if recipe.unit == "picture":
        return [whole]
    tiles = grid(whole.size, recipe.tiles) if recipe.unit == "tile" else []
    if len(tiles) == 1:  # not larger than a tile
        return [whole]
    units = [whole] if tiles and recipe.tiles.whole else []
    if whole.conversations and not units:
        _leave_out(left_out, "conversations about whole pictures", len(whole.conversations))
    if set(whole.labels) - {shape.name for shape in whole.defects}:
        # Any part of it may be the sound one.
        _leave_out(left_out, "pictures not cut, because a defect has no place")
    elif tiles:
        units += _tile_units(whole, tiles, recipe, left_out)
    else:
        units += _crop_units(whole, recipe, left_out)
    return units


def _leave_out(left_out: dict[str, int], reason: str, count: int = 1) -> None:
    if count:
        left_out[reason] = left_out.get(reason, 0) + count


def _tile_units(whole: Unit, tiles: list[Box], recipe: Recipe, left_out: dict[str, int]) -> list[Unit]:
    """Return the tiles, without those that show less of an object than `tiles.min_visible`."""
    units: list[Unit] = []
    uncovered = set(whole.defects)
    for number, tile in enumerate(tiles):
        fractions = {
            shape: fraction
            for shape in (*whole.components, *whole.defects)
            if (fraction := visible(shape.box, tile)) > 0
        }
        if any(fraction < recipe.tiles.min_visible for fraction in fractions.values()):
            _leave_out(left_out, "tiles that show a rest of something (tiles.min_visible)")
            continue
        uncovered -= set(fractions)
        units.append(
            Unit(
                f"{whole.key}#{number}",
                whole.source,
                "",
                (round(tile[2] - tile[0]), round(tile[3] - tile[1])),
                tuple(_cut_shape(shape, tile) for shape in whole.components if shape in fractions),
                tuple(_cut_shape(shape, tile) for shape in whole.defects if shape in fractions),
                crop=tile,
                photo=whole.photo,
            )
        )
    _leave_out(left_out, "defects in no tile", len(uncovered))
    return units


def _cut_shape(shape: Shape, part: Box) -> Shape:
    """Return the shape on a part of the image. Its area is assumed to shrink with its box."""
    box = cut(shape.box, part)
    return Shape(shape.name, box, None if shape.area is None else shape.area * area(box) / area(shape.box))


def _crop_units(whole: Unit, recipe: Recipe, left_out: dict[str, int]) -> list[Unit]:
    """Return a crop per component, or per window of it.

    A defect belongs to each crop that holds its centre, because it is visible there; a crop that shows only
    the edge of a defect has no true answer and is left out.
    """
    units: list[Unit] = []
    uncovered = set(whole.defects)
    parts = [
        Shape(component.name, part)
        for component in whole.components
        for part in _windows(component.box, recipe.crops.windows)
    ]
    for number, component in enumerate(parts):
        x1, y1, x2, y2 = component.box
        side = max(x2 - x1, y2 - y1)
        if side < recipe.crops.min_side:
            _leave_out(left_out, "crops smaller than crops.min_side")
            continue
        margin = recipe.crops.context * side
        crop = _pixel_box((x1 - margin, y1 - margin, x2 + margin, y2 + margin), whole.size)
        inside = [shape for shape in whole.defects if holds_centre(crop, shape.box)]
        uncovered -= set(inside)
        if any(intersection(crop, shape.box) > 0 for shape in whole.defects if shape not in inside):
            _leave_out(left_out, "crops that cut a defect at their edge")
            continue
        units.append(
            Unit(
                f"{whole.key}#{number}",
                whole.source,
                "",
                (round(crop[2] - crop[0]), round(crop[3] - crop[1])),
                (_cut_shape(component, crop),),
                tuple(_cut_shape(shape, crop) for shape in inside),
                crop=crop,
                photo=whole.photo,
            )
        )
    _leave_out(left_out, "defects outside every component's crop", len(uncovered))
    _leave_out(left_out, "pictures without a component", int(not whole.components))
    return units


def _windows(box: Box, count: int) -> list[Box]:
    """Return `box` in `count` equal parts along its longer side."""
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


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return `size`, scaled down so that the longer side is at most `max_side`."""
    factor = max_side / max(size)
    return size if factor >= 1 else (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))


def encode_part(image: Image.Image, crop: Box, recipe: Recipe) -> bytes:
    """Return JPEG bytes of a part of the image, scaled down to the recipe's `max_side`."""
    part = image if _whole_pixels(crop) == (0, 0, *image.size) else image.crop(_whole_pixels(crop))
    size = _fitting(part.size, recipe.pictures.max_side)
    if size != part.size:
        part = part.resize(size, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    # Pillow would copy the comment of the source file, which may give away what the image shows.
    part.save(buffer, "JPEG", quality=recipe.pictures.quality, subsampling=0, comment=b"")
    return buffer.getvalue()


def _scaled_down(unit: Unit, max_side: int) -> Unit:
    width, height = _fitting(unit.size, max_side)
    x, y = width / unit.size[0], height / unit.size[1]
    return replace(
        unit,
        size=(width, height),
        components=tuple(_scaled(shape, x, y) for shape in unit.components),
        defects=tuple(_scaled(shape, x, y) for shape in unit.defects),
    )


def _scaled(shape: Shape, x: float, y: float) -> Shape:
    x1, y1, x2, y2 = shape.box
    area = None if shape.area is None else shape.area * x * y
    return Shape(shape.name, (x1 * x, y1 * y, x2 * x, y2 * y), area)


def class_names(images: Iterable[AnnotatedImage]) -> set[str]:
    """Return the plain names of all classes in the annotations."""
    return {
        plain_name(name)
        for image in images
        for annotation in image.annotations
        for name in (*(shape.name for shape in annotation.shapes), *annotation.labels)
    }


def unknown_classes(
    images: Iterable[AnnotatedImage], recipe: Recipe, names: Mapping[str, DefectKind | None]
) -> list[str]:
    """Return a line for each class that the recipe does not know, with its first file and its count.
    `names` is `recipe.known_names()`."""
    first: dict[str, str] = {}
    count: Counter[str] = Counter()
    for image in images:
        for annotation in image.annotations:
            for name in (*(shape.name for shape in annotation.shapes), *annotation.labels):
                if (plain := plain_name(name)) not in names:
                    first.setdefault(plain, f"{annotation.file}: class {name!r}")
                    count[plain] += 1
    known = ", ".join(kind.name for kind in [*recipe.components, *recipe.defects])
    return [
        f"{where} is not in the recipe ({count[plain]} time(s), here first; it knows {known}); "
        f"add it to the aliases of a component or defect, to sound or to ignore, "
        f"or make it a component or defect of its own"
        for plain, where in first.items()
    ]
