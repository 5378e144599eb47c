"""Readers of annotation formats, and which of them a folder asks for.

A reader is a module with `NAME` (what --format calls it), `detect(folder)`, which says from names and the
first bytes of files why the folder looks like its format (None: it does not), and `read(folder)`, which gives
the `Source` and a line per problem. Readers open no picture and never guess: what they put right is noted.
"""

from __future__ import annotations

from typing import Protocol, cast

from data_prep.annotations import AnnotatedSource
from data_prep.formats import (
    class_folders,
    coco,
    cvat,
    idid,
    labelme,
    labelstudio,
    llava_json,
    mvtec,
    tables,
    visa,
    voc,
    yolo,
)
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError


class NoFormatError(InputError):
    """The folder holds no annotations in a format known here."""


class FormatReader(Protocol):
    NAME: str

    def detect(self, folder: SourceFolder) -> str | None: ...

    def read(self, folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]: ...


READERS = {
    reader.NAME: reader
    for reader in (
        cast(FormatReader, module)
        for module in (
            voc,
            coco,
            yolo,
            labelme,
            cvat,
            labelstudio,
            mvtec,
            visa,
            idid,
            class_folders,
            tables,
            llava_json,
        )
    )
}
AUTO = "auto"


def find_reader(folder: SourceFolder, format: str = AUTO) -> tuple[FormatReader, str]:
    """The reader for `format` and why; with `auto` the only one that knows the folder. NoFormatError if
    none does, InputError if several do."""
    if format != AUTO:
        return READERS[format], "asked for with --format"
    found = {name: why for name, reader in READERS.items() if (why := reader.detect(folder))}
    if len(found) == 1:
        ((name, why),) = found.items()
        return READERS[name], why
    if not found:
        raise NoFormatError(
            f"{folder.root}: no annotations in a format known here ({', '.join(READERS)}), in it or below"
        )
    listed = "; ".join(f"{name}: {why}" for name, why in found.items())
    raise InputError(f"{folder.root}: could be read in several ways ({listed}); choose one with --format")
