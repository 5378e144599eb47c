"""What single tools write: Create ML, VoTT, Datumaro, Supervisely, Open Images, MIT's LabelMe."""

import base64
import json
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.formats import READERS
from data_prep.source_folder import SourceFolder
from tests.support.read_source import boxes_of, labels_of, notes_of, problems_of, read_auto

# What each export below says of the pictures a and b, which are 100x50; `c` is in none.
RIGHT = {"a": [("crack", (10, 5, 40, 25)), ("rust spot", (60, 20, 100, 50))], "b": []}


def createml() -> dict[str, Any]:
    def item(label: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
        return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}

    items = [
        {
            "image": "photos/a.jpg",
            "annotations": [item("crack", 25, 15, 30, 20), item("rust spot", 84, 37.5, 48, 35)],
        },
        {"image": "b.jpg", "annotations": []},
    ]
    return {"_annotations.createml.json": items}


def vott_region(tag: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    box = {"left": x, "top": y, "width": width, "height": height}
    return {"id": "q", "type": "RECTANGLE", "tags": [tag], "boundingBox": box, "points": []}


def vott_assets() -> list[dict[str, Any]]:
    size = {"width": 100, "height": 50}
    regions = [vott_region("crack", 10, 5, 30, 20), vott_region("rust spot", 60, 20, 48, 35)]
    return [
        {
            "asset": {"id": "1", "name": "a.jpg", "path": "file:a.jpg", "size": size, "state": 2},
            "regions": regions,
        },
        {
            "asset": {"id": "2", "name": "b.jpg", "path": "file:b.jpg", "size": size, "state": 1},
            "regions": [],
        },
    ]


def vott() -> dict[str, Any]:
    assets = {asset["asset"]["id"]: asset for asset in vott_assets()}
    return {"vott-json-export/p-export.json": {"name": "p", "tags": [{"name": "crack"}], "assets": assets}}


def vott_files() -> dict[str, Any]:
    return {f"{asset['asset']['id']}-asset.json": asset for asset in vott_assets()}


def vott_1() -> dict[str, Any]:
    def box(tag: str, *corners: float) -> dict[str, Any]:
        return dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)) | {
            "tags": [tag],
            "type": "Rectangle",
        }

    frames = {"a.jpg": [box("crack", 10, 5, 40, 25), box("rust spot", 60, 20, 108, 55)], "b.jpg": []}
    return {"photos.json": {"frames": frames, "inputTags": "crack,rust spot", "framerate": "1"}}


def datumaro() -> dict[str, Any]:
    annotations = [
        {"id": 0, "type": "bbox", "label_id": 1, "bbox": [10, 5, 30, 20], "attributes": {}},
        {"id": 1, "type": "polygon", "label_id": 0, "points": [60, 20, 108, 20, 108, 55, 60, 55]},
        {"id": 2, "type": "points", "label_id": 0, "points": [1, 2]},
    ]
    image = {"size": [50, 100]}
    items = [
        {"id": "a", "annotations": annotations, "image": image | {"path": "a.jpg"}},
        {"id": "photos/b", "annotations": [], "image": image | {"path": ""}},
    ]
    labels = [{"name": "rust spot", "parent": ""}, {"name": "crack", "parent": ""}]
    categories = {"label": {"labels": labels, "attributes": []}, "points": {"items": []}}
    return {"annotations/default.json": {"info": {}, "categories": categories, "items": items}}


def bitmap(values: np.ndarray, x: int, y: int) -> dict[str, Any]:
    png = BytesIO()
    Image.fromarray((values * 255).astype(np.uint8)).convert("1").save(png, "PNG")
    return {"data": base64.b64encode(zlib.compress(png.getvalue())).decode(), "origin": [x, y]}


def supervisely() -> dict[str, Any]:
    rectangle = {"exterior": [[60, 20], [108, 55]], "interior": []}
    objects = [
        {"classTitle": "crack", "geometryType": "bitmap", "bitmap": bitmap(np.ones((20, 30)), 10, 5)},
        {"classTitle": "rust spot", "geometryType": "rectangle", "points": rectangle},
        {"classTitle": "crack", "geometryType": "line", "points": rectangle},
    ]
    size = {"height": 50, "width": 100}
    return {
        "ds/ann/a.jpg.json": {"description": "", "tags": [{"name": "wet"}], "size": size, "objects": objects},
        "ds/ann/b.jpg.json": {"description": "", "tags": [], "size": size, "objects": []},
        "meta.json": {"classes": [{"title": "crack", "shape": "bitmap"}], "tags": []},
    }


def open_images() -> dict[str, Any]:
    more = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    return {
        "train-annotations-bbox.csv": f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{more}\n"
        "a,xclick,/m/01,1,0.1,0.4,0.1,0.5,0,0,0,0,0\na,xclick,/m/02,1,0.6,1.08,0.4,1.1,0,0,0,0,0\n",
        "train-annotations-human-imagelabels.csv": "ImageID,Source,LabelName,Confidence\n"
        "a,verification,/m/01,1\nb,verification,/m/01,0\n",
        "class-descriptions-boxable.csv": "/m/01,crack\n/m/02,rust spot\n",
        "train-annotations-object-segmentation.csv": "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,"
        "BoxYMin,BoxYMax,PredictedIoU,Clicks\na_m01.png,a,/m/01,1,0.1,0.4,0.1,0.5,0.5,\n",
    }


def labelme_xml() -> dict[str, Any]:
    def polygon(*points: tuple[int, int]) -> str:
        return "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points) + "</polygon>"

    def xml(name: str, objects: str) -> str:
        size = "<imagesize><nrows>50</nrows><ncols>100</ncols></imagesize>"
        source = "<source><sourceAnnotation>LabelMe Webtool</sourceAnnotation></source>"
        return f"<annotation><filename>{name}</filename>{source}{objects}{size}</annotation>"

    objects = (
        f"<object><name>crack</name><deleted>0</deleted>{polygon((10, 5), (40, 5), (40, 25))}</object>"
        f"<object><name>crack</name><deleted>1</deleted>{polygon((1, 1), (9, 1), (9, 9))}</object>"
        "<object><name>rust spot</name><segm><box><xmin>60</xmin><ymin>20</ymin><xmax>108</xmax>"
        "<ymax>55</ymax></box><mask>a_mask_1.png</mask></segm></object>"
        f"<object><name>crack</name>{polygon((1, 1))}</object>"
    )
    return {
        "Annotations/a.xml": xml("a.jpg", objects),
        "Annotations/b.xml": xml("b.jpg", ""),
        "Masks/x_1.png": "",
    }


EXPORTS = {
    "createml": [createml],
    "vott": [vott, vott_files, vott_1],
    "datumaro": [datumaro],
    "supervisely": [supervisely],
    "open_images": [open_images],
    "labelme_xml": [labelme_xml],
}


@pytest.mark.parametrize(
    ("format", "export"), [(format, export) for format, exports in EXPORTS.items() for export in exports]
)
def test_exports(tmp_path: Path, put: Callable, format: str, export: Callable[[], dict[str, Any]]) -> None:
    for name in "abc":
        put(f"photos/{name}.jpg")
    for name, content in export().items():
        put(name, content)
    source = read_auto(tmp_path, format)
    assert {key[-1]: boxes for key, boxes in boxes_of(source).items()} == RIGHT
    assert [path.name for path in source.unannotated] == ["c.jpg"]
    assert [name for name, reader in READERS.items() if reader.detect(SourceFolder.scan(tmp_path))] == [
        format
    ]


def test_what_exports_say_besides(tmp_path: Path, put: Callable) -> None:
    for name in "ab":
        put(f"{name}.jpg")
    for name, content in supervisely().items():
        put(name, content)
    source = read_auto(tmp_path, "supervisely")
    assert labels_of(source) == {"a": ["wet"], "b": []} and "left out: 1 line" in notes_of(source)
    assert [shape.area for shape in source.images[0].annotations[0].shapes] == [600, None]


def test_open_images_labels_are_those_that_are_there(tmp_path: Path, put: Callable) -> None:
    for name in "ab":
        put(f"{name}.jpg")
    for name, content in open_images().items():
        put(name, content)
    source = read_auto(tmp_path, "open_images")
    assert labels_of(source) == {"a": ["crack"], "b": []}


def test_datumaro_masks_and_turned_boxes(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    mask = {"type": "mask", "label_id": 0, "rle": {"size": [50, 100], "counts": [505, 20, 4475]}}
    turned = {"type": "bbox", "label_id": 0, "bbox": [10, 10, 20, 10], "attributes": {"rotation": 90}}
    items = [{"id": "a", "annotations": [mask, turned], "image": {"path": "a.jpg"}}]
    put("d.json", {"categories": {"label": {"labels": [{"name": "x"}]}}, "items": items})
    assert boxes_of(read_auto(tmp_path, "datumaro")) == {
        "a": [("x", (10, 5, 11, 25)), ("x", (15, 5, 25, 25))]
    }


CREATEML = {"label": "x", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}


@pytest.mark.parametrize(
    ("format", "file", "content", "problem"),
    [
        (
            "createml",
            "a.json",
            [{"image": "a.jpg", "annotations": [CREATEML, {"label": 7}]}],
            "annotation 2 has no",
        ),
        (
            "createml",
            "a.json",
            [{"image": "a.jpg", "annotations": [CREATEML, {"label": "x", "coordinates": {"x": "inf"}}]}],
            "annotation 2 (x) has no readable coordinates",
        ),
        (
            "createml",
            "a.json",
            [{"image": "/etc/z.jpg", "annotations": [CREATEML]}],
            "no picture named 'z.jpg'",
        ),
        (
            "vott",
            "a.json",
            {
                "assets": {
                    "1": {"asset": {"name": "a.jpg"}, "regions": [vott_region("x", float("nan"), 0, 1, 1)]}
                }
            },
            "region 1: a region without a readable boundingBox",
        ),
        (
            "datumaro",
            "a.json",
            datumaro()["annotations/default.json"]
            | {"items": [{"id": "a", "annotations": [{"type": "bbox", "label_id": 9}], "image": {}}]},
            "item 1, annotation 1: its label_id 9 is not among 2 labels",
        ),
        (
            "supervisely",
            "ann/a.jpg.json",
            {
                "size": {},
                "objects": [
                    {
                        "classTitle": "x",
                        "geometryType": "bitmap",
                        "bitmap": {"data": "eA==", "origin": [1, 2]},
                    }
                ],
            },
            "object 1: its bitmap is no whole PNG",
        ),
        (
            "supervisely",
            "ann/a.jpg.json",
            {
                "size": {},
                "objects": [
                    {"classTitle": "x", "geometryType": "polygon", "points": {"exterior": [[1, "nan"]]}}
                ],
            },
            "object 1: unreadable point",
        ),
        (
            "open_images",
            "x-bbox.csv",
            open_images()["train-annotations-bbox.csv"].splitlines()[0]
            + "\na,x,/m/1,1,0.1,30,0.2,nan,0,0,0,0,0\n",
            "line 2: has no readable XMin, YMin, XMax, YMax",
        ),
        (
            "labelme_xml",
            "a.xml",
            "<annotation><object><name>x</name><polygon><pt><x>nan</x><y>1</y></pt></polygon></object>"
            "</annotation>",
            "object 1 (x): unreadable coordinate 'nan'",
        ),
    ],
)
def test_bad_exports_are_named(
    tmp_path: Path, put: Callable, format: str, file: str, content: Any, problem: str
) -> None:
    put("a.jpg")
    path = put(file, content if isinstance(content, str) else json.dumps(content))
    (found,) = problems_of(tmp_path, format)
    assert found.startswith(str(path)) and problem in found
