"""Readers of annotation formats, and the choice of the one that a folder needs.

`FormatReader` says what a reader is and how to add one.
"""

from __future__ import annotations

from typing import Protocol

from data_prep.annotations import AnnotatedSource
from data_prep.formats import (
    box_tables,
    class_folders,
    coco,
    corrections,
    createml,
    cvat,
    datumaro,
    deeppcb,
    dota,
    idid,
    json_records,
    keras_yolo,
    kitti,
    label_tables,
    labelme,
    labelme_xml,
    labelstudio,
    llava_json,
    mask_folders,
    mvtec,
    open_images,
    run_tables,
    supervisely,
    tables,
    via,
    visa,
    voc,
    vott,
    yolo,
)
from data_prep.formats.seen import describe_files
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError


class NoFormatError(InputError):
    """The folder holds no annotations in a known format."""


class FormatReader(Protocol):
    """A module of this package that reads one annotation format.

    To add a format, write a module with the three members below and add it to `READERS`; `voc` is a short
    example. What a reader has to keep to:

    - It opens no image. Sizes that the format lacks come from headers (`sizes.image_size`); boxes are checked
      against the decoded image later (`annotations.merge_annotations`).
    - It never guesses. What it corrects or leaves out becomes a note, what it cannot use a problem: one line
      that names the file and the place in it, and what to do where that is not plain.
    - Damaged input is never another exception than an InputError: the file is untrusted.
      `tests/data_prep/formats/test_formats.py` and `benchmarks/mutated_files.py` (with an example in
      `benchmarks/example_sources.py` or `example_exports.py`) try every reader of `READERS`.

    What helps: `SourceFolder.image_of` finds the image that a name in a file means, `annotations.make_source`
    puts the annotations in the images' order. `layout` reads files one by one and sets groups and splits,
    `fields` parses single values, `shapes.ShapeCollector` gathers the shapes of an image with notes,
    `outlines` and `masks` turn polygons and masks into boxes, `xml` and `csv_files` read XML and CSV safely,
    `image_lists` reads files that each name many images, `text_labels` texts with a line for each object, and
    `conversations.ConversationCollector` gathers questions and answers.
    """

    NAME: str
    """What `--format` calls the format, and the source's `format` in reports and the manifest."""

    def detect(self, folder: SourceFolder) -> str | None:
        """Return why the folder looks like this format, for users to read; None if it does not.

        Judges by names and the first bytes of files, so that a large folder is looked through quickly. It
        must be false for the files of every other format: `--format auto` refuses a folder that two readers
        know.
        """
        ...

    def read(self, folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
        """Read all annotations in the folder or below and find their images.

        Returns:
            The source, with boxes in pixels and class names as written, and the problems, one line each.
            With problems the source is incomplete, and a caller must not convert it.

        Raises:
            InputError: The folder holds nothing of the format, or no images.
        """
        ...


_MODULES: tuple[FormatReader, ...] = (
    voc,
    coco,
    yolo,
    labelme,
    cvat,
    labelstudio,
    mvtec,
    visa,
    idid,
    box_tables,
    run_tables,
    via,
    createml,
    keras_yolo,
    dota,
    vott,
    kitti,
    open_images,
    labelme_xml,
    datumaro,
    supervisely,
    deeppcb,
    corrections,
    mask_folders,
    label_tables,
    json_records,
    class_folders,
    tables,
    llava_json,
)
READERS = {reader.NAME: reader for reader in _MODULES}
# What the later ones read may lie beside annotations that say more (masks beside COCO, folders of masks that
# could be classes): with `auto` they count only where none of the earlier ones knows the folder.
_LATER = (
    (mask_folders.NAME, label_tables.NAME, json_records.NAME),
    (run_tables.NAME,),
    (class_folders.NAME,),
)
AUTO = "auto"


def find_reader(folder: SourceFolder, format: str = AUTO) -> tuple[FormatReader, str]:
    """Return the reader for `format`, and why it is the one; with `auto` the only one that knows the folder.

    NoFormatError if none does, InputError if several do.
    """
    if format != AUTO:
        return READERS[format], "asked for with --format"
    first = [name for name in READERS if not any(name in names for names in _LATER)]
    reasons: dict[str, str] = {}
    for names in (first, *_LATER):
        reasons = reasons or {name: reason for name in names if (reason := READERS[name].detect(folder))}
    if len(reasons) == 1:
        ((name, reason),) = reasons.items()
        return READERS[name], reason
    if not reasons:
        if not (folder.images or describe_files(folder)):
            raise NoFormatError(
                f"{folder.root}: no pictures and no annotations in it or below; put yours there, or name "
                "another folder"
            )
        raise NoFormatError(
            f"{folder.root}: no annotations in a format known here ({', '.join(READERS)}), in it or below"
            f"{describe_files(folder)}{class_folders.hint(folder)}"
        )
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise InputError(f"{folder.root}: could be read in several ways ({listed}); choose one with --format")
