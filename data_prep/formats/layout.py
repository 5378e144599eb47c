"""What the names of folders and files say of a picture: its split, and the photo that it is a copy of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from data_prep.annotations import PICTURE_SUFFIXES, Folder, Source, Split
from llava.errors import InputError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# `tower12_jpg.rf.0f2c...`: Roboflow writes each version of `tower12.jpg` under such a name.
_ROBOFLOW = re.compile(r"(.+)_(?:jpe?g|png|bmp|webp|tiff?|heic|heif)\.rf\.\w+", re.IGNORECASE)


def split_in(words: Iterable[str]) -> Split | None:
    """The split that words such as folder names speak of (`valid`, `train2017`), None if none or several."""
    names = (re.sub(r"\d{4}$", "", word.casefold()) for word in words)
    found = {SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def roboflow_group(stem: str) -> str | None:
    """The stem of the photo that a Roboflow export made this picture from, None if it is no such export."""
    match = _ROBOFLOW.fullmatch(stem)
    return match[1] if match else None


def set_groups_and_splits(source: Source, folder: Folder) -> None:
    """Set each picture's group by its Roboflow name and its split by its folders, where it has none yet."""
    for picture in source.pictures:
        picture.group = picture.group or roboflow_group(picture.file.stem)
        picture.split = picture.split or split_in(picture.file.relative_to(folder.picture_root).parent.parts)


def claim(owners: dict[Path, str], file: Path, written: str, picture: Path) -> None:
    """Note in `owners` that `file` calls `picture` by the name `written`.

    InputError if it also calls it by a path that leads elsewhere (`day2/1.jpg` after `day1/1.jpg`, not after
    `1.jpg`): names are found without regard to folder, and a picture that is missing must not be mistaken
    for its namesake in another folder.
    """
    owner = owners.setdefault(picture, written)
    paths = [PureWindowsPath(name.casefold()) for name in (owner, written)]
    if any(path.suffix not in PICTURE_SUFFIXES for path in paths):
        paths = [path.with_suffix("") if path.suffix in PICTURE_SUFFIXES else path for path in paths]
    ends = zip(*(reversed(path.parts) for path in paths), strict=False)
    if any(theirs != ours for theirs, ours in ends):
        raise InputError(
            f"{file}: {owner!r} and {written!r} would both be {picture}; one of them is missing, or write "
            f"them alike"
        )
