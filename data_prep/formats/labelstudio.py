"""Read Label Studio annotations, as exported with "JSON" or "JSON-MIN" (labelstud.io/guide/export).

The format: one JSON list of tasks. A task names its image by an address in `data` and holds `annotations`,
one for each annotator, each a list of results: shapes in percent of the image's sides, with the classes under
the name of their kind (`rectanglelabels`), and choices about the image. In JSON-MIN, one annotation is left
of each task, its results lie beside the data under the names of the labelling tags.

The tasks are read in labelstudio_tasks.py, the shapes of their results in labelstudio_shapes.py.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from data_prep.annotations import AnnotatedSource, Annotation, make_source
from data_prep.formats.labelstudio_shapes import annotate
from data_prep.formats.labelstudio_tasks import Task, image_names, read_tasks
from data_prep.formats.layout import note_unused, read_files, require_images, set_groups_and_splits
from data_prep.formats.sizes import image_size
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

NAME = "labelstudio"
_DETECT_BYTES = 1 << 16

# The first bytes of JSON and of JSON-MIN.
_START = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*\[\s*\{(?:"
    rb'(?=.*"(?:annotations|completions)"\s*:\s*\[)(?=.*"(?:result"\s*:\s*\[|data"\s*:\s*\{))'
    rb'|(?=.*"(?:annotation_id|(?:rectangle|polygon|ellipse|brush|keypoint)labels)"\s*:))',
    re.S,
)


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like Label Studio, None if it does not."""
    count = sum(_is_labelstudio(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with Label Studio's tasks" if count else None


def _is_labelstudio(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(_DETECT_BYTES)) is not None
    except OSError:
        return False


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every Label Studio export in the folder or below and find the images of its tasks.

    Returns:
        The source and the problems, one line each (unreadable JSON, a task without its image); a caller that
        gets problems must not go on.

    Raises:
        InputError: The folder holds no exports or no images.
    """
    files, others, problems = read_files(folder.named(".json"), read_tasks)
    notes: list[str] = []
    pairs: list[tuple[Path, Annotation]] = []
    for path, (tasks, problems_of_file, notes_of_file) in files:
        if tasks:
            require_images(folder, f"{path}: speaks of {len(tasks)} picture(s)")
        problems += problems_of_file
        notes += notes_of_file
        pairs += _annotate_tasks(folder, path, tasks, problems, notes)
    if not pairs and not problems:
        raise InputError(f"{folder.root}: no finished Label Studio annotations (*.json) in it or below")
    notes += note_unused(folder, others, "JSON file(s) that are not Label Studio's")
    source = make_source(folder, NAME, pairs, notes)
    set_groups_and_splits(source, folder)
    return source, problems


def _annotate_tasks(
    folder: SourceFolder, file: Path, tasks: list[Task], problems: list[str], notes: list[str]
) -> list[tuple[Path, Annotation]]:
    """Find the image of each task of one file and read its shapes.

    Args:
        folder: Where to look for the images.
        file: The export.
        tasks: Its tasks.
        problems: Gets a line for each task that cannot be used.
        notes: Gets a line on images that were found by another name.

    Returns:
        (image, annotation) pairs.
    """
    pairs: list[tuple[Path, Annotation]] = []
    task_of_image: dict[Path, str] = {}
    renamed = 0
    for task in tasks:
        try:
            names = image_names(task.address)
            image = folder.image_of(file, *names)
            if other := task_of_image.get(image):
                raise InputError(f"{task.place}: speaks of {image.name}, as does {other}; keep one")
            task_of_image[image] = task.place
            renamed += image.stem.casefold() != PureWindowsPath(names[0]).stem.casefold()
            pairs.append((image, annotate(task, file, task.size or image_size(image))))
        except InputError as error:
            problems.append(str(error))
    if renamed:
        notes.append(f"{file}: {renamed} picture(s) found by the name that they had before the upload")
    return pairs
