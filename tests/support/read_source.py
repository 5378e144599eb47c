"""What a reader makes of a folder, in a form that is easy to compare."""

from pathlib import Path

from PIL import Image

from data_prep.annotations import AnnotatedSource, merge_annotations
from data_prep.formats import find_reader
from data_prep.source_folder import SourceFolder

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def read_auto(folder: Path, format: str) -> AnnotatedSource:
    """Read a folder with `--format auto`, which must find `format` and no problem."""
    reader, _ = find_reader(SourceFolder.scan(folder))
    assert format == reader.NAME
    source, problems = reader.read(SourceFolder.scan(folder))
    assert problems == []
    return source


def problems_of(folder: Path, format: str) -> list[str]:
    """Return the problems of a folder that `--format auto` finds to be `format`: each is one line."""
    reader, _ = find_reader(SourceFolder.scan(folder))
    assert format == reader.NAME
    _, problems = reader.read(SourceFolder.scan(folder))
    assert all("\n" not in problem for problem in problems)
    return problems


def boxes_of(source: AnnotatedSource) -> Boxes:
    """Return each image's key with its classes and boxes, in the image's pixels and clipped to it."""
    boxes: Boxes = {}
    for image in source.images:
        with Image.open(image.file) as opened:
            shapes, _ = merge_annotations(image, opened.size)
        boxes[image.key] = [(shape.name, tuple(round(side, 2) for side in shape.box)) for shape in shapes]
    return boxes


def labels_of(source: AnnotatedSource) -> dict[str, list[str]]:
    """Return each image's key with its labels."""
    return {
        image.key: [label for annotation in image.annotations for label in annotation.labels]
        for image in source.images
    }


def notes_of(source: AnnotatedSource) -> str:
    """Return the source's own notes and those of its annotations, a line each."""
    notes = [*source.notes]
    notes += [note for image in source.images for part in image.annotations for note in part.notes]
    return "\n".join(notes)
