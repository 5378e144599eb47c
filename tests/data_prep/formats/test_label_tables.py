"""Tables and lists of the classes of whole pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.formats import find_reader, label_tables
from data_prep.source_folder import SourceFolder
from tests.support.read_source import labels_of, notes_of, problems_of, read_auto

RIGHT = {"a": ["crack", "rust"], "b": ["rust"], "c": []}
TABLES = {
    "a column for each class": "filename, crack, rust\na.jpg, 1, 1\nb.jpg, 0, 1\nc.jpg, 0, 0\n",
    "semicolons, BOM, no suffix": "\ufeffID;crack;rust\na;True;TRUE\nb;false;true\nc;False;False\n",
    "beside other columns": "image,age,crack,rust,set\na.jpg,30,1.0,1.0,train\nb.jpg,7,0.0,1.0,val\n"
    "c.jpg,4,0,0,test\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_column_for_each_class(tmp_path: Path, put: Callable, table: str) -> None:
    for name in "abc":
        put(f"images/{name}.jpg")
    put("images/d.jpg")
    put("_classes.csv", TABLES[table])
    source = read_auto(tmp_path, "label_table")
    assert {key.removeprefix("images/"): labels for key, labels in labels_of(source).items()} == RIGHT
    assert [path.name for path in source.unannotated] == ["d.jpg"]
    if "set" in TABLES[table]:
        assert [image.split for image in source.images] == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "image_name,label\na.jpg,broken disc\nb.jpg,sound\n"),
        ("labels.tsv", "Label\tnotes\tFile Name\nbroken disc\tx\tphotos/a.jpg\nsound\t\tphotos/b.jpg\n"),
        ("labels.csv", "a.jpg,broken disc\nb.jpg,sound\n"),
        ("labels.csv", "photos/a.jpg;broken disc\nphotos/b.jpg;sound\n"),
        ("train.txt", "a.jpg\tbroken disc\nb.jpg\tsound\n"),
    ],
)
def test_a_column_for_the_class(tmp_path: Path, put: Callable, name: str, content: str) -> None:
    put("a.jpg")
    put("b.jpg")
    put(name, content)
    assert labels_of(read_auto(tmp_path, "label_table")) == {"a": ["broken disc"], "b": ["sound"]}


def test_numbers_as_classes(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    put("l.csv", "image,label,fold\na.jpg,1,3\nb.jpg,0,2\n")
    assert labels_of(read_auto(tmp_path, "label_table")) == {"a": ["1"], "b": ["0"]}
    put("l.csv", "image,defective\na.jpg,1\nb.jpg,0\n")
    assert labels_of(read_auto(tmp_path, "label_table")) == {"a": ["defective"], "b": []}


def test_a_wrong_cell_does_not_lose_its_column(tmp_path: Path, put: Callable) -> None:
    for number in range(20):
        put(f"{number}.jpg")
    rows = "".join(f"{number}.jpg,1,{'x' if number == 9 else 0},{number}\n" for number in range(20))
    path = put("l.csv", f"image,crack,rust,age\n{rows}")
    assert problems_of(tmp_path, "label_table") == [f"{path}, line 11: 'x' of 'rust' is neither 0 nor 1"]
    path.write_text(path.read_text().replace("x", "1"))
    source = read_auto(tmp_path, "label_table")
    assert labels_of(source)["9"] == ["crack", "rust"] and "column(s) passed over: 'age'" in notes_of(source)


def test_several_classes_of_one_picture(tmp_path: Path, put: Callable) -> None:
    for name in ("my photo 1.jpg", "b.jpg"):
        put(name)
    put("l.csv", "image,labels\nmy photo 1.jpg,\"['crack', 'rust']\"\nb.jpg,rust\nb.jpg,crack;rust\n")
    put("sample_submission.csv", "image,labels\nb.jpg,sound\n")
    assert labels_of(read_auto(tmp_path, "label_table")) == {
        "b": ["rust", "crack"],
        "my photo 1": ["crack", "rust"],
    }


def test_all_parts_of_a_line_without_header_are_labels(tmp_path: Path, put: Callable) -> None:
    put("images/cell 1.png")
    put("images/cell2.png")
    put("labels.csv", "images/cell 1.png  1.0                 mono\nimages/cell2.png  0.333     poly\n")
    labels = labels_of(read_auto(tmp_path, "label_table"))
    assert labels == {"images/cell 1": ["1.0", "mono"], "images/cell2": ["0.333", "poly"]}


def test_a_list_of_pictures_and_their_masks_is_none(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("masks/a.png")
    put("train.txt", "a.jpg masks/a.png\n")
    assert label_tables.detect(SourceFolder.scan(tmp_path)) is None


def test_bad_rows_are_named(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    path = put("l.csv", "image,label\na.jpg,crack\n/etc/b.jpg,crack\nc.jpg,crack\na.jpg,\n,crack\n")
    assert problems_of(tmp_path, "label_table") == [
        f"{path}, line 5: names no class",
        f"{path}, line 6: names no picture",
        f"{path}: no picture named 'b.jpg' in {tmp_path} or below (and 1 more of its pictures)",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("towers.csv", "tower,height\n12,30\n"),
        ("list.txt", "a.jpg\nb.jpg\n"),
        ("list.txt", "a.jpg 1,2,30,40,0\n"),
        ("measured.csv", "image,height\na.jpg,12.5\n"),
        ("other.csv", "image,label\nz.jpg,crack\n"),
        ("captions.csv", "image,caption,label\na.jpg,A crack.,x\n"),
    ],
)
def test_other_tables_are_not_claimed(tmp_path: Path, put: Callable, name: str, content: str) -> None:
    put("a.jpg")
    put(name, content)
    assert label_tables.detect(SourceFolder.scan(tmp_path)) is None


def test_boxes_say_more_than_labels(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("labels.csv", "image,label\na.jpg,crack\n")
    put("boxes.csv", "image,label,x1,y1,x2,y2\na.jpg,crack,1,2,30,40\n")
    assert find_reader(SourceFolder.scan(tmp_path))[0].NAME == "box_table"
