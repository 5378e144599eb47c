"""Tables with a row for each box, as many tools write them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.formats import box_tables
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from tests.support.read_source import boxes_of, notes_of, problems_of, read_auto

# What each of the tables below says of the pictures a and b, which are 100x50; `c` is in none.
RIGHT = {
    "a": [("crack", (10, 5, 40, 25)), ("rust spot", (60, 20, 100, 50))],
    "b": [("crack", (0, 0, 20, 10))],
}
TABLES = {
    "tensorflow": """filename,width,height,class,xmin,ymin,xmax,ymax
a.jpg,100,50,crack,10,5,40,25
a.jpg,100,50,rust spot,60,20,108,55
b.jpg,100,50,crack,0,0,20,10
""",
    "vott": """"image","xmin","ymin","xmax","ymax","label"
"a.jpg",10.0,5.0,40,25,"crack"
"a.jpg",60,20,108,55,"rust spot"
"b.jpg",0,0,20,10,"crack"
""",
    "order, spelling, semicolons, BOM, decimal commas": """\ufeffY_Min;X_Min;X_Max;Y_Max;Label Name;Image Path
5,0;10,0;40,0;25,0;crack;C:\\photos\\a.jpg
20;60;108;55;rust spot;photos/a.jpg
0;0;20;10;crack;photos/b.jpg
""",
    "tabs, roi": """Width\tHeight\tRoi.X1\tRoi.Y1\tRoi.X2\tRoi.Y2\tClassId\tPath
100\t50\t10\t5\t40\t25\tcrack\ta.jpg
100\t50\t60\t20\t108\t55\trust spot\ta.jpg
100\t50\t0\t0\t20\t10\tcrack\tb.jpg
""",
    "shares": """ImageID,LabelName,XMin,XMax,YMin,YMax
a,crack,0.1,0.4,0.1,0.5
a,rust spot,0.6,1.08,0.4,1.1
b,crack,0,0.2,0,0.2
""",
    "corner and size": """image_id,category,x,y,w,h
a,crack,10,5,30,20
a,rust spot,60,20,48,35
b,crack,0,0,20,10
""",
    "corner, size beside the picture's": """image,image_width,image_height,bbox_x,bbox_y,bbox_w,bbox_h,label
a.jpg,100,50,10,5,30,20,crack
a.jpg,100,50,60,20,48,35,rust spot
b.jpg,100,50,0,0,20,10,crack
""",
    "centre in shares": """file,class,x_center,y_center,width,height
a.jpg,crack,0.25,0.3,0.3,0.4
a.jpg,rust spot,0.84,0.75,0.48,0.7
b.jpg,crack,0.1,0.1,0.2,0.2
""",
    "one column, corners": """image_name,label_name,bbox
a.jpg,crack,"[10, 5, 40, 25]"
a.jpg,rust spot,60 20 108 55
b.jpg,crack,"0,0,20,10"
""",
    "one column, sizes": """image_id,width,height,bbox,label
a,100,50,"[60.0, 20.0, 48.0, 35.0]",rust spot
a,100,50,"[10.0, 5.0, 30.0, 20.0]",crack
b,100,50,"[0, 0, 20, 10]",crack
""",
    "keras-retinanet, no header": """photos/a.jpg,10,5,40,25,crack
photos/a.jpg,60,20,108,55,rust spot
photos/b.jpg,0,0,20,10,crack
""",
    "makesense.ai, no header": """crack,10,5,30,20,a.jpg,100,50
rust spot,60,20,48,35,a.jpg,100,50
crack,0,0,20,10,b.jpg,100,50
""",
}


@pytest.mark.parametrize("table", TABLES)
def test_all_spellings_give_the_same_boxes(tmp_path: Path, put: Callable, table: str) -> None:
    for name in "abc":
        put(f"{name}.jpg")
    put("boxes.csv", TABLES[table])
    source = read_auto(tmp_path, "box_table")
    assert {key: sorted(boxes) for key, boxes in boxes_of(source).items()} == RIGHT
    assert [path.name for path in source.unannotated] == ["c.jpg"]


def test_a_row_without_a_box_says_that_there_is_nothing(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    put("annotations.csv", "a.jpg,1,2,30,40,crack\nb.jpg,,,,,\n")
    assert boxes_of(read_auto(tmp_path, "box_table")) == {"a": [("crack", (1, 2, 30, 40))], "b": []}


def test_splits_come_from_file_names_and_columns(tmp_path: Path, put: Callable) -> None:
    head = "filename,class,xmin,ymin,xmax,ymax"
    for name in "abc":
        put(f"images/{name}.jpg")
    put("train_labels.csv", f"{head}\na.jpg,crack,1,2,30,40\n")
    put("test_labels.csv", f"{head},split\nb.jpg,crack,1,2,30,40,\nc.jpg,crack,1,2,30,40,valid\n")
    source = read_auto(tmp_path, "box_table")
    assert [image.split for image in source.images] == ["train", "test", "val"]


def test_a_table_without_classes_has_one(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("train.csv", 'image_id,width,height,bbox,source\na,100,50,"[50, 20, 40, 30]",x1\n')
    source = read_auto(tmp_path, "box_table")
    assert boxes_of(source) == {"a": [("object", (50, 20, 90, 50))]}
    assert "no column of classes" in notes_of(source)


def test_what_is_put_right_or_left_out_is_noted(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    rows = "a.jpg,x,40,25,10,5\na.jpg,x,40,25,10,5\na.jpg,x,7,7,7,9\n"
    put("t.csv", "image,label,x1,y1,x2,y2\n" + rows)
    source = read_auto(tmp_path, "box_table")
    assert boxes_of(source) == {"a": [("x", (10, 5, 40, 25))]}
    for note in ("line 2: the box was reversed", "line 3: is there twice", "line 4: the box has no width"):
        assert note in notes_of(source)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a.jpg,x,nan,5,10,5", "line 3: a box without four numbers (found 'nan', '5', '10', '5')"),
        ("a.jpg,x,1,,10,5", "line 3: a box without four numbers"),
        ("a.jpg,,1,2,10,5", "line 3: names no class"),
        ("a.jpg,x,1,2", "line 3: has 4 column(s), fewer than the header"),
        ("../../etc/b.jpg,x,1,2,10,5", "no picture named 'b.jpg'"),
        ('a.jpg,"x,1,2,10,5', "line 3: not valid CSV"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, put: Callable, row: str, problem: str) -> None:
    put("a.jpg")
    path = put("t.csv", f"image,label,x1,y1,x2,y2\na.jpg,x,1,2,30,40\n{row}\n")
    (found,) = problems_of(tmp_path, "box_table")
    assert found.startswith(str(path)) and problem in found


def test_pixels_among_shares_are_refused(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    rows = "".join(f"a.jpg,x,0.{number},0.1,0.9,0.9\n" for number in range(1, 20))
    put("t.csv", f"image,label,x1,y1,x2,y2\n{rows}a.jpg,x,10,2,30,40\n")
    (problem,) = problems_of(tmp_path, "box_table")
    assert "line 21: is in pixels, where the others are in shares" in problem


def test_one_column_that_could_be_either_is_not_guessed(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("t.csv", 'image,label,bbox\na.jpg,x,"[10, 5, 20, 15]"\n')
    (problem,) = problems_of(tmp_path, "box_table")
    assert "may be two corners as well as a corner with width and height; write four columns" in problem


@pytest.mark.parametrize("joined", [False, True])
def test_run_length_masks(tmp_path: Path, put: Callable, joined: bool) -> None:
    """Runs go down the columns and count from 1; the pictures are 50 high."""
    for name in "abc":
        put(f"{name}.jpg")
    runs = {"a": "506 20 556 20 606 20", "b": ""}
    if joined:
        rows = ["ImageId_ClassId,EncodedPixels", f"a.jpg_1,{runs['a']}", "a.jpg_3,4996 5", "b.jpg_1,"]
    else:
        rows = ["EncodedPixels,ClassId,ImageId", f"{runs['a']},1,a.jpg", "4996 5,3,a.jpg", ",1,b.jpg"]
    put("train.csv", "\n".join(rows))
    source = read_auto(tmp_path, "run_table")
    assert boxes_of(source) == {"a": [("1", (10, 5, 13, 25)), ("3", (99, 45, 100, 50))], "b": []}
    assert [shape.area for shape in source.images[0].annotations[0].shapes] == [60, 5]
    assert [path.name for path in source.unannotated] == ["c.jpg"]
    # A table that has only rows with runs says by their absence that a picture shows nothing.
    put("test/d.jpg")
    put("train.csv", "ImageId,ClassId,EncodedPixels\na.jpg,1,4996 5\n")
    source = read_auto(tmp_path, "run_table")
    assert boxes_of(source) == {"a": [("1", (99, 45, 100, 50))], "b": [], "c": []}
    assert [path.name for path in source.unannotated] == ["d.jpg"]
    assert "2 picture(s) that no row is about, beside others: taken as showing nothing" in notes_of(source)
    put("train.csv", "ImageId,EncodedPixels\na.jpg,4999 50\na.jpg,1 x\n")
    first, second = problems_of(tmp_path, "run_table")
    assert (
        "line 2: its runs reach beyond a picture of 100x50" in first and "line 3: its runs are not" in second
    )


def test_tables_of_other_formats_are_not_claimed(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("rows.csv", "image,question,answer,x1,y1,x2,y2,label\na.jpg,Broken?,no,1,2,3,4,disc\n")
    put("labels.csv", "image,label\na.jpg,crack\n")
    put("numbers.csv", "time,x,y,width,height\n1,2,3,4,5\n")
    folder = SourceFolder.scan(tmp_path)
    assert box_tables.detect(folder) is None
    with pytest.raises(InputError, match="no table"):
        box_tables.read(folder)
