"""Prepare many images: cut, scale, encode and write their units, in threads or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.annotations import AnnotatedImage
from data_prep.images.sharing import Workers, share
from data_prep.images.store import ImageStore
from data_prep.images.units import PreparedImage, prepare_image
from data_prep.recipe.families import DefectKind
from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError


@dataclass(frozen=True)
class Preparation:
    """What `prepare_image` needs beside an image: `names` are `recipe.known_names()`."""

    recipe: Recipe
    names: Mapping[str, DefectKind | None]
    store: ImageStore


def prepare_images(
    images: Sequence[AnnotatedImage], preparation: Preparation, about: str, workers: Workers
) -> list[PreparedImage | str]:
    """Return what `prepare_image` makes of each image, in their order, or what is wrong with it.

    Args:
        images: The images with their annotations.
        preparation: How they are cut, and where the units are written.
        about: What the images are called beside the progress.
        workers: Threads, or a cluster whose machines have all files, the store's too, under the same paths.
    """
    # The workers write: their results stay small, and only the images' names pass through this process.
    results = share(_prepare, preparation, images, about, workers)
    preparation.store.remove_partial()
    return results


def _prepare(preparation: Preparation, image: AnnotatedImage) -> PreparedImage | str:
    try:
        return prepare_image(image, preparation.recipe, preparation.names, preparation.store)
    except InputError as error:
        return str(error)
