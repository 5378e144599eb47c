"""The layout of MVTec AD: pictures sorted by what is wrong with them, and masks of where.

The format (P. Bergmann et al., "MVTec AD", CVPR 2019, and the sets that copied it): `train/good/*`,
`test/good/*`, `test/<defect>/*` and, for each defective picture, a mask of the same name or with `_mask`
added: `ground_truth/<defect>/000_mask.png`. Any number of such categories may lie below one root (`bottle/`,
`cable/`).

The rules here. A picture in a folder `good` is sound. Any other has the class of its folder: each connected
region of its mask is an object of it, with the region's box and area (specks of fewer than 5 pixels are left
out); without a mask, or with one that marks nothing, the picture as a whole has the class. A mask of 0 and
one other value is taken as it is; any other (grey edges, JPEG noise) is cut at half of its range. The folders
`train` and `test` are not taken as splits: there are no defects in train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Annotation, Shape
from data_prep.formats.masks import read_mask, regions
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError

NAME = "mvtec"
_MASKS = "ground_truth"
_SETS = frozenset({"train", "test", "val", "validation"})
_SOUND = "good"


@dataclass(frozen=True)
class _Place:
    """Where a picture or mask belongs: category (folders below the root), class, plain stem."""

    category: tuple[str, ...]
    kind: str
    stem: str


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like MVTec AD, None if it does not."""
    masks = _masks(folder)
    tested = {
        image.relative_to(folder.image_root).parts[:-3]
        for image in folder.images
        if _set_of(folder, image) == "test"
    }
    count = sum(place.category in tested for _, place in masks)
    return f"{count} mask(s) in {_MASKS} beside test" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every picture in the layout's folders, with the regions of its mask.

    Returns the source and one line per problem (an unreadable mask, one without its picture, two for one).
    InputError for a folder without the layout.
    """
    problems: list[str] = []
    masks: dict[_Place, Path] = {}
    for path, place in _masks(folder):
        if place in masks:
            problems.append(f"{path}: a second mask for the picture of {masks[place].name}; keep one of them")
        masks[place] = path
    images: list[AnnotatedImage] = []
    alone: list[Path] = []
    for path in folder.images:
        parts = path.relative_to(folder.image_root).parts
        if _MASKS in parts[:-1]:
            continue
        if (found_in := _set_of(folder, path)) is None:
            alone.append(path)
            continue
        place = _Place(parts[:-3], parts[-2], path.stem.casefold())
        mask = masks.pop(place, None) if found_in == "test" else None
        try:
            annotation = _annotation(path, place.kind, mask)
        except InputError as error:
            problems.append(str(error))
        else:
            images.append(AnnotatedImage(path, folder.key(path), [annotation]))
    problems += [f"{path}: a mask without its picture in test" for path in masks.values()]
    if not images and not problems:
        raise InputError(f"{folder.root}: no pictures in train/good or test/<defect>, as MVTec AD has them")
    note = "the folders train and test were not taken as splits: MVTec AD has no defects in train"
    return AnnotatedSource(NAME, tuple(images), tuple(alone), (note,)), problems


def _set_of(folder: SourceFolder, image: Path) -> str | None:
    """`train`, `test` ... of a picture at `<category>/test/<class>/<name>`, None for one elsewhere."""
    parts = image.relative_to(folder.image_root).parts
    return parts[-3] if len(parts) >= 3 and parts[-3] in _SETS and _MASKS not in parts else None


def _masks(folder: SourceFolder) -> list[tuple[Path, _Place]]:
    found = []
    for path in folder.named(*IMAGE_SUFFIXES):
        parts = path.relative_to(folder.root).parts
        if len(parts) >= 3 and parts[-3] == _MASKS:
            stem = path.stem.casefold().removesuffix("_mask")
            found.append((path, _Place(parts[:-3], parts[-2], stem)))
    return found


def _annotation(image: Path, kind: str, mask: Path | None) -> Annotation:
    if mask is None:
        if kind == _SOUND:
            return Annotation(image.parent)
        note = f"{image}: no mask; {kind!r} is known of the whole picture only"
        return Annotation(image.parent, labels=(kind,), notes=(note,))
    values = read_mask(mask)
    notes: list[str] = []
    found, specks = regions(_cut(values, mask, notes))
    if specks:
        notes.append(f"{mask}: {specks} speck(s) of a few pixels left out")
    if kind == _SOUND and found:
        raise InputError(f"{mask}: marks a defect of a picture in {_SOUND}; correct one of them")
    if kind != _SOUND and not found:
        notes.append(f"{mask}: marks nothing; {kind!r} is known of the whole picture only")
    return Annotation(
        mask,
        size=(float(values.shape[1]), float(values.shape[0])),
        shapes=tuple(Shape(kind, box, area) for box, area in found),
        labels=() if found or kind == _SOUND else (kind,),
        notes=tuple(notes),
    )


def _cut(values: np.ndarray, file: Path, notes: list[str]) -> np.ndarray:
    """Which pixels a mask marks: see the module's text."""
    different = np.unique(values)
    if len(different) == 1 or (len(different) == 2 and different[0] == 0):
        return values != 0
    top = 255 if different[-1] <= 255 else 65535
    notes.append(f"{file}: not binary ({len(different)} different values); cut at half of {top}")
    return values > top / 2
