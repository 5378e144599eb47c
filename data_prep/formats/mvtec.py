"""Read the layout of MVTec AD: images sorted by what is wrong with them, and masks of where.

The format (P. Bergmann et al., "MVTec AD", CVPR 2019, and the sets that copied it): `train/good/*`,
`test/good/*`, `test/<defect>/*` and, for each defective image, a mask of the same name or with `_mask`
added: `ground_truth/<defect>/000_mask.png`. Any number of such categories may lie below one root (`bottle/`,
`cable/`). MVTec LOCO has a folder of masks for each image (`ground_truth/<defect>/000/000.png`), one for
each defect; in MVTec AD 2 `ground_truth` lies in `test_public`; BeanTech calls sound images `ok`.

The rules here. An image in a folder `good` or `ok` is sound. Any other has the class of its folder: each
connected region of its mask is an object of it, with the region's box and area (specks of fewer than 5 pixels
are left out); without a mask, or with one that marks nothing, the image as a whole has the class. A mask of 0
and one other value is taken as it is; any other (grey edges, JPEG noise) is thresholded at half of its range.
The folders `train` and `test` are not taken as splits: there are no defects in train.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Annotation, Shape
from data_prep.formats.masks import connected_regions, read_mask
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError

NAME = "mvtec"
_MASK_FOLDER = "ground_truth"
_TESTS = frozenset({"test", "test_public"})
_SETS = frozenset({"train", "val", "validation", *_TESTS})
_SOUND = frozenset({"good", "ok"})


@dataclass(frozen=True)
class _ImageId:
    """What an image and its mask have in common: category (folders below the root), class and plain stem."""

    category: tuple[str, ...]
    class_name: str
    stem: str


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like MVTec AD, None if it does not."""
    masks = _find_masks(folder)
    tested = {
        image.relative_to(folder.image_root).parts[:-3]
        for image in folder.images
        if _set_of(folder, image) in _TESTS
    }
    count = sum(image_id.category in tested for _, image_id in masks)
    return f"{count} mask(s) in {_MASK_FOLDER} beside test" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every image in the layout's folders, with the regions of its mask.

    Returns:
        The source and the problems, one line each (an unreadable mask, one without its image, two for one);
        a caller that gets problems must not go on.

    Raises:
        InputError: The folder does not have the layout.
    """
    problems: list[str] = []
    masks: dict[_ImageId, list[Path]] = defaultdict(list)
    for path, image_id in _find_masks(folder):
        if (others := masks[image_id]) and others[0].parent.name != image_id.stem:
            problems.append(f"{path}: a second mask for the picture of {others[0].name}; keep one of them")
        others.append(path)
    images: list[AnnotatedImage] = []
    unannotated: list[Path] = []
    for path in folder.images:
        parts = path.relative_to(folder.image_root).parts
        if _MASK_FOLDER in parts[:-1]:
            continue
        set_name = _set_of(folder, path)
        if set_name is None:
            unannotated.append(path)
            continue
        image_id = _ImageId(parts[:-3], parts[-2], path.stem.casefold())
        own_masks = masks.pop(image_id, []) if set_name in _TESTS else []
        try:
            of_masks: list[Path | None] = [*own_masks] or [None]
            annotations = [_annotate(path, image_id.class_name, mask) for mask in of_masks]
            images.append(AnnotatedImage(path, folder.key(path), annotations))
        except InputError as error:
            problems.append(str(error))
    problems += [
        f"{path}: a mask without its picture in test" for paths in masks.values() for path in paths[:1]
    ]
    if not images and not problems:
        raise InputError(f"{folder.root}: no pictures in train/good or test/<defect>, as MVTec AD has them")
    note = "the folders train and test were not taken as splits: MVTec AD has no defects in train"
    return AnnotatedSource(NAME, tuple(images), tuple(unannotated), (note,)), problems


def _set_of(folder: SourceFolder, image: Path) -> str | None:
    """Return `train`, `test` ... of an image at `<category>/test/<class>/<name>`, None for one elsewhere."""
    parts = image.relative_to(folder.image_root).parts
    return parts[-3] if len(parts) >= 3 and parts[-3] in _SETS and _MASK_FOLDER not in parts else None


def _find_masks(folder: SourceFolder) -> list[tuple[Path, _ImageId]]:
    masks = []
    for path in folder.named(*IMAGE_SUFFIXES):
        parts = path.relative_to(folder.root).parts
        if _MASK_FOLDER not in parts:
            continue
        above, below = parts[: parts.index(_MASK_FOLDER)], parts[parts.index(_MASK_FOLDER) + 1 :]
        category = above[:-1] if above and above[-1] in _TESTS else above
        if len(below) == 2:
            masks.append((path, _ImageId(category, below[0], path.stem.casefold().removesuffix("_mask"))))
        elif len(below) == 3:
            masks.append((path, _ImageId(category, below[0], below[1].casefold())))
    return masks


def _annotate(image: Path, class_name: str, mask: Path | None) -> Annotation:
    """Return the annotation of an image of a class. InputError for a mask that does not fit it."""
    if mask is None:
        if class_name in _SOUND:
            return Annotation(image.parent)
        note = f"{image}: no mask; {class_name!r} is known of the whole picture only"
        return Annotation(image.parent, labels=(class_name,), notes=(note,))
    values = read_mask(mask)
    notes: list[str] = []
    regions, specks = connected_regions(_threshold(values, mask, notes))
    if specks:
        notes.append(f"{mask}: {specks} speck(s) of a few pixels left out")
    if class_name in _SOUND and regions:
        raise InputError(f"{mask}: marks a defect of a picture in {class_name}; correct one of them")
    if class_name not in _SOUND and not regions:
        notes.append(f"{mask}: marks nothing; {class_name!r} is known of the whole picture only")
    return Annotation(
        mask,
        size=(float(values.shape[1]), float(values.shape[0])),
        shapes=tuple(Shape(class_name, box, area) for box, area in regions),
        labels=() if regions or class_name in _SOUND else (class_name,),
        notes=tuple(notes),
    )


def _threshold(values: np.ndarray, file: Path, notes: list[str]) -> np.ndarray:
    """Return which pixels a mask marks, (height, width), by the rules in the module's docstring."""
    different = np.unique(values)
    if len(different) == 1 or (len(different) == 2 and different[0] == 0):
        return values != 0
    top = 255 if different[-1] <= 255 else 65535
    notes.append(f"{file}: not binary ({len(different)} different values); cut at half of {top}")
    return values > top / 2
