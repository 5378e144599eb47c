"""What readers share: which files are theirs, and what names of folders and files say of a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from data_prep.annotations import AnnotatedSource
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

# `tower12_jpg.rf.0f2c...`: Roboflow writes each version of `tower12.jpg` under such a name.
_ROBOFLOW = re.compile(r"(.+)_(?:jpe?g|png|bmp|webp|tiff?|heic|heif)\.rf\.\w+", re.IGNORECASE)
Read = TypeVar("Read")


class OtherFormatError(InputError):
    """A whole file of some other format."""


def read_each(
    files: Iterable[Path], read: Callable[[Path], Read]
) -> tuple[list[tuple[Path, Read]], list[Path], list[str]]:
    """Each file with what `read` gives of it, the files of other formats, a line per file that is damaged."""
    found: list[tuple[Path, Read]] = []
    others: list[Path] = []
    problems: list[str] = []
    for file in files:
        try:
            found.append((file, read(file)))
        except OtherFormatError:
            others.append(file)
        except InputError as error:
            problems.append(str(error))
    return found, others, problems


def passed_over(folder: SourceFolder, files: Sequence[Path], what: str) -> list[str]:
    """The note on files that are not used, if there are any."""
    if not files:
        return []
    return [f"{len(files)} {what} passed over, for instance {min(files).relative_to(folder.root)}"]


def require_images(folder: SourceFolder, what: str) -> None:
    """InputError if there are no pictures for `what` there is."""
    if not folder.images:
        raise InputError(
            f"{what}, but no pictures in {folder.image_root} or below; name their folder with --image-folder"
        )


def roboflow_group(stem: str) -> str | None:
    """The stem of the photo that a Roboflow export made this picture from, None if it is no such export."""
    match = _ROBOFLOW.fullmatch(stem)
    return match[1] if match else None


def set_groups_and_splits(source: AnnotatedSource, folder: SourceFolder) -> None:
    """Set each picture's group by its Roboflow name and its split by its folders, where it has none yet."""
    for image in source.images:
        image.group = image.group or roboflow_group(image.file.stem)
        image.split = image.split or folder.split_of(image.file)
