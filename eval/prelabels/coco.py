"""Write COCO (https://cocodataset.org/#format-data): annotations, and the same as results with a score.

Labelling tools import instances.json. What evaluates detections takes results.json, which holds no names: its
ids are those of instances.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.prelabels.labels import Label, PreLabels
from llava.common.boxes import Box
from llava.common.files import write_json

LABELS_WHOLE_PHOTOS = False
HINT = "import instances.json; results.json has the scores of detections, for pycocotools and its like"


def write(labels: PreLabels, output: Path) -> None:
    """Write instances.json and results.json."""
    categories = {kind: number for number, kind in enumerate(labels.kinds, start=1)}
    images = []
    results: list[dict[str, Any]] = []
    for number, photo in enumerate(labels.photos, start=1):
        width, height = photo.size
        images.append({"id": number, "file_name": photo.name, "width": width, "height": height})
        results += [_result(number, categories[label.kind], label, box) for label, box in photo.boxes]
    annotations = [_annotation(number, result) for number, result in enumerate(results, start=1)]
    write_json(
        output / "instances.json",
        {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": kind} for kind, number in categories.items()],
        },
    )
    write_json(output / "results.json", results)


def _result(image: int, category: int, label: Label, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "score": 1.0 if label.score is None else label.score,  # results must have one
    }


def _annotation(number: int, result: dict[str, Any]) -> dict[str, Any]:
    *_, width, height = result["bbox"]
    return {"id": number, **result, "area": round(width * height, 2), "iscrowd": 0, "segmentation": []}
