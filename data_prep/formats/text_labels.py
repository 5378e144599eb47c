"""Read formats with a text file for each image and a line for each object: what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, Shape
from data_prep.formats.image_lists import pair_with_images
from data_prep.formats.layout import read_files, require_images
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_text

LineParser = Callable[[str], Shape | str | None]
"""Returns the shape of a line, the kind of what is left out, or None for a line that says nothing.
InputError, without the place, for a line that cannot be read."""

_DETECT_FILES = 20


def find_label_files(folder: SourceFolder, parse_line: LineParser) -> list[Path]:
    """Return the text files that an image is named like, if the first lines of the first of them are labels.

    Empty files say nothing against it, but are not enough.
    """
    stems = {image.stem.casefold() for image in folder.images}
    files = [path for path in folder.named(".txt") if path.stem.casefold() in stems]
    written = [path for path in files if path.stat().st_size][:_DETECT_FILES]
    return files if written and all(_is_label_file(path, parse_line) for path in written) else []


def _is_label_file(path: Path, parse_line: LineParser) -> bool:
    """Judge by the first line that says something."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for line in file.readlines(1 << 12):
                if line.strip() and parse_line(line.strip()) is not None:
                    return True
    except (OSError, InputError):
        pass
    return False


def read_label_files(
    folder: SourceFolder, format: str, files: Sequence[Path], parse_line: LineParser, description: str
) -> tuple[AnnotatedSource, list[str]]:
    """Read each file with `parse_line` and find the image of its name.

    Args:
        folder: The source.
        format: What `--format` calls the format.
        files: The label files.
        parse_line: Reads a line.
        description: What the files are, for messages: "KITTI labels (*.txt)".

    Returns:
        The source and the problems, one line each.

    Raises:
        InputError: There are no files or no images.
    """
    if not files:
        raise InputError(f"{folder.root}: no {description} in it or below")
    require_images(folder, f"{folder.root}: {len(files)} {description}")
    annotations, _, problems = read_files(files, lambda file: _read_file(file, parse_line))
    return pair_with_images(folder, format, annotations, problems), problems


def _read_file(file: Path, parse_line: LineParser) -> Annotation:
    shapes = ShapeCollector()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}:"
        try:
            parsed = parse_line(line.strip())
        except InputError as error:
            raise InputError(f"{place} {error}") from None
        if isinstance(parsed, Shape):
            shapes.add_unless_empty(parsed, place)
        elif parsed:
            shapes.leave_out(parsed)
    shapes.note_left_out(f"{file}: left out")
    return Annotation(file, shapes=shapes.shapes, notes=tuple(shapes.notes))
