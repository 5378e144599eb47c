"""Write Label Studio tasks with predictions (labelstud.io/guide/predictions), and the labelling interface.

Boxes are in percent of the photo. A photo's address is that of local files
(labelstud.io/guide/storage_local): Label Studio serves what lies below its document root, which is here the
folder that holds the photos' folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from eval.prelabels.labels import Label, LabelledPhoto, PreLabels
from llava.common.boxes import Box
from llava.common.files import write_json

LABELS_WHOLE_PHOTOS = True
HINT = """start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}; in a project, paste
labeling_config.xml under Settings > Labeling Interface > Code, add the local folder
{photos} under Cloud Storage without syncing it, and import tasks.json"""

_BOX, _CHOICE, _IMAGE = "box", "kind", "image"  # names of the interface's tags, which results refer to


def write(labels: PreLabels, output: Path) -> None:
    """Write tasks.json and labeling_config.xml."""
    write_json(output / "tasks.json", [_task(photo, labels) for photo in labels.photos])
    config = _config(labels.kinds)
    indent(config)
    ElementTree(config).write(output / "labeling_config.xml", encoding="unicode")


def _config(kinds: tuple[str, ...]) -> Element:
    view = Element("View")
    SubElement(view, "Image", name=_IMAGE, value="$image", zoom="true")
    boxes = SubElement(view, "RectangleLabels", name=_BOX, toName=_IMAGE)
    choices = SubElement(view, "Choices", name=_CHOICE, toName=_IMAGE, choice="multiple")
    for kind in kinds:
        SubElement(boxes, "Label", value=kind)
        SubElement(choices, "Choice", value=kind)
    return view


def _task(photo: LabelledPhoto, labels: PreLabels) -> dict[str, Any]:
    address = quote(f"{labels.folder.resolve().name}/{photo.name}")
    results = [
        _box(number, label, box, photo.size) for number, (label, box) in enumerate(photo.boxes, start=1)
    ]
    if photo.without_box:
        results.append(_choices(photo.without_box))
    task: dict[str, Any] = {"data": {"image": f"/data/local-files/?d={address}"}}
    if results:
        prediction: dict[str, Any] = {"model_version": labels.model_id, "result": results}
        # Label Studio can show the lowest score first: a task is as sure as its least sure label.
        if scores := [label.score for label in photo.labels if label.score is not None]:
            prediction["score"] = min(scores)
        task["predictions"] = [prediction]
    return task


def _box(number: int, label: Label, box: Box, size: tuple[int, int]) -> dict[str, Any]:
    (x1, y1, x2, y2), (width, height) = box, size
    value = {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
        "rotation": 0,
        "rectanglelabels": [label.kind],
    }
    result: dict[str, Any] = {
        "id": f"box{number}",
        "from_name": _BOX,
        "to_name": _IMAGE,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return result if label.score is None else {**result, "score": label.score}


def _choices(labels: list[Label]) -> dict[str, Any]:
    kinds = list(dict.fromkeys(label.kind for label in labels))
    return {
        "id": "kinds",
        "from_name": _CHOICE,
        "to_name": _IMAGE,
        "type": "choices",
        "value": {"choices": kinds},
    }
