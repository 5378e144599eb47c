"""LabelMe files as LabelMe and its relatives write them."""

import base64
import json
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_prep.annotations import Shape, merge_annotations
from data_prep.formats import labelme
from data_prep.formats.labelme import read_annotation
from data_prep.formats.layout import OtherFormatError
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from tests.support.label_files import json_like


def shape(kind: str | None, *points: tuple[float, float], label: str = "x", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, **more}


def file(*shapes: Any, image: str = "a.jpg", **more: Any) -> str:
    facts = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return json.dumps(facts | {"imageHeight": 50, "imageWidth": 100} | more)


def png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_every_shape_becomes_a_box(put: Callable) -> None:
    annotation = read_annotation(
        put(
            "a.json",
            file(
                shape("rectangle", (30, 40), (10, 5)),
                shape("rectangle", (1, 2), (9, 2), (9, 8), (1, 8), label="four corners"),
                shape("polygon", (0, 0), (10, 0), (0, 8)),
                shape(None, (0, 0), (4, 0), (4, 4), (0, 4), label="old file"),
                shape("circle", (50, 20), (53, 24)),
                shape("oriented_rectangle", (5, 0), (10, 5), (5, 10), (0, 5)),
            ),
        )
    )
    assert annotation.shapes == (
        Shape("x", (10, 5, 30, 40)),
        Shape("four corners", (1, 2, 9, 8)),
        Shape("x", (0, 0, 10, 8), 40),
        Shape("old file", (0, 0, 4, 4), 16),
        Shape("x", (45, 15, 55, 25), math.pi * 25),
        Shape("x", (0, 0, 10, 10), 50),
    )
    assert annotation.notes == ()
    assert (annotation.image, annotation.size) == ("a.jpg", (100, 50))


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_mask_is_the_box_around_its_pixels(put: Callable, mode: str) -> None:
    mask = Image.new(mode, (11, 6))
    mask.paste(1, (2, 1, 9, 4))
    mask.putpixel((4, 2), 0)
    whole = shape("mask", (20, 30), (30, 35), mask=png(mask))
    empty = shape("mask", (20, 30), (30, 35), mask=png(Image.new(mode, (11, 6))))
    annotation = read_annotation(put("a.json", file(whole, empty)))
    assert annotation.shapes == (Shape("x", (22, 31, 29, 34), 20),)
    assert "1 empty mask" in annotation.notes[0]


def test_shapes_of_one_label_and_group_are_one_object(put: Callable) -> None:
    left, right = ((0, 0), (10, 0), (0, 8)), ((20, 0), (30, 0), (20, 8))
    annotation = read_annotation(
        put(
            "a.json",
            file(
                shape("polygon", *left, group_id=0),
                shape("rectangle", (2, 2), (4, 4), label="y", group_id=0),
                shape("polygon", *left, group_id=3),
                shape("polygon", *right, group_id=0),
                shape("rectangle", (30, 0), (40, 10), group_id=0),
                shape("polygon", *right, group_id=None),
                shape("point", (1, 1), group_id=0),
                shape("polygon", *right, group_id=0),
                shape("polygon", *right, label="__ignore__"),
            ),
        )
    )
    assert annotation.shapes == (
        Shape("x", (0, 0, 40, 10), 40 + 40 + 100),
        Shape("y", (2, 2, 4, 4)),
        Shape("x", (0, 0, 10, 8), 40),
        Shape("x", (20, 0, 30, 8), 40),
    )
    twice, joined, left_out = annotation.notes
    assert twice.endswith("shape 8 (x) is there twice; kept once")
    assert joined.endswith("1 object(s) joined of several shapes by their group_id")
    assert left_out.endswith("left out: 1 labelled __ignore__, 1 point")


def test_points_and_lines_are_left_out_with_a_note(put: Callable) -> None:
    lines = [shape("line", (0, 0), (9, 9)), shape("linestrip", (0, 0), (9, 9), (9, 0))]
    path = put("a.json", file(shape("point", (3, 4)), *lines, shape("rectangle", (0, 0), (5, 5))))
    annotation = read_annotation(path)
    assert len(annotation.shapes) == 1
    assert annotation.notes == (f"{path}: shapes left out: 1 line, 1 linestrip, 1 point",)


def test_flags_of_the_image_are_labels_and_doubles_are_kept_once(put: Callable) -> None:
    double = shape("rectangle", (0, 0), (5, 5))
    path = put("a.json", file(double, double, flags={"rusty": True, "wet": False, "dark": 1}))
    annotation = read_annotation(path)
    assert annotation.labels == ("rusty",)
    assert len(annotation.shapes) == 1 and "shape 2 (x) is there twice" in annotation.notes[0]


def test_boxes_are_on_the_upright_image(tmp_path: Path, put: Callable) -> None:
    """LabelMe shows, and measures, an image turned as its EXIF says."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (100, 50)).save(tmp_path / "a.jpg", exif=exif)
    put("a.json", file(shape("rectangle", (5, 60), (20, 90)), imageWidth=50, imageHeight=100))
    source, problems = labelme.read(SourceFolder.scan(tmp_path))
    assert problems == []
    with Image.open(tmp_path / "a.jpg") as opened:
        upright = ImageOps.exif_transpose(opened).size
    assert merge_annotations(source.images[0], upright, 6) == ([Shape("x", (5, 60, 20, 90))], [])


def test_images_are_found_by_the_files_own_name_first(tmp_path: Path, put: Callable) -> None:
    for image in ("a.jpg", "a.png", "b.jpg", "photos/c.d.jpg", "lonely.jpg"):
        put(image)
    put("a.json", file(image="a.png"))
    put("b.json", file(image="a.jpg"))  # left over from a copy
    put("labels/c.d.json", file(image="..\\photos\\c.d.jpg"))
    put("labels/other.json", '{"imagePath": "a.jpg"}')
    source, problems = labelme.read(SourceFolder.scan(tmp_path))
    assert problems == []
    assert [image.file.name for image in source.images] == ["a.png", "b.jpg", "c.d.jpg"]
    assert [path.name for path in source.unannotated] == ["a.jpg", "lonely.jpg"]
    assert "imagePath names 'a.jpg'; taken as b.jpg's" in source.notes[0]
    assert "not LabelMe passed over, for instance labels/other.json" in source.notes[1]


def test_folders_say_the_split_and_names_the_photo(tmp_path: Path, put: Callable) -> None:
    put("test/tower_png.rf.0a.jpg")
    put("test/tower_png.rf.0a.json", file(image="tower_png.rf.0a.jpg"))
    (image,) = labelme.read(SourceFolder.scan(tmp_path))[0].images
    assert (image.group, image.split) == ("tower", "test")


def test_every_problem_is_reported(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("a.json", file())
    put("absent.json", file(image="absent.jpg"))
    put("inside.json", file(image="inside.jpg", imageData="aGVsbG8="))
    put("cut.json", file()[:-5])
    _, problems = labelme.read(SourceFolder.scan(tmp_path))
    assert len(problems) == 3
    assert "cut.json, line 1: not valid JSON" in problems[0]
    assert "absent.json: no picture named 'absent.jpg' or 'absent'" in problems[1]
    assert "--image-folder" in problems[1]
    assert "imageData" not in problems[1]
    assert "inside.json" in problems[2] and "or extract the picture from the file's imageData" in problems[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "JSON that cannot be used"),
        ("1" * 5000, "JSON that cannot be used"),
        ('{"shapes": {}}', '"shapes" is not a list'),
        (file(7), "shape 1 is int"),
        (file(shape("rectangle", (0, 0), (1, 1), label=" ")), "shape 1 has no readable"),
        (file(shape("rectangle", (0, 0), (1, 1), label="\ud800")), r"line 1: \\ud800 is half of a character"),
        (file(shape("rectangle", (0, 0))), r"shape 1 \(x\): a rectangle has 2 or 4 points, not 1"),
        (file(shape("polygon", (0, 0), (1, 1))), "at least 3 points, not 2"),
        (file(shape("circle", (0, 0), (math.nan, 1))), "unreadable point"),
        (file(shape("circle", (0, 0), (10**400, 1))), "unreadable point"),
        (file(shape("circle")), 'has no "points"'),
        (file(shape("cuboid", (0, 0), (1, 1))), "unknown shape_type 'cuboid'"),
        (file(shape("mask", (0, 0), (1, 1))), 'has no "mask"'),
        (file(shape("mask", (0, 0), (1, 1), mask="not base64!")), "no whole PNG"),
        (file(shape("mask", (0, 0), (1, 1), mask=png(Image.new("L", (2, 2)))[:-30])), "no whole PNG"),
        (file(shape("mask", (0, 0), (9, 9), mask=png(Image.new("L", (2, 2))))), "does not fit its points"),
        (file(shape("mask", (0, 0), (1, 1), mask=png(Image.new("RGB", (2, 2))))), "no grey PNG"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(put: Callable, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_annotation(put("bad.json", text))
    assert "bad.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_labelme_is_refused(tmp_path: Path, put: Callable) -> None:
    put("a.json", "[]")
    with pytest.raises(OtherFormatError):
        read_annotation(tmp_path / "a.json")
    with pytest.raises(InputError, match="no LabelMe annotations"):
        labelme.read(SourceFolder.scan(tmp_path))
    assert labelme.detect(SourceFolder.scan(tmp_path)) is None


def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, put: Callable) -> None:
    put("own_order.json", file(imageData="A" * 99_999))
    put("sorted.json", json.dumps(json.loads(file(imageData="A" * 99_999)), sort_keys=True))
    put("coco.json", '{"images": [], "annotations": [], "categories": []}')
    put("list.json", '[{"shapes": []}]')
    assert labelme.detect(SourceFolder.scan(tmp_path)) == '2 JSON file(s) with LabelMe\'s "shapes"'


KEYS = ("shapes", "label", "points", "shape_type", "flags", "mask", "imagePath", "imageWidth", "imageData")
WORDS = ("rectangle", "polygon", "circle", "mask", "point", "x", png(Image.new("1", (2, 2), 1)))
POINTS = st.lists(st.tuples(*[st.integers(-9, 99) | st.floats()] * 2), max_size=5)
SHAPES = st.fixed_dictionaries(
    {"label": st.just("x\nx"), "shape_type": st.sampled_from([*WORDS[:5], "star\n"]), "points": POINTS},
    optional={"mask": st.sampled_from(WORDS) | st.none()},
)


@given(json_like(KEYS, WORDS) | st.fixed_dictionaries({"shapes": st.lists(SHAPES | json_like(KEYS, WORDS))}))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value))
    try:
        annotation = read_annotation(path)
    except InputError as error:
        assert "a.json" in str(error) and "\n" not in str(error)
        return
    assert "\n" not in "".join(annotation.notes)
    for found in annotation.shapes:
        x1, y1, x2, y2 = found.box
        assert x1 <= x2 and y1 <= y2 and math.isfinite(x2 - x1 + y2 - y1)


def test_real_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "formats"
    source, problems = labelme.read(SourceFolder.scan(folder / "labelme", folder / "images"))
    assert problems == [] and len(source.images) == 12 and source.unannotated == ()
    (first,) = source.images[0].annotations
    assert first.shapes == (Shape("insulator", (250, 427, 1010, 579)), Shape("defect", (706, 507, 776, 551)))
