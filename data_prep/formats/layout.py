"""What readers share about the files of a source: reading each, notes on unused ones, groups and splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from data_prep.annotations import AnnotatedSource
from data_prep.photo_names import exported_photo
from data_prep.source_folder import SourceFolder, Split
from llava.common.errors import InputError
from llava.common.files import read_text
from llava.common.html.markup import readable

FileContent = TypeVar("FileContent")


class OtherFormatError(InputError):
    """A file is of another format as a whole, so that it is no fault of the source."""


def read_files(
    files: Iterable[Path], read_file: Callable[[Path], FileContent]
) -> tuple[list[tuple[Path, FileContent]], list[Path], list[str]]:
    """Read each file with `read_file`, going on past those that cannot be read.

    Returns:
        Each file with its content, the files of other formats (OtherFormatError), and a problem, one line,
        for each file that is damaged (any other InputError).
    """
    contents: list[tuple[Path, FileContent]] = []
    others: list[Path] = []
    problems: list[str] = []
    for file in files:
        try:
            contents.append((file, read_file(file)))
        except OtherFormatError:
            others.append(file)
        except InputError as error:
            problems.append(readable(str(error)))  # it may hold a name as written
    return contents, others, problems


def note_unused(folder: SourceFolder, files: Sequence[Path], description: str) -> list[str]:
    """Return one note that counts `files` as not used, no note if there are none."""
    if not files:
        return []
    return [f"{len(files)} {description} passed over, for instance {min(files).relative_to(folder.root)}"]


def require_images(folder: SourceFolder, annotations: str) -> None:
    """Raise an InputError that says what `annotations` there are if the folder has no images."""
    if not folder.images:
        raise InputError(
            f"{annotations}, but no pictures in {folder.image_root} or below; name their folder with "
            "--image-folder"
        )


def set_groups_and_splits(source: AnnotatedSource, folder: SourceFolder) -> None:
    """Set each image's group by its Roboflow name and its split by its folders, where it has none yet."""
    for image in source.images:
        image.group = image.group or exported_photo(image.file.stem)
        image.split = image.split or folder.split_of(image.file)


def images_of_list(file: Path, folder: SourceFolder, notes: list[str]) -> list[Path]:
    """Return the images that a text file lists, a path or name a line.

    `notes` gets a line on those that name no image here.
    """
    images = []
    not_found: list[str] = []
    for line in filter(None, map(str.strip, read_text(file).split("\n"))):
        try:
            images.append(folder.image_of(file, line))
        except InputError:
            not_found.append(line)
    if not_found:
        notes.append(
            f"{file}: {len(not_found)} line(s) that name no picture here passed over, "
            f"such as {not_found[0]!r}"
        )
    return images


def set_listed_splits(source: AnnotatedSource, listed: Mapping[Path, set[Split]]) -> list[str]:
    """Set the split of each image that lists give one split. Returns a note if lists give some several."""
    several = 0
    for annotated in source.images:
        splits = listed.get(annotated.file, set())
        if len(splits) == 1:
            annotated.split = min(splits)
        several += len(splits) > 1
    return [f"{several} picture(s) are listed for several splits; that is not used"] if several else []
