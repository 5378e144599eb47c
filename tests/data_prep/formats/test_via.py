"""VGG Image Annotator, JSON and CSV."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.formats import via
from data_prep.source_folder import SourceFolder
from tests.support.read_source import boxes_of, notes_of, problems_of, read_auto

RECT = {"name": "rect", "x": 10, "y": 5, "width": 30, "height": 20}
POLYGON = {"name": "polygon", "all_points_x": [60, 110, 60], "all_points_y": [10, 40, 40]}
CIRCLE = {"name": "circle", "cx": 20, "cy": 20, "r": 5}
RIGHT = {"a": [("crack", (10, 5, 40, 25)), ("rust", (60, 10, 100, 40)), ("crack", (15, 15, 25, 25))], "b": []}


def image(name: str, *regions: tuple[dict, dict], as_object: bool = False) -> dict[str, Any]:
    items: Any = [{"shape_attributes": shape, "region_attributes": names} for shape, names in regions]
    return {
        "filename": name,
        "size": 1234,
        "regions": {str(index): item for index, item in enumerate(items)} if as_object else items,
        "file_attributes": {"caption": "a wall"},
    }


def regions(key: str = "type") -> list[tuple[dict, dict]]:
    return [(RECT, {key: "crack"}), (POLYGON, {key: "rust"}), (CIRCLE, {key: "crack"})]


@pytest.mark.parametrize(
    "content",
    [
        {"a.jpg1234": image("a.jpg", *regions()), "b.jpg9": image("b.jpg")},
        {
            "a.jpg1234": image("a.jpg", *regions("Info"), as_object=True),
            "b.jpg9": image("b.jpg", as_object=True),
        },
        {
            "_via_settings": {"ui": {}},
            "_via_img_metadata": {"x": image("photos/a.jpg", *regions("defect")), "y": image("b.jpg")},
            "_via_attributes": {"region": {}},
        },
    ],
    ids=["2", "1", "project"],
)
def test_json(tmp_path: Path, put: Callable, content: dict) -> None:
    put("a.jpg")
    put("b.jpg")
    put("via_region_data.json", content)
    assert boxes_of(read_auto(tmp_path, "via")) == RIGHT


def test_csv(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    lines = [
        "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    ]
    for number, (shape, names) in enumerate(regions()):
        cells = [json.dumps(part).replace('"', '""') for part in (shape, names)]
        lines.append(f'a.jpg,98120,"{{}}",3,{number},"{cells[0]}","{cells[1]}"')
    lines.append('b.jpg,98120,"{}",0,0,"{}","{}"')
    put("via_export_csv.csv", "\n".join(lines) + "\n")
    assert boxes_of(read_auto(tmp_path, "via")) == RIGHT


def test_the_attribute_that_every_region_has_is_the_class(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    both = [
        (RECT, {"name": "", "damage": "crack", "seen": {"yes": True}}),
        (CIRCLE, {"damage": {"rust": True}}),
    ]
    put("v.json", {"a.jpg1": image("a.jpg", *both)})
    assert [name for name, _ in boxes_of(read_auto(tmp_path, "via"))["a"]] == ["crack", "rust"]


def test_several_attributes(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    both = [(RECT, {"label": "crack", "depth": "deep"}), (CIRCLE, {"label": "rust", "depth": "flat"})]
    put("v.json", {"a.jpg1": image("a.jpg", *both)})
    assert [name for name, _ in boxes_of(read_auto(tmp_path, "via"))["a"]] == ["crack", "rust"]
    put("v.json", {"a.jpg1": image("a.jpg", (RECT, {"material": "steel", "depth": "deep"}))})
    (problem,) = problems_of(tmp_path, "via")
    assert "any of the attributes 'material', 'depth' may be the class; rename it 'class'" in problem


def test_regions_without_attributes_are_of_one_class(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("v.json", {"a.jpg1": image("a.jpg", (RECT, {}))})
    source = read_auto(tmp_path, "via")
    assert boxes_of(source) == {"a": [("object", (10, 5, 40, 25))]}
    assert "its regions have no attributes" in notes_of(source)


def test_what_has_no_area_or_class_is_left_out(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    point = ({"name": "point", "cx": 1, "cy": 2}, {"type": "crack"})
    put("v.json", {"a.jpg1": image("a.jpg", *regions(), point, (RECT, {}))})
    source = read_auto(tmp_path, "via")
    assert len(boxes_of(source)["a"]) == 3
    assert "regions left out: 1 point, 1 region without a class" in notes_of(source)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (RECT | {"x": "nan"}, "a rect without readable x, y, width, height"),
        (POLYGON | {"all_points_x": [1, 2]}, "a polygon without at least three readable points"),
        ({"name": "star"}, "a region of an unknown kind ('star')"),
        (None, "a region of an unknown kind ('None')"),
    ],
)
def test_bad_regions_are_named(tmp_path: Path, put: Callable, shape: Any, problem: str) -> None:
    put("a.jpg")
    path = put("v.json", {"x": image("a.jpg", (shape, {"type": "crack"})), "y": image("../z.jpg"), "z": {}})
    found = problems_of(tmp_path, "via")
    assert found[0] == f"{path}, image 'z': has no filename" and "no picture named 'z.jpg'" in found[2]
    assert found[1].startswith(f"{path}, a.jpg, region 1: {problem}")


def test_coco_is_not_claimed(tmp_path: Path, put: Callable) -> None:
    put("c.json", {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})
    assert via.detect(SourceFolder.scan(tmp_path)) is None
