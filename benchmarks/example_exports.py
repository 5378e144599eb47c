"""Write small sources of formats that single tools and data sets use; more are in example_sources.py."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.example_images import (
    BOXES,
    CLASSES,
    NAMES,
    SIZE,
    write_image,
    write_images,
    write_json,
    write_mask,
)
from llava.common.boxes import Box


def _objects() -> Iterator[tuple[str, str, Box]]:
    """Yield image, class and box of every object."""
    for name in NAMES:
        for class_name, box in BOXES[name]:
            yield name, class_name, box


def _write_box_table(folder: Path) -> None:
    write_images(folder)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    rows += [
        f"{name}.jpg,{SIZE[0]},{SIZE[1]},{label},{','.join(map(str, box))}" for name, label, box in _objects()
    ]
    (folder / "train_labels.csv").write_text("\n".join(rows) + "\n")
    rows = ["image_id;label;bbox"]
    rows += [f'{name};{label};"[{x1}, {y1}, {x2}, {y2}]"' for name, label, (x1, y1, x2, y2) in _objects()]
    rows += ['c3;broken;"[70, 40, 96, 64]"', 'c3;broken;"[75, 45, 96, 64]"']
    (folder / "more.csv").write_text("\n".join(rows) + "\n")


def _write_run_table(folder: Path) -> None:
    write_images(folder)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for name, label, (x1, y1, x2, y2) in _objects():
        runs = " ".join(f"{x * SIZE[1] + int(y1) + 1} {int(y2 - y1)}" for x in range(int(x1), int(x2)))
        rows.append(f"{name}.jpg,{label},{runs}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def _write_label_table(folder: Path) -> None:
    write_images(folder)
    rows = [
        "filename, insulator, broken",
        *(f"{name}.jpg, 1, {number % 2}" for number, name in enumerate(NAMES)),
    ]
    (folder / "_classes.csv").write_text("\n".join(rows) + "\n")
    (folder / "list.txt").write_text("".join(f"{name}.jpg {number}\n" for number, name in enumerate(NAMES)))


def _write_via(folder: Path) -> None:
    write_images(folder)
    images: dict[str, Any] = {}
    rows = [
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    ]
    for name, label, (x1, y1, x2, y2) in _objects():
        shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        polygon = {"name": "polygon", "all_points_x": [x1, x2, x2], "all_points_y": [y1, y1, y2]}
        image = images.setdefault(f"{name}.jpg99", {"filename": f"{name}.jpg", "size": 99, "regions": []})
        image["regions"].append({"shape_attributes": shape, "region_attributes": {"type": label}})
        cells = [json.dumps(part).replace('"', '""') for part in (polygon, {"type": label})]
        rows.append(f'{name}.jpg,99,"{{}}",1,0,"{cells[0]}","{cells[1]}"')
    write_json(folder / "via_region_data.json", {"_via_img_metadata": images})
    (folder / "via.csv").write_text("\n".join(rows) + "\n")


def _write_createml(folder: Path) -> None:
    write_images(folder)
    items: dict[str, Any] = {name: {"image": f"{name}.jpg", "annotations": []} for name in NAMES}
    for name, label, (x1, y1, x2, y2) in _objects():
        place = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
        items[name]["annotations"].append({"label": label, "coordinates": place})
    write_json(folder / "_annotations.createml.json", list(items.values()))


def _write_json_records(folder: Path) -> None:
    write_images(folder)
    lines = []
    for name in NAMES:
        boxes = [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in BOXES[name]]
        objects = {"bbox": boxes, "category": [label for label, _ in BOXES[name]]}
        lines.append(json.dumps({"file_name": f"{name}.jpg", "objects": objects}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _write_keras_yolo(folder: Path) -> None:
    write_images(folder)
    (folder / "_classes.txt").write_text("\n".join(CLASSES) + "\n")
    lines = []
    for name in NAMES:
        boxes = [
            ",".join([*map(str, map(int, box)), str(CLASSES.index(label))]) for label, box in BOXES[name]
        ]
        lines.append(" ".join([f"{name}.jpg", *boxes]))
    (folder / "_annotations.txt").write_text("\n".join(lines) + "\n")


def _write_texts(folder: Path, line: Callable[[str, Box], str]) -> None:
    write_images(folder / "images")
    (folder / "labels").mkdir(parents=True)
    for name in NAMES:
        text = "".join(line(label, box) + "\n" for label, box in BOXES[name])
        (folder / "labels" / f"{name}.txt").write_text(text)


def _write_dota(folder: Path) -> None:
    def line(label: str, box: Box) -> str:
        x1, y1, x2, y2 = box
        return f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {label} 0"

    _write_texts(folder, line)


def _write_kitti(folder: Path) -> None:
    _write_texts(folder, lambda label, box: f"{label} 0 0 -1 {' '.join(map(str, box))} 1 1 1 1 1 1 0")


def _write_vott(folder: Path) -> None:
    write_images(folder)
    assets: dict[str, Any] = {}
    for name, label, (x1, y1, x2, y2) in _objects():
        asset = {"name": f"{name}.jpg", "size": {"width": SIZE[0], "height": SIZE[1]}, "state": 2}
        box = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
        region = {"type": "RECTANGLE", "tags": [label], "boundingBox": box}
        assets.setdefault(name, {"asset": asset, "regions": []})["regions"].append(region)
    write_json(folder / "p-export.json", {"name": "p", "assets": assets})


def _write_open_images(folder: Path) -> None:
    write_images(folder / "train")
    codes = {label: f"/m/0{number}" for number, label in enumerate(CLASSES)}
    (folder / "class-descriptions.csv").write_text("".join(f"{codes[label]},{label}\n" for label in CLASSES))
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded"]
    for name, label, (x1, y1, x2, y2) in _objects():
        sides = [x1 / SIZE[0], x2 / SIZE[0], y1 / SIZE[1], y2 / SIZE[1]]
        rows.append(f"{name},xclick,{codes[label]},1,{','.join(f'{side:.6f}' for side in sides)},0")
    (folder / "train-annotations-bbox.csv").write_text("\n".join(rows) + "\n")
    rows = ["ImageID,Source,LabelName,Confidence", *(f"{name},verification,/m/01,1" for name in NAMES)]
    (folder / "train-annotations-human-imagelabels.csv").write_text("\n".join(rows) + "\n")


def _write_labelme_xml(folder: Path) -> None:
    write_images(folder)
    for name in NAMES:
        objects = ""
        for label, (x1, y1, x2, y2) in BOXES[name]:
            points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((x1, y1), (x2, y1), (x2, y2)))
            objects += (
                f"<object><name>{label}</name><deleted>0</deleted><polygon>{points}</polygon></object>\n"
            )
        size = f"<imagesize><nrows>{SIZE[1]}</nrows><ncols>{SIZE[0]}</ncols></imagesize>"
        text = f"<annotation><filename>{name}.jpg</filename>\n{objects}{size}</annotation>\n"
        (folder / f"{name}.xml").write_text(text)


def _write_datumaro(folder: Path) -> None:
    write_images(folder)
    labels = [{"name": label} for label in CLASSES]
    items = []
    for name in NAMES:
        annotations: list[dict[str, Any]] = [{"type": "label", "label_id": 0}]
        for label, (x1, y1, x2, y2) in BOXES[name]:
            fields = {"label_id": CLASSES.index(label), "attributes": {"rotation": 30.0}}
            annotations.append({"type": "bbox", "bbox": [x1, y1, x2 - x1, y2 - y1], **fields})
            annotations.append({"type": "polygon", "points": [x1, y1, x2, y1, x2, y2], **fields})
        mask = {"size": [SIZE[1], SIZE[0]], "counts": [640, 20, 44, 20, 64 * 84 - 20]}
        annotations.append({"type": "mask", "label_id": 1, "rle": mask})
        image = {"path": f"{name}.jpg", "size": [SIZE[1], SIZE[0]]}
        items.append({"id": name, "annotations": annotations, "image": image})
    write_json(folder / "default.json", {"categories": {"label": {"labels": labels}}, "items": items})


def _write_supervisely(folder: Path) -> None:
    write_images(folder / "ds" / "img")
    png = BytesIO()
    Image.linear_gradient("L").resize((20, 10)).convert("1").save(png, "PNG")
    data = base64.b64encode(zlib.compress(png.getvalue())).decode()
    for name in NAMES:
        objects: list[dict[str, Any]] = []
        for label, (x1, y1, x2, y2) in BOXES[name]:
            points = {"exterior": [[x1, y1], [x2, y1], [x2, y2]], "interior": [[[5, 7], [6, 7], [6, 8]]]}
            objects.append({"classTitle": label, "geometryType": "polygon", "points": points})
            bitmap = {"data": data, "origin": [3, 4]}
            objects.append({"classTitle": label, "geometryType": "bitmap", "bitmap": bitmap})
        size = {"height": SIZE[1], "width": SIZE[0]}
        write_json(folder / "ds" / "ann" / f"{name}.jpg.json", {"size": size, "tags": [], "objects": objects})
    write_json(folder / "meta.json", {"classes": [{"title": label} for label in CLASSES]})


def _write_deeppcb(folder: Path) -> None:
    for seed, name in enumerate(NAMES):
        write_image(folder / "00" / f"{name}_test.jpg", seed)
        write_image(folder / "00" / f"{name}_temp.jpg", seed)
        lines = "".join(f"{' '.join(str(int(side)) for side in box)} 3\n" for _, box in BOXES[name])
        (folder / "00_not").mkdir(exist_ok=True)
        (folder / "00_not" / f"{name}.txt").write_text(lines)


def _write_masks(folder: Path) -> None:
    write_images(folder / "images")
    for name in NAMES:
        write_mask(folder / "masks" / f"{name}.png", name, value=1)
    (folder / "classes.txt").write_text("background\nbroken\n")


def _write_corrections(folder: Path) -> None:
    write_images(folder)
    corrections: list[dict[str, Any]] = [
        {
            "finding": f"{name}-{number}",
            "photo": f"{name}.jpg",
            "decision": "defect",
            "verdict": "accept" if number else "correct",
            "kind": label,
            "box": [x1 / SIZE[0], y1 / SIZE[1], x2 / SIZE[0], y2 / SIZE[1]],
            "note": "",
        }
        for number, (name, label, (x1, y1, x2, y2)) in enumerate(_objects())
    ]
    corrections.append({"finding": "a1-9", "photo": "a1.jpg", "decision": "ask", "verdict": "reject"})
    write_json(
        folder / "corrections.json",
        {
            "format": "llava-inspect corrections",
            "version": 1,
            "survey": "0f2c",
            "photos_folder": "photos",
            "corrections": corrections,
        },
    )


WRITERS: dict[str, Callable[[Path], None]] = {
    "box_table": _write_box_table,
    "run_table": _write_run_table,
    "label_table": _write_label_table,
    "via": _write_via,
    "createml": _write_createml,
    "json_records": _write_json_records,
    "keras_yolo": _write_keras_yolo,
    "dota": _write_dota,
    "kitti": _write_kitti,
    "vott": _write_vott,
    "open_images": _write_open_images,
    "labelme_xml": _write_labelme_xml,
    "datumaro": _write_datumaro,
    "supervisely": _write_supervisely,
    "deeppcb": _write_deeppcb,
    "corrections": _write_corrections,
    "masks": _write_masks,
}
