"""Write a small source of each annotation format, much as its tool does; for benchmarks.mutated_files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import example_exports
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


def write_examples(root: Path) -> None:
    """Write a folder for each format below `root`, named by what `--format` calls it, with its own images."""
    for name, write in (WRITERS | example_exports.WRITERS).items():
        write(root / name)


def _write_voc(folder: Path) -> None:
    write_images(folder)
    for name in NAMES:
        shapes = "".join(
            f"  <object>\n    <name>{class_name}</name>\n    <pose>Unspecified</pose>\n    <bndbox>\n"
            f"      <xmin>{x1}</xmin>\n      <ymin>{y1}</ymin>\n      <xmax>{x2}</xmax>\n"
            f"      <ymax>{y2}</ymax>\n    </bndbox>\n  </object>\n"
            for class_name, (x1, y1, x2, y2) in BOXES[name]
        )
        (folder / f"{name}.xml").write_text(
            f"<annotation>\n  <filename>{name}.jpg</filename>\n  <size>\n    <width>{SIZE[0]}</width>\n"
            f"    <height>{SIZE[1]}</height>\n    <depth>3</depth>\n  </size>\n{shapes}</annotation>\n"
        )


def _write_coco(folder: Path) -> None:
    write_images(folder)
    images = [
        {"id": number, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]}
        for number, name in enumerate(NAMES)
    ]
    annotations = [
        {
            "id": 10 * number + place,
            "image_id": number,
            "category_id": CLASSES.index(class_name) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for number, name in enumerate(NAMES)
        for place, (class_name, (x1, y1, x2, y2)) in enumerate(BOXES[name])
    ]
    mask = {"size": [SIZE[1], SIZE[0]], "counts": [64 * 10, 20, 44, 20, 64 * 84 - 20]}
    annotations.append({"id": 99, "image_id": 0, "category_id": 2, "segmentation": mask, "iscrowd": 1})
    categories = [{"id": number, "name": class_name} for number, class_name in enumerate(CLASSES, start=1)]
    write_json(
        folder / "instances.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )


def _write_yolo(folder: Path) -> None:
    write_images(folder / "images")
    (folder / "labels").mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images\nval: images\nnc: 2\nnames: [insulator, broken]\n")
    for name in NAMES:
        lines = [
            f"{CLASSES.index(class_name)} {(x1 + x2) / 2 / SIZE[0]:.6f} {(y1 + y2) / 2 / SIZE[1]:.6f} "
            f"{(x2 - x1) / SIZE[0]:.6f} {(y2 - y1) / SIZE[1]:.6f}\n"
            for class_name, (x1, y1, x2, y2) in BOXES[name]
        ]
        (folder / "labels" / f"{name}.txt").write_text("".join(lines))


def _write_labelme(folder: Path) -> None:
    write_images(folder)
    for name in NAMES:
        shapes = [
            {"label": class_name, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle", "flags": {}}
            for class_name, (x1, y1, x2, y2) in BOXES[name]
        ]
        shapes.append({"label": "broken", "points": [[1, 1], [9, 2], [5, 8]], "shape_type": "polygon"})
        write_json(
            folder / f"{name}.json",
            {
                "version": "5.5.0",
                "flags": {"blurred": False},
                "shapes": shapes,
                "imagePath": f"{name}.jpg",
                "imageData": None,
                "imageHeight": SIZE[1],
                "imageWidth": SIZE[0],
            },
        )


def _write_cvat(folder: Path) -> None:
    write_images(folder)
    text = "<annotations>\n  <version>1.1</version>\n"
    for number, name in enumerate(NAMES):
        text += f'  <image id="{number}" name="{name}.jpg" width="{SIZE[0]}" height="{SIZE[1]}">\n'
        for class_name, (x1, y1, x2, y2) in BOXES[name]:
            text += (
                f'    <box label="{class_name}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" rotation="5"/>\n'
            )
        text += '    <polygon label="broken" points="1,1;9,2;5,8"/>\n'
        text += '    <mask label="broken" left="3" top="4" width="4" height="3" rle="2,4,3,2,1"/>\n'
        text += '    <ellipse label="broken" cx="30" cy="30" rx="9" ry="5"/>\n    <tag label="broken"/>\n'
        text += "  </image>\n"
    (folder / "annotations.xml").write_text(text + "</annotations>\n")
    text = "<annotations>\n  <meta><task><start_frame>2</start_frame><stop_frame>6</stop_frame>\n"
    text += "    <frame_filter>step=2</frame_filter></task></meta>\n"
    text += '  <track id="0" label="insulator">\n'
    for frame, outside in ((2, 0), (6, 0), (8, 1)):
        write_image(folder / "video" / f"frame_{frame:06}.png", frame)
        text += (
            f'    <box frame="{frame}" outside="{outside}" xtl="4" ytl="6" xbr="{20 + frame}" ybr="50"/>\n'
        )
    (folder / "video" / "frame_000008.png").rename(folder / "video" / "frame_000004.png")
    (folder / "video" / "annotations.xml").write_text(text + "  </track>\n</annotations>\n")


def _write_labelstudio(folder: Path) -> None:
    write_images(folder)
    tasks = []
    for number, name in enumerate(NAMES):
        results = [
            {
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": SIZE[0],
                "original_height": SIZE[1],
                "value": {
                    "x": 100 * x1 / SIZE[0],
                    "y": 100 * y1 / SIZE[1],
                    "width": 100 * (x2 - x1) / SIZE[0],
                    "height": 100 * (y2 - y1) / SIZE[1],
                    "rotation": 0,
                    "rectanglelabels": [class_name],
                },
            }
            for class_name, (x1, y1, x2, y2) in BOXES[name]
        ]
        image = f"/data/upload/1/0a1b2c3d-{name}.jpg"
        tasks.append({"id": number, "annotations": [{"id": 1, "result": results}], "data": {"image": image}})
    write_json(folder / "export.json", tasks)


def _write_mvtec(folder: Path) -> None:
    write_image(folder / "train" / "good" / "000.png", 7)
    write_image(folder / "test" / "good" / "000.png", 8)
    for seed, name in enumerate(NAMES):
        write_image(folder / "test" / "broken" / f"{name}.png", seed)
        write_mask(folder / "ground_truth" / "broken" / f"{name}_mask.png", name)


def _write_visa(folder: Path) -> None:
    rows, kinds = ["object,split,label,image,mask"], ["image,label,mask"]
    for seed, name in enumerate(NAMES):
        image_name, mask = f"pcb1/Data/Images/Anomaly/{name}.JPG", f"pcb1/Data/Masks/Anomaly/{name}.png"
        write_image(folder / image_name, seed)
        write_mask(folder / mask, name, value=1 + seed % 2)
        rows.append(f"pcb1,test,anomaly,{image_name},{mask}")
        label = ("bent", "scratch", '"bent,scratch"')[seed]
        kinds.append(f"{image_name},{label},{mask}")
    write_image(folder / "pcb1" / "Data" / "Images" / "Normal" / "0.JPG", 9)
    rows.append("pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,")
    kinds.append("pcb1/Data/Images/Normal/0.JPG,normal,")
    (folder / "split_csv").mkdir()
    (folder / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    (folder / "pcb1" / "image_anno.csv").write_text("\n".join(kinds) + "\n")


def _write_idid(folder: Path) -> None:
    records = []
    for seed, name in enumerate(NAMES):
        write_image(folder / f"{name}.JPG", seed)
        objects: list[dict[str, Any]] = [{"bbox": [4, 4, 80, 50], "string": 1, "name": "insulator"}]
        for class_name, (x1, y1, x2, y2) in BOXES[name]:
            stated = {"shell": "Broken"} if class_name == "broken" else {"No issues": "No issues"}
            box = [x1, y1, x2 - x1, y2 - y1]
            objects.append({"bbox": box, "string": 0, "name": "insulator", "conditions": stated})
        records.append({"Labels": {"objects": objects}, "filename": f"{name}.JPG"})
    write_json(folder / "labels_v1.2.json", records)


def _write_table(folder: Path) -> None:
    write_images(folder)
    questions = ["Is it broken?", "How many discs?", "What, if anything, is wrong?"]
    rows = [
        {"image": f"{name}.jpg", "question": question, "answer": answer, "group": "g1", "split": "train"}
        for name in NAMES
        for question, answer in zip(questions, ("yes", "12", "nothing; it is sound"), strict=True)
    ]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rest.parquet")


def _write_llava(folder: Path) -> None:
    write_images(folder)
    records = [
        {
            "id": f"{name}-{number}",
            "image": f"{name}.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nIs it broken?"},
                {"from": "gpt", "value": "yes"},
                {"from": "human", "value": f"Is disc {number} broken?"},
                {"from": "gpt", "value": "no"},
            ],
            "meta": {"task": "presence", "language": "en", "group": name},
        }
        for name in NAMES
        for number in range(2)
    ]
    write_json(folder / "train.json", records)


WRITERS: dict[str, Callable[[Path], None]] = {
    "voc": _write_voc,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "labelme": _write_labelme,
    "cvat": _write_cvat,
    "labelstudio": _write_labelstudio,
    "mvtec": _write_mvtec,
    "visa": _write_visa,
    "idid": _write_idid,
    "table": _write_table,
    "llava": _write_llava,
}
