"""Read a folder for each class, as classification tools keep images: `broken/1.jpg`, `unbroken/2.jpg`.

The class folders lie directly below the root or below folders that name a split (`train/broken/1.jpg`). What
a class means, sound ones included, is for the recipe to say. Images elsewhere belong to no class. Photos in
one folder and their masks in another (`image/1.jpg`, `masks/1.png`) are no classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Annotation
from data_prep.formats.layout import set_groups_and_splits
from data_prep.source_folder import SourceFolder, names_masks, split_in
from llava.common.errors import InputError

NAME = "class_folders"
# Where these files are, classes are written in them and folders are only folders.
_ANNOTATION_SUFFIXES = (".xml", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow")
_MASK_FOLDER = "ground_truth"
_PHOTO_FOLDERS = {
    "image",
    "images",
    "img",
    "imgs",
    "jpegimages",
    "photo",
    "photos",
    "picture",
    "pictures",
    "rgb",
}
_LOSSY = {".jpg", ".jpeg", ".heic", ".heif"}


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like a folder for each class, None if it does not.

    It does if every image is in one of two or more class folders, and there is no annotation file and no
    folder of masks or of all photos.
    """
    if not folder.images or folder.named(*_ANNOTATION_SUFFIXES) or _has_label_texts(folder):
        return None
    classes = [_class_of(folder, image) for image in folder.images]
    if None in classes or any(_MASK_FOLDER in path.relative_to(folder.root).parts for path in folder.files):
        return None
    files: dict[str, list[Path]] = defaultdict(list)
    for image, name in zip(folder.images, classes, strict=True):
        files[name or ""].append(image)
    names = sorted(files)
    if len(names) < 2 or parallel_folders(files):
        return None
    return f"pictures in {len(names)} folders named {_abbreviate(names)}"


def parallel_folders(files: Mapping[str, Sequence[Path]]) -> tuple[str, str] | None:
    """Return the names of a folder of photos and of one of their masks, None if there are no such folders.

    They are known by their names (`images`, `masks`) or by equal names of images, of which one folder's are
    photos (JPEG) and the other's are kept without loss.

    Args:
        files: The images in each folder.
    """
    stems = {name: {image.stem.casefold() for image in images} for name, images in files.items()}
    for photos, masks in permutations(sorted(files), 2):
        shared = len(stems[photos] & stems[masks])
        if 2 * shared < len(stems[masks]):
            if photos.casefold() in _PHOTO_FOLDERS and names_masks(masks):
                return photos, masks
        elif (
            photos.casefold() in _PHOTO_FOLDERS
            or (names_masks(masks) and not names_masks(photos))
            or (shared > 1 and _suffixes(files[photos]) <= _LOSSY and not _suffixes(files[masks]) & _LOSSY)
        ):
            return photos, masks
    return None


def _suffixes(images: Iterable[Path]) -> set[str]:
    return {image.suffix.lower() for image in images}


def _has_label_texts(folder: SourceFolder) -> bool:
    """Return whether there are texts named like images (YOLO's labels); a README or a licence is none."""
    stems = {image.stem for image in folder.images}
    return any(text.stem in stems or text.stem == "classes" for text in folder.named(".txt"))


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _class_of(folder: SourceFolder, image: Path) -> str | None:
    """Return the class that an image's path names; None outside the class folders."""
    *above, name = image.relative_to(folder.image_root).parent.parts or ("",)
    if not above:
        return name if name and not split_in([name]) else None
    return name if len(above) == 1 and split_in(above) else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every image in a class folder, with its class as label.

    Returns:
        The source and an empty list: there is nothing in it that could be unreadable.

    Raises:
        InputError: There are no images in class folders.
    """
    images: list[AnnotatedImage] = []
    unannotated: list[Path] = []
    for path in folder.images:
        name = _class_of(folder, path)
        if name is None:
            unannotated.append(path)
        else:
            annotation = Annotation(path.parent, labels=(name,))
            images.append(AnnotatedImage(path, folder.key(path), [annotation]))
    if not images:
        raise InputError(f"{folder.root}: no pictures in class folders directly below it, or below train/")
    source = AnnotatedSource(NAME, tuple(images), tuple(unannotated))
    set_groups_and_splits(source, folder)
    return source, []
