"""Reads the photos to make pictures from: of an annotated source, those of which is known what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedImage, AnnotatedSource, merge_annotations
from data_prep.images.units import Unit, whole_unit
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Photo
from llava.common.errors import InputError
from llava.common.files import read_json, sha256
from llava.common.images import open_header, open_image, orientation_of

NO_PLACE = "a defect has no place"
NOTHING_KNOWN = "not annotated with boxes or classes"
NOT_TRAINED = "not in the train split"
_TURNED = 5  # EXIF orientations from here on swap width and height


@dataclass
class Photos:
    """Photos that may be changed or give defects, in the source's order.

    `examples` counts the photos that show each kind, also those that are left out because nothing says where.
    `left_out` counts the others by reason.
    """

    photos: list[Photo] = field(default_factory=list)
    examples: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def read_photos(
    source: AnnotatedSource, recipe: Recipe, trained: Collection[str] | None = None, workers: int = 1
) -> Photos:
    """Read the photos of a source.

    All are decoded once, so that a damaged one ends nothing that has run for hours; those of `trained` are
    not, since `convert` has decoded them.

    Args:
        source: The annotated images.
        recipe: Names the classes.
        trained: The keys of the images that may be used (`trained_keys`); None for all.
        workers: The number of threads that read files.

    Raises:
        InputError: A photo is damaged, or its boxes are of another image.
    """
    read = Photos()
    images = [image for image in source.images if trained is None or image.key in trained]
    read.left_out[NOT_TRAINED] = len(source.images) - len(images)
    names = recipe.known_names()

    def work(image: AnnotatedImage) -> tuple[Photo, Unit]:
        with open_header(image.file) as stored:
            orientation = orientation_of(stored)
            size = stored.size[::-1] if orientation >= _TURNED else stored.size
        if trained is None:
            open_image(image.file)
        shapes, _ = merge_annotations(image, size, orientation)
        whole = whole_unit(image, size, shapes, recipe, names)
        photo = Photo(
            file=image.file,
            name=whole.photo,
            sha256=sha256(image.file),
            size=size,
            components=whole.components,
            defects=whole.defects,
        )
        return photo, whole

    with ThreadPoolExecutor(workers) as pool:
        for photo, whole in pool.map(work, images):
            read.examples.update(whole.kinds)
            if set(whole.labels) - {shape.name for shape in whole.defects}:
                read.left_out[NO_PLACE] += 1
            elif whole.conversations and not (whole.components or whole.defects):
                read.left_out[NOTHING_KNOWN] += 1
            else:
                read.photos.append(photo)
    read.left_out = +read.left_out  # without zeros
    return read


def trained_keys(data: Path) -> set[str]:
    """Return the keys of the images that lie in the train split of a conversion, and in no other.

    Args:
        data: A folder that `convert` wrote; its manifest.json says where each image went.

    Raises:
        InputError: It has no manifest.json, or one of another form.
    """
    file = data / "manifest.json"
    if not file.is_file():
        raise InputError(f"--data {data}: no manifest.json in it; name a folder that `convert` wrote")
    manifest: Any = read_json(file)
    try:
        splits = [(picture["split"], picture["source"]) for picture in manifest["pictures"].values()]
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{file}: does not say where each picture went; convert again") from None
    held_out = {key for split, key in splits if split != "train"}
    return {key for split, key in splits if split == "train"} - held_out
