"""Write YOLO labels with confidence, and data.yaml with the classes.

The format: `class cx cy width height confidence` in shares of the photo, as Ultralytics saves predictions
(https://docs.ultralytics.com/modes/predict/, `save_txt` and `save_conf`).
"""

from __future__ import annotations

from pathlib import Path

import yaml

from eval.prelabels.labels import Label, LabelledPhoto, PreLabels, files_beside
from llava.common.boxes import Box
from llava.common.files import write_text

LABELS_WHOLE_PHOTOS = False
HINT = "labels/ has a text for each photo; before they train a detector, take the sixth number out"


def write(labels: PreLabels, output: Path) -> None:
    """Write labels/ and data.yaml."""
    for photo, file in files_beside(labels.photos, output / "labels", ".txt"):
        lines = [_line(labels.kinds.index(label.kind), label, box, photo) for label, box in photo.boxes]
        write_text(file, "".join(f"{line}\n" for line in lines))
    photos = str(labels.folder.resolve())
    data = {"path": photos, "train": ".", "val": ".", "names": dict(enumerate(labels.kinds))}
    write_text(output / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _line(index: int, label: Label, box: Box, photo: LabelledPhoto) -> str:
    (x1, y1, x2, y2), (width, height) = box, photo.size
    numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if label.score is not None:
        numbers.append(label.score)
    return " ".join([str(index), *(f"{number:.6f}" for number in numbers)])
