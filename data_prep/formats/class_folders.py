"""Read a folder for each class, as classification tools keep images: `broken/1.jpg`, `unbroken/2.jpg`.

The class folders may lie below others: those of a split (`train/broken/1.jpg`), of an archive or of what is
shown (`casting_data/train/broken/1.jpg`, `walls/cracked/1.jpg`, `decks/cracked/2.jpg`). The class is the
folder that an image lies in. What it means, sound ones included, is for the recipe to say. Images in a folder
of a split, or below a class folder, belong to no class. Photos in one folder and their masks in another
(`image/1.jpg`, `masks/1.png`) are no classes.
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
from llava.common.html.markup import readable

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
_DOCUMENTS = {"docs", "doc", "assets", "figures", "figs", "media", "screenshots"}
_LOSSY = {".jpg", ".jpeg", ".heic", ".heif"}


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like a folder for each class, None if it does not.

    It does if every image is in one of two or more class folders, or in one such as `docs` of a repository,
    and there is no annotation file and no folder of masks or of all photos.
    """
    if not folder.images or folder.named(*_ANNOTATION_SUFFIXES) or _has_label_texts(folder):
        return None
    classes = _classes(folder)
    if any(image not in classes and not _in_documents(folder, image) for image in folder.images):
        return None
    if any(_MASK_FOLDER in path.relative_to(folder.root).parts for path in folder.files):
        return None
    files: dict[str, list[Path]] = defaultdict(list)
    for image, name in classes.items():
        files[name].append(image)
    names = sorted(files)
    if len(names) < 2 or parallel_folders(files):
        return None
    return f"pictures in {len(names)} folders named {_abbreviate(names)}"


def hint(folder: SourceFolder) -> str:
    """Return what to do if folders are classes, where other files or pictures beside make that uncertain; ""
    if there are none that could be."""
    found = sorted(set(_classes(folder).values()))
    names = [name for name in found if not names_masks(name) and name.casefold() not in _PHOTO_FOLDERS]
    if len(names) < 2:
        return ""
    return readable(f"; if the folders of pictures ({_abbreviate(names)}) are classes: --format {NAME}")


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


def _in_documents(folder: SourceFolder, image: Path) -> bool:
    """Return whether an image lies in a folder at the top that belongs to a repository, not to its photos."""
    parts = image.relative_to(folder.image_root).parts[:-1]
    return bool(parts) and parts[0].casefold() in _DOCUMENTS


def _classes(folder: SourceFolder) -> dict[Path, str]:
    """Return the class that the path of each image names, without the images that are outside class
    folders."""
    root = folder.image_root
    images = [image for image in folder.images if not _in_documents(folder, image)]
    named = {image.parent for image in images if not split_in([image.parent.name])} - {root}
    return {
        image: image.parent.name
        for image in images
        if image.parent in named and named.isdisjoint(image.parent.parents)
    }


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every image in a class folder, with its class as label.

    Returns:
        The source and an empty list: there is nothing in it that could be unreadable.

    Raises:
        InputError: There are no images in class folders.
    """
    images: list[AnnotatedImage] = []
    unannotated: list[Path] = []
    classes = _classes(folder)
    for path in folder.images:
        if path in classes:
            annotation = Annotation(path.parent, labels=(classes[path],))
            images.append(AnnotatedImage(path, folder.key(path), [annotation]))
        else:
            unannotated.append(path)
    if not images:
        raise InputError(f"{folder.root}: no pictures in class folders below it")
    source = AnnotatedSource(NAME, tuple(images), tuple(unannotated))
    set_groups_and_splits(source, folder)
    return source, []
