"""Records of boxes and classes in JSON, as hubs and challenges write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.formats import find_reader
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from tests.support.read_source import boxes_of, labels_of, notes_of, problems_of, read_auto

CRACK, RUST = (10, 5, 40, 25), (60, 10, 90, 20)  # on pictures of 100x50
SIZES = [[10, 5, 30, 20], [60, 10, 30, 10]]


def lines(*records: Any) -> str:
    return "\n".join(map(json.dumps, records)) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "metadata.jsonl",  # Hugging Face's image folders
            lines(
                {
                    "file_name": "a.jpg",
                    "objects": {"bbox": SIZES, "category": ["crack", "rust"], "area": [600, 300]},
                },
                {"file_name": "b.jpg", "objects": {"bbox": [], "category": [], "area": []}},
            ),
        ),
        (
            "metadata.jsonl",
            lines(
                {
                    "file_name": "a.jpg",
                    "objects": [{"bbox": SIZES[0], "label": "crack"}, {"bbox": SIZES[1], "label": "rust"}],
                },
                {"file_name": "b.jpg", "objects": []},
            ),
        ),
        (
            "bdd.json",
            [
                {
                    "name": "a.jpg",
                    "attributes": {"weather": "clear"},
                    "labels": [
                        {"category": "crack", "box2d": {"x1": 10, "y1": 5, "x2": 40, "y2": 25}},
                        {"category": "rust", "box2d": {"x1": 60, "y1": 10, "x2": 90, "y2": 20}},
                        {"category": "lane", "poly2d": []},
                    ],
                },
                {"name": "b.jpg", "labels": []},
            ],
        ),
        (
            "train_annos.json",  # a record for each box
            [
                {
                    "name": "a.jpg",
                    "defect_name": "crack",
                    "bbox": CRACK,
                    "image_width": 100,
                    "image_height": 50,
                },
                {"name": "a.jpg", "defect_name": "rust", "bbox": RUST},
                {"name": "b.jpg", "defect_name": "", "bbox": []},
            ],
        ),
        (
            "shares.json",
            [
                {"image": "a.jpg", "class": "crack", "bbox": [0.1, 0.1, 0.3, 0.4]},
                {"image": "a.jpg", "class": "rust", "bbox": [0.6, 0.2, 0.3, 0.2]},
                {"image": "b.jpg", "annotations": []},
            ],
        ),
    ],
)
def test_boxes(tmp_path: Path, put: Callable, name: str, content: Any) -> None:
    put("train/a.jpg")
    put("train/b.jpg")
    put(name, content)
    source = read_auto(tmp_path, "json_records")
    assert ("'lane' without a box left out" in notes_of(source)) == (name == "bdd.json")
    assert boxes_of(source) == {"train/a": [("crack", CRACK), ("rust", RUST)], "train/b": []}


def test_classes_of_whole_pictures(tmp_path: Path, put: Callable) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(name)
    put(
        "metadata.jsonl",
        lines({"file_name": "a.jpg", "label": 3}, {"file_name": "b.jpg", "label": ["crack", "rust"]}),
    )
    assert labels_of(read_auto(tmp_path, "json_records")) == {"a": ["3"], "b": ["crack", "rust"]}


def test_bad_records_are_named(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    good = {"file_name": "a.jpg", "objects": {"bbox": SIZES[:1], "category": ["crack"]}}
    uneven = {"file_name": "a.jpg", "objects": {"bbox": SIZES, "category": ["crack"]}}
    short = {"file_name": "a.jpg", "objects": {"bbox": [[1, 2]], "category": ["crack"]}}
    path = put("m.jsonl", lines(good, uneven, short, {"objects": []}, {"file_name": "z.jpg", "objects": []}))
    assert problems_of(tmp_path, "json_records") == [
        f"{path}, line 4: names no picture",
        f"{path}, line 2: the lists in 'objects' are not of one length",
        f"{path}, line 3: a box without four numbers (found [1, 2])",
        f"{path}: no picture named 'z.jpg' in {tmp_path} or below",
    ]


def test_boxes_of_two_meanings_are_refused(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("l.json", [{"image": "a.jpg", "label": "crack", "bbox": [5, 6, 20, 18]}])
    (problem,) = problems_of(tmp_path, "json_records")
    assert "two corners as well as a corner with width and height" in problem


@pytest.mark.parametrize(
    "content",
    [
        lines({"file_name": "a.jpg", "text": "a crack"}),
        lines({"file_name": "other.jpg", "label": "crack"}),
        lines({"title": "a", "label": "crack"}),
        lines(["a.jpg", 1, 2, 3, 4]),
        "[]",
    ],
)
def test_other_json_is_not_claimed(tmp_path: Path, put: Callable, content: str) -> None:
    put("a.jpg")
    put("m.jsonl", content)
    with pytest.raises(InputError, match="no annotations"):
        find_reader(SourceFolder.scan(tmp_path))
