"""DOTA, KITTI, DeepPCB and keras-yolo: boxes in texts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.formats import READERS, find_reader
from data_prep.source_folder import SourceFolder
from tests.support.read_source import boxes_of, notes_of, problems_of, read_auto

RIGHT = {"a": [("crack", (10, 5, 40, 25)), ("rust", (60, 20, 100, 50))], "b": []}
DOTA = """imagesource:GoogleEarth
gsd:0.146
25 5 40 15 25 25 10 15 crack 0
60.0 20.0 108.0 20.0 108.0 55.0 60.0 55.0 rust 1
"""
KITTI = """crack 0.00 0 -1.57 10.00 5.00 40.00 25.00 1.89 0.48 1.20 1.84 1.47 8.41 0.01
DontCare -1 -1 -10 1 2 30 40 -1 -1 -1 -1000 -1000 -1000 -10
rust 0.5 1 -1.57 60 20 108 55 -1 -1 -1 -1 -1 -1 -1 0.99
"""


@pytest.mark.parametrize(
    ("format", "text", "labels", "images"),
    [
        ("dota", DOTA, "train/labelTxt/{}.txt", "train/images/{}.jpg"),
        ("dota", DOTA.split("\n", 2)[2], "{}.txt", "{}.jpg"),
        (
            "dota",
            "\ufeff" + DOTA.replace(" 0\n", "\n").replace(" 1\n", "\r\n"),
            "labels/{}.txt",
            "images/{}.jpg",
        ),
        ("kitti", KITTI, "training/label_2/{}.txt", "training/image_2/{}.png"),
        ("kitti", KITTI, "labels/{}.txt", "images/{}.jpg"),
    ],
)
def test_a_text_for_each_picture(
    tmp_path: Path, put: Callable, format: str, text: str, labels: str, images: str
) -> None:
    for name in "abc":
        put(images.format(name))
    put(labels.format("a"), text)
    put(labels.format("b"))
    source = read_auto(tmp_path, format)
    assert {key[-1]: boxes for key, boxes in boxes_of(source).items()} == RIGHT
    assert [path.stem for path in source.unannotated] == ["c"]
    assert {image.split for image in source.images} == ({"train"} if "train" in images else {None})
    if format == "dota":
        assert source.images[0].annotations[0].shapes[0].area == 300
    else:
        assert "left out: 1 DontCare" in notes_of(source)


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        ("dota", "25 5 40 15 25 25 10 15 crack 0", "25 5 nan 15 25 25 10 15 crack 0"),
        ("dota", "25 5 40 15 25 25 10 15 crack 0", "25 5 40 15 crack"),
        ("kitti", KITTI.splitlines()[0], "crack 0 0 0 10 5 40"),
        ("kitti", KITTI.splitlines()[0], KITTI.splitlines()[0].replace("40.00", "forty")),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, put: Callable, format: str, good: str, bad: str) -> None:
    put("a.jpg")
    path = put("a.txt", f"{good}\n{bad}\n")
    (problem,) = problems_of(tmp_path, format)
    assert problem.startswith(f"{path}, line 2: expected")


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.2 0.4", "0 0.1 0.1 0.4 0.1 0.4 0.6 0.1 0.6", "tower 12", ""])
def test_yolo_and_notes_are_not_claimed(tmp_path: Path, put: Callable, text: str) -> None:
    put("a.jpg")
    put("a.txt", text)
    folder = SourceFolder.scan(tmp_path)
    claims = [name for name in ("dota", "kitti", "keras_yolo", "deeppcb") if READERS[name].detect(folder)]
    assert claims == []


def test_deeppcb(tmp_path: Path, put: Callable) -> None:
    for name in ("00041000", "00041001"):
        put(f"group/00041/{name}_test.jpg")
        put(f"group/00041/{name}_temp.jpg")
    put("group/00041_not/00041000.txt", "10 5 40 25 3\n60 20 108 55 6\n")
    put("group/00041_not/00041001.txt")
    put("trainval.txt", "group/00041/00041000.jpg group/00041_not/00041000.txt\n")
    source = read_auto(tmp_path, "deeppcb")
    assert boxes_of(source) == {
        "group/00041/00041000_test": [("mousebite", (10, 5, 40, 25)), ("pin-hole", (60, 20, 100, 50))],
        "group/00041/00041001_test": [],
    }
    assert source.unannotated == () and "2 picture(s) of templates" in notes_of(source)
    path = put("group/00041_not/00041001.txt", "10 5 40 25 7\n")
    assert problems_of(tmp_path, "deeppcb") == [
        f"{path}, line 1: expected `x1 y1 x2 y2 type`, the type 1 to 6"
    ]


def test_keras_yolo(tmp_path: Path, put: Callable) -> None:
    for name in ("a", "b", "my photo 3"):
        put(f"train/{name}.jpg")
    put("train/_classes.txt", "crack\nrust spot\n")
    put(
        "train/_annotations.txt",
        "photos\\a.jpg 10,5,40,25,0 60,20,108,55,1\nb.jpg\nmy photo 3.jpg 1,2,30,40,1\n",
    )
    source = read_auto(tmp_path, "keras_yolo")
    assert boxes_of(source) == {
        "train/a": [("crack", (10, 5, 40, 25)), ("rust spot", (60, 20, 100, 50))],
        "train/b": [],
        "train/my photo 3": [("rust spot", (1, 2, 30, 40))],
    }
    put("train/_classes.txt", "crack\n")
    path = put("train/_annotations.txt", "a.jpg 10,5,40,25,0 1,2,3,4,7\nz.jpg 1,2,3,4,0\nb.jpg 1,2,3\n")
    first, second, third = problems_of(tmp_path, "keras_yolo")
    assert first == f"{path}, line 1: class 7 is not among 1 names"
    assert second.startswith(f"{path}, line 3: expected") and "no picture named 'z.jpg'" in third
    (tmp_path / "train" / "_classes.txt").unlink()
    (problem,) = problems_of(tmp_path, "keras_yolo")
    assert "no text with names of classes; put one _classes.txt beside it" in problem


def test_a_text_of_several_formats_is_known_as_one(tmp_path: Path, put: Callable) -> None:
    put("images/a.jpg")
    put("labels/a.txt", DOTA)
    put("data.yaml", "names: [crack, rust]")
    assert find_reader(SourceFolder.scan(tmp_path))[0].NAME == "dota"
