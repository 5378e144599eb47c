"""What is said of files that no reader knows, and of those that a reader passes over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.formats import coco, voc
from data_prep.formats.seen import describe_files, passed_over
from data_prep.source_folder import SourceFolder


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a.csv": "Photo;Fault;Where\n1;2;3\n", "b/b.csv": "Photo;Fault;Where\n", "c.csv": "x,y\n"},
            [
                "2 CSV file(s) with the columns Photo, Fault, Where (for instance a.csv)",
                "1 CSV file(s) with the columns x, y",
                "if a table is of boxes, call its columns filename, class, xmin",
            ],
        ),
        (
            {
                "a.json": {"meta": {"x": 1}, "items": [{"id": 1}]},
                "b.json": [{"photo": "a", "found": {"z": 1}}],
            },
            [
                "1 JSON file(s) of objects with meta, items",
                "1 JSON file(s) of lists of objects with photo, found",
            ],
        ),
        (
            {"a.xml": "<?xml version='1.0'?><!-- x --><report><a/></report>"},
            ["1 XML file(s) with the root <report>"],
        ),
        (
            {"p1.jpg": "", "p1.txt": "crack at 3 o'clock\n", "p2.jpg": "", "p2.txt": "none"},
            ['2 text file(s) named like pictures (for instance p1.txt, that begins "crack at 3 o\'clock")'],
        ),
        ({"a.mat": "", "b.mat": "", "c.zip": "", "d.mp4": ""}, ["2 .mat file(s)", "unpack", "ffmpeg"]),
        (
            {"images/1.jpg": "", "masks/1.png": ""},
            ["1 picture(s) in folders of masks or labels (for instance masks/"],
        ),
    ],
)
def test_files_of_an_unknown_format_are_described(
    tmp_path: Path, put: Callable, files: dict[str, Any], said: list[str]
) -> None:
    for name, content in {"README.txt": "Photos of 2026.", "LICENSE": "MIT", **files}.items():
        put(name, content)
    text = describe_files(SourceFolder.scan(tmp_path))
    assert all(part in text for part in said), text
    assert "README" not in text and "\n" not in text


def test_pictures_alone_need_no_description(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("README.txt", "Photos.")
    assert describe_files(SourceFolder.scan(tmp_path)) == ""


def test_files_that_look_like_annotations_and_are_not_read_are_named(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    image, box = (
        {"id": 1, "file_name": "a.jpg"},
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
    )
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
    put("train.json", content)
    put("settings.json", {"version": 1})
    put("columns.csv", "name,value\n")
    folder = SourceFolder.scan(tmp_path)
    assert passed_over(folder, coco.read(folder)[0]) == []
    put("extra.json", {"pictures": [{"name": "a.jpg", "Bounding-Boxes": [[1, 2, 3, 4]]}]})
    put("more.json", {"pictures": [{"name": "a.jpg", "Bounding-Boxes": [[1, 2, 3, 4]]}]})
    put("a.xml", "<annotation><object><name>x</name></object></annotation>")
    folder = SourceFolder.scan(tmp_path)
    xml, json = passed_over(folder, coco.read(folder)[0])
    assert xml.startswith(
        f"{tmp_path / 'a.xml'}: looks like annotations, but is nothing that the format coco reads"
    )
    assert str(tmp_path / "extra.json") in json and json.endswith("(and 1 more such file(s))")
    assert len(passed_over(folder, voc.read(folder)[0])) == 3


@given(
    data=st.binary(max_size=300),
    name=st.sampled_from(["a.csv", "a.json", "a.jsonl", "a.xml", "a.txt", "b.txt"]),
)
def test_any_bytes_are_described_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / name).write_bytes(data)
    (root / "b.png").write_bytes(b"")
    text = describe_files(SourceFolder.scan(root))
    assert "\n" not in text and len(text) < 2000
