"""A folder per class, as classification tools keep pictures: `broken/1.jpg`, `unbroken/2.jpg`.

The class folders lie directly below the root or below folders that name a split (`train/broken/1.jpg`). What
a class means, sound ones included, is for the recipe to say. Pictures elsewhere belong to no class.
"""

from __future__ import annotations

from pathlib import Path

from data_prep.annotations import AnnotatedPicture, Annotation, Folder, Source, Split
from llava.errors import InputError

NAME = "class_folders"
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# Where these files are, classes are written in them and folders are only folders.
_ANNOTATION_SUFFIXES = (".xml", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow")
_MASKS = "ground_truth"


def detect(folder: Folder) -> str | None:
    """Why the folder looks like a folder per class, None if it does not: every picture is in one of two or
    more class folders, and there is no annotation file and no folder of masks."""
    if not folder.pictures or folder.named(*_ANNOTATION_SUFFIXES) or _has_label_texts(folder):
        return None
    found = [_class_of(folder, picture) for picture in folder.pictures]
    if None in found or any(_MASKS in path.relative_to(folder.root).parts for path in folder.files):
        return None
    names = sorted({placed[1] for placed in found if placed})
    return f"pictures in {len(names)} folders named {_listed(names)}" if len(names) > 1 else None


def _has_label_texts(folder: Folder) -> bool:
    """Texts named like pictures (YOLO's labels); a README or a licence is none."""
    stems = {picture.stem for picture in folder.pictures}
    return any(text.stem in stems or text.stem == "classes" for text in folder.named(".txt"))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _class_of(folder: Folder, picture: Path) -> tuple[Split | None, str] | None:
    """The split that a picture's path names, if it does, and its class; None outside the class folders."""
    parents = picture.relative_to(folder.picture_root).parts[:-1]
    if len(parents) == 2 and parents[0].casefold() in _SPLITS:
        return _SPLITS[parents[0].casefold()], parents[1]
    if len(parents) == 1 and parents[0].casefold() not in _SPLITS:
        return None, parents[0]
    return None


def read(folder: Folder) -> tuple[Source, list[str]]:
    """Every picture in a class folder, with its class as label. InputError for a folder without any.

    The list of problems is always empty: there is nothing in it that could be unreadable.
    """
    pictures: list[AnnotatedPicture] = []
    alone: list[Path] = []
    for path in folder.pictures:
        placed = _class_of(folder, path)
        if placed is None:
            alone.append(path)
            continue
        split, name = placed
        annotation = Annotation(path.parent, labels=(name,))
        pictures.append(AnnotatedPicture(path, folder.key(path), [annotation], split=split))
    if not pictures:
        raise InputError(f"{folder.root}: no pictures in class folders directly below it, or below train/")
    return Source(NAME, tuple(pictures), tuple(alone)), []
