"""The formats of pre-labels, and writing a folder for each."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from eval.prelabels import coco, cvat, label_studio, labelme, voc, yolo
from eval.prelabels.labels import PreLabels
from eval.report.phrases import counted
from llava.common.errors import InputError
from llava.common.files import atomic_folder


class Writer(Protocol):
    """A module of this package that writes one format.

    `LABELS_WHOLE_PHOTOS` says whether the format can say of a photo as a whole what it shows. `HINT` says how
    the tool opens the files, and may name the `{photos}` and their parent folder, the `{root}`.
    """

    LABELS_WHOLE_PHOTOS: bool
    HINT: str

    def write(self, labels: PreLabels, output: Path) -> None:
        """Write every photo of `labels`, also one without labels, to the folder `output`, which exists."""
        ...


FORMATS: dict[str, Writer] = {
    "label-studio": label_studio,
    "cvat": cvat,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "voc": voc,
}


def add_format_flags(parser: ArgumentParser) -> None:
    """Add the flags that say which files are written, and where the photos lie."""
    parser.add_argument(
        "--format",
        nargs="+",
        choices=list(FORMATS),
        default=list(FORMATS),
        metavar="FORMAT",
        help=f"which of {', '.join(FORMATS)} (default: all)",
    )
    parser.add_argument("--photos", type=Path, help="where the survey's photos lie now, if they moved")


def write_formats(labels: PreLabels, output: Path, formats: Iterable[str], *, every_photo: bool) -> None:
    """Write a folder for each of `formats` below `output`, all or none, and say what is in it and how to
    open it.

    Args:
        labels: Photos with what was found in them.
        output: Gets a folder named by each format.
        formats: Keys of `FORMATS`.
        every_photo: Whether photos are written that have nothing that the format can hold: a photo to be
            labelled is, but pre-labels without a label would say that the photo is sound.

    Raises:
        InputError: There is such a folder already, or two photos would share a file.
    """
    formats = list(dict.fromkeys(formats))
    for name in formats:
        if (output / name).exists():
            raise InputError(f"{output / name} exists already; name another --output or remove it first")
    whole = sum(len(photo.without_box) for photo in labels.photos)
    photos = labels.folder.resolve()
    said = []
    with ExitStack() as folders:  # all of them are renamed when the last one is written, or none
        for name in formats:
            writer = FORMATS[name]
            left_out = 0 if writer.LABELS_WHOLE_PHOTOS else whole
            written = labels.with_boxes() if left_out and not every_photo else labels
            without = (
                f"{counted(left_out, 'finding')} without a box left out: the format has no labels of whole "
                "photos"
            )
            if not written.photos:
                said.append(f"{output / name}: not written; {without}")
                continue
            writer.write(written, folders.enter_context(atomic_folder(output / name)))
            boxes = sum(len(photo.boxes) for photo in written.photos)
            kinds = f", {counted(whole, 'label')} of whole photos" if whole and not left_out else ""
            drawn = "1 box" if boxes == 1 else f"{boxes:,} boxes"
            said += [
                f"{output / name}: {counted(len(written.photos), 'photo')}, {drawn}{kinds}"
                + (f"; {without}" if left_out else ""),
                "  " + writer.HINT.format(root=photos.parent, photos=photos).replace("\n", "\n  "),
            ]
    print("\n".join(said))
