"""Write LabelMe's JSON (github.com/wkentaro/labelme), a file for each photo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eval.prelabels.labels import Label, LabelledPhoto, PreLabels, files_beside
from llava.common.boxes import Box
from llava.common.files import inside, write_json

LABELS_WHOLE_PHOTOS = True
HINT = "open the folder in LabelMe: labelme FOLDER --nodata; each file says where its photo is"

_VERSION = "5.5.0"  # of LabelMe, whose layout this is


def write(labels: PreLabels, output: Path) -> None:
    """Write a JSON for each photo."""
    for photo, file in files_beside(labels.photos, output, ".json"):
        write_json(file, _content(photo, file, labels.folder))


def _content(photo: LabelledPhoto, file: Path, folder: Path) -> dict[str, Any]:
    width, height = photo.size
    return {
        "version": _VERSION,
        "flags": {label.kind: True for label in photo.without_box},
        "shapes": [_shape(label, box) for label, box in photo.boxes],
        "imagePath": Path(
            os.path.relpath(inside(folder, photo.name).resolve(), file.parent.resolve())
        ).as_posix(),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shape(label: Label, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "label": label.kind,
        "points": [[x1, y1], [x2, y2]],
        "group_id": None,
        "description": "" if label.score is None else f"probability {label.score:g}",
        "shape_type": "rectangle",
        "flags": {},
    }
