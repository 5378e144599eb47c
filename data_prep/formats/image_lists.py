"""Read files that each say something of many images: tables, lists of boxes, JSON of a whole data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, make_source
from data_prep.formats.csv_files import is_submission
from data_prep.formats.layout import note_unused, require_images, set_groups_and_splits
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError
from llava.common.html.markup import readable

_MAX_PROBLEMS = 1000  # shown of one file; the rest is counted


@dataclass
class ImageEntry:
    """What a file has said of one image so far; `labels` is an ordered set of classes without a place."""

    image: Path
    name: str
    size: tuple[float, float] | None = None
    shapes: ShapeCollector = field(default_factory=ShapeCollector)
    labels: dict[str, None] = field(default_factory=dict)
    split: Split | None = None


class ImageList:
    """Gathers what one file says of each image that it names, with notes and problems, a line each.

    `split` is that of all its images, if the file's name states one. Images are looked up once for each name.
    """

    def __init__(self, folder: SourceFolder, file: Path, split: Split | None = None) -> None:
        self.folder = folder
        self.file = file
        self.notes: list[str] = []
        self._split = split
        self._by_name: dict[str, ImageEntry | None] = {}
        self._by_image: dict[Path, ImageEntry] = {}
        self._owners: dict[Path, str] = {}
        self._problems: list[str] = []
        self._problem_count = 0
        self._not_found: list[str] = []

    def entry(self, name: str, split: Split | None = None) -> ImageEntry | None:
        """Return the entry of the image that the file calls `name`; None, and a problem, if there is none."""
        if name not in self._by_name:
            self._by_name[name] = self._find(name, split or self._split)
        return self._by_name[name]

    def _find(self, name: str, split: Split | None) -> ImageEntry | None:
        try:
            image = self.folder.image_of(self.file, name, split=split, owners=self._owners)
        except InputError as error:
            self._not_found.append(str(error))
            return None
        return self._by_image.setdefault(image, ImageEntry(image, name, split=split))

    def add_problem(self, place: str, reason: object) -> None:
        self._problem_count += 1
        if self._problem_count <= _MAX_PROBLEMS:
            self._problems.append(_line(f"{self.file}, {place}: {reason}"))

    @property
    def entries(self) -> list[ImageEntry]:
        return list(self._by_image.values())

    @property
    def annotations(self) -> list[tuple[Path, Annotation]]:
        return [
            (
                entry.image,
                Annotation(
                    self.file,
                    entry.name,
                    entry.size,
                    entry.shapes.shapes,
                    tuple(entry.labels),
                    notes=tuple(map(_line, entry.shapes.notes)),
                ),
            )
            for entry in self.entries
        ]

    @property
    def problems(self) -> list[str]:
        """The problems of single places, and at most one of images that are not found."""
        problems = list(self._problems)
        if self._problem_count > len(problems):
            problems.append(f"{self.file}: {self._problem_count - len(problems)} more like these")
        if self._not_found:
            more = f" (and {len(self._not_found) - 1} more of its pictures)" if self._not_found[1:] else ""
            problems.append(self._not_found[0] + more)
        return problems


def _line(text: str) -> str:
    """Return a message, which may hold names as written in a file, on one line that a terminal can show."""
    return readable(" ".join(text.splitlines()))


def read_image_lists(
    folder: SourceFolder,
    format: str,
    files: Sequence[Path],
    read_file: Callable[[ImageList], None],
    description: str,
) -> tuple[AnnotatedSource, list[str]]:
    """Read each of the files with `read_file`, which fills an `ImageList`.

    Where the files' names state several splits (`train_labels.csv`, `test_labels.csv`), their images are of
    those.

    Args:
        folder: The source.
        format: What `--format` calls the format.
        files: The files of the format.
        read_file: Raises an InputError, which becomes a problem, if the file as a whole cannot be read.
        description: What the files are, for messages: "CreateML file(s) (*.json)".

    Returns:
        The source and the problems, one line each.

    Raises:
        InputError: There are no such files, or no images.
    """
    if not files:
        raise InputError(f"{folder.root}: no {description} in it or below")
    require_images(folder, f"{folder.root}: {len(files)} {description}")
    stated = {path: split_in(re.findall("[a-z0-9]+", path.stem.casefold())) for path in files}
    if len(set(stated.values()) - {None}) < 2:
        stated = {}
    pairs: list[tuple[Path, Annotation]] = []
    submissions = list(filter(is_submission, folder.files))
    notes = note_unused(folder, submissions, "CSV file(s) of answers to be filled in")
    problems: list[str] = []
    splits: dict[Path, set[Split | None]] = {}
    for file in files:
        content = ImageList(folder, file, stated.get(file))
        try:
            read_file(content)
        except InputError as error:
            problems.append(str(error))
            continue
        pairs += content.annotations
        notes += content.notes
        problems += content.problems
        for entry in content.entries:
            splits.setdefault(entry.image, set()).add(entry.split)
    source = make_source(folder, format, pairs, notes)
    for image in source.images:
        if len(listed := splits[image.file] - {None}) == 1:
            (image.split,) = listed
    set_groups_and_splits(source, folder)
    return source, problems


def pair_with_images(
    folder: SourceFolder,
    format: str,
    annotations: Sequence[tuple[Path, Annotation]],
    problems: list[str],
    notes: Sequence[str] = (),
) -> AnnotatedSource:
    """Return the source of files that are each about one image, named like the file or as the file says.

    `problems` gets a line for each file whose image is not found.
    """
    pairs: list[tuple[Path, Annotation]] = []
    for file, annotation in annotations:
        try:
            names = (file.stem, annotation.image) if annotation.image else (file.stem,)
            pairs.append((folder.image_of(file, *names), annotation))
        except InputError as error:
            problems.append(str(error))
    source = make_source(folder, format, pairs, notes)
    set_groups_and_splits(source, folder)
    return source


def without_images(source: AnnotatedSource, others: set[Path]) -> AnnotatedSource:
    """Return the source without those unannotated images that are none, such as masks."""
    return replace(source, unannotated=tuple(path for path in source.unannotated if path not in others))
