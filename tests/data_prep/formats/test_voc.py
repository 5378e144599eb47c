"""Pascal VOC with everything that real folders do to it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import (
    AnnotatedImage,
    AnnotatedSource,
    Annotation,
    Shape,
    merge_annotations,
    plain_name,
)
from data_prep.formats import voc as reader
from data_prep.formats.voc import read_annotation
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError


def find_source(folder: Path) -> tuple[AnnotatedSource, list[str]]:
    return reader.read(SourceFolder.scan(folder))


BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def voc(*objects: tuple, filename: str = "a.jpg", size: tuple = (100, 50)) -> str:
    shapes = "".join(f"<object><name>{name}</name>{BOX.format(*box)}</object>" for name, *box in objects)
    width, height = size
    return (
        f"<annotation><filename>{filename}</filename><path>C:\\somewhere\\else.jpg</path>"
        f"<size><width>{width}</width><height>{height}</height></size>{shapes}</annotation>"
    )


def test_folders_of_one_name_belong_together(tmp_path: Path, put: Callable) -> None:
    """PKU's PCB defects have turned copies under the same names."""
    for name in ("images/Spur/1.jpg", "rotation/Spur_rotation/1.jpg", "images/Short/1.jpg"):
        put(name)
    for name in ("Spur", "Short"):
        put(f"Annotations/{name}/1.xml", voc((name, 1, 2, 30, 40), filename="1.jpg"))
    source, problems = find_source(tmp_path)
    assert not problems
    assert [(image.key, image.annotations[0].shapes[0].name) for image in source.images] == [
        ("images/Short/1", "Short"),
        ("images/Spur/1", "Spur"),
    ]


def test_two_files_of_one_image_are_merged(tmp_path: Path, put: Callable) -> None:
    put("images/062.jpg")
    put("labels/insulator/062.xml", voc(("insulator", 1, 2, 30, 40), filename="062"))
    put("labels/defect/062.xml", voc(("defect", 5, 6, 9, 9), ("insulator", 1, 2, 30, 40), filename="062"))
    source, problems = find_source(tmp_path)
    assert not problems
    (image,) = source.images
    assert image.key == "images/062"
    shapes, notes = merge_annotations(image, (100, 50))
    assert sorted(shapes, key=str) == [Shape("defect", (5, 6, 9, 9)), Shape("insulator", (1, 2, 30, 40))]
    assert notes == []


def test_encodings_of_east_asia(put: Callable) -> None:
    file = put("a.xml")
    text = voc(("绝缘子", 1, 2, 30, 40))
    file.write_bytes(f'<?xml version="1.0" encoding="GB2312"?>{text}'.encode("gb2312"))
    assert read_annotation(file).shapes == (Shape("绝缘子", (1, 2, 30, 40)),)
    file.write_bytes(b'<?xml version="1.0" encoding="GB2312"?><annotation>\xff\xff</annotation>')
    with pytest.raises(InputError, match="not valid XML"):
        read_annotation(file)


def test_boxes_are_put_right_and_reported(put: Callable) -> None:
    file = put("a.xml", voc(("x", 30.5, 2, 10.25, 20), ("y", -5, 10, 120, 20), ("z", 200, 1, 220, 9)))
    shapes, notes = merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [read_annotation(file)]), (100, 50))
    assert shapes == [Shape("x", (10.25, 2, 30.5, 20)), Shape("y", (0, 10, 100, 20))]
    assert len(notes) == 3
    assert "reversed" in notes[0] and "clipped" in notes[1] and "left out" in notes[2]
    assert all(str(file) in note for note in notes)


def test_boxes_follow_the_image(put: Callable) -> None:
    scaled = read_annotation(put("s.xml", voc(("x", 20, 10, 40, 30), size=(200, 100))))
    assert merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [scaled]), (100, 50))[0] == [
        Shape("x", (10, 5, 20, 15))
    ]
    unsized = read_annotation(put("u.xml", voc(("x", 20, 10, 40, 30), size=(0, 0))))
    assert merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [unsized]), (100, 50))[0] == [
        Shape("x", (20, 10, 40, 30))
    ]
    for absurd in (float("inf"), 1e308, 1e-320, -100, float("nan")):
        nowhere = read_annotation(put("n.xml", voc(("x", 20, 10, 40, 30), size=(absurd, absurd))))
        assert nowhere.size is None
    other = read_annotation(put("o.xml", voc(size=(300, 300))))
    with pytest.raises(InputError, match=r"o\.xml.*300x300.*100x50"):
        merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [other]), (100, 50))


def test_what_is_clipped_loses_its_area_too() -> None:
    half_outside = Annotation(Path("a.json"), shapes=(Shape("x", (90, 0, 110, 20), 300.0),))
    (shape,), notes = merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [half_outside]), (100, 50))
    assert shape == Shape("x", (90, 0, 100, 20), 150.0) and len(notes) == 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_rotation_turns_the_boxes(tmp_path: Path, put: Callable, orientation: int) -> None:
    from PIL import ImageOps

    stored = Image.new("L", (100, 50))
    stored.paste(255, (10, 5, 30, 15))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    annotation = read_annotation(put("a.xml", voc(("x", 10, 5, 30, 15))))
    shapes, notes = merge_annotations(
        AnnotatedImage(tmp_path / "a.png", "a", [annotation]), upright.size, orientation
    )
    assert shapes[0].box == upright.getbbox()
    assert "EXIF" in notes[0]


def test_an_image_is_found_by_any_of_its_names(tmp_path: Path, put: Callable) -> None:
    for image in ("one/p.JPG", "two/p.jpg", "DJI.0001.png", "q.bmp", "lonely.jpg"):
        put(image)
    put("one/labels/p.xml", voc(filename="wrong"))
    put("two/labels/p.xml", voc(filename="p"))
    put("DJI.0001.xml", voc(filename="DJI.0001"))
    put("q_annotated.xml", voc(filename="D:\\photos\\Q.bmp"))
    source, problems = find_source(tmp_path)
    assert problems == []
    assert [image.key for image in source.images] == ["DJI.0001", "one/p", "q", "two/p"]
    assert [path.name for path in source.unannotated] == ["lonely.jpg"]


def test_folders_say_the_split_and_names_the_photo(tmp_path: Path, put: Callable) -> None:
    for name in ("train/tower_jpg.rf.0a", "valid/tower_jpg.rf.1b", "train/b", "more/c"):
        put(f"{name}.jpg")
        put(f"{name}.xml", voc(("rust", 1, 2, 30, 40)))
    source, problems = find_source(tmp_path)
    assert not problems
    assert {image.key: (image.group, image.split) for image in source.images} == {
        "train/tower_jpg.rf.0a": ("tower", "train"),
        "valid/tower_jpg.rf.1b": ("tower", "val"),
        "train/b": (None, "train"),
        "more/c": (None, None),
    }


def test_every_problem_is_reported(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("x/b.jpg")
    put("y/b.jpg")
    put("a.xml", voc())
    put("absent.xml", voc(filename="absent"))
    put("b.xml", voc())
    put("cut.xml", voc()[:40])
    _, problems = find_source(tmp_path)
    text = "\n".join(problems)
    assert len(problems) == 3
    assert "absent.xml: no picture named 'absent'" in text
    assert "b.xml: could belong to x/b.jpg and y/b.jpg" in text
    assert "cut.xml, line 1, column 38: not valid XML" in text and "cut short" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc(("a", 1, 2, 3, 4))[:-20], "line 1.*cut short"),
        ("", "cut short"),
        ("<html></html>", "not Pascal VOC"),
        ("<annotation><object><bndbox/></object></annotation>", "no <name>"),
        (voc(("a", 1, 2, "three", 4)), "no readable <xmax>"),
        (voc(("a", 1, 2, "nan", 4)), "no readable <xmax>"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation><filename>&c;</filename>'
            "</annotation>",
            "DOCTYPE",
        ),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not valid XML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(put: Callable, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_annotation(put("bad.xml", text))
    assert "bad.xml" in str(caught.value) and "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("xml") / "a.xml"
    file.write_bytes(data)
    try:
        read_annotation(file)
    except InputError as error:
        assert "a.xml" in str(error)


def test_folders_that_cannot_work(tmp_path: Path, put: Callable) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_source(tmp_path / "absent")
    with pytest.raises(InputError, match="no Pascal VOC annotations"):
        find_source(tmp_path)
    put("a.xml", voc())
    with pytest.raises(InputError, match="no pictures"):
        find_source(tmp_path)


def test_names_are_compared_plainly() -> None:
    assert plain_name("  Rolled-in_Scale ") == plain_name("rolled in scale") == "rolled in scale"


def test_real_cplid_and_neu(shared_data: Path) -> None:
    cplid, problems = find_source(shared_data / "cplid")
    assert problems == [] and len(cplid.images) == 106
    boxes = [shape.name for image in cplid.images for shape in merge_annotations(image, (1152, 864))[0]]
    assert (boxes.count("insulator"), boxes.count("defect")) == (136, 60)
    neu, problems = find_source(shared_data / "neu_det")
    assert problems == [] and len(neu.images) == 180


def test_voc_boxes_equal_coco_boxes(shared_data: Path) -> None:
    folder = shared_data / "formats"
    coco = json.loads((folder / "coco" / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    stems = {image["id"]: Path(image["file_name"]).stem for image in coco["images"]}
    expected = sorted(
        (stems[item["image_id"]], names[item["category_id"]], x, y, x + w, y + h)
        for item in coco["annotations"]
        for x, y, w, h in [item["bbox"]]
    )
    ours = sorted(
        (file.stem, shape.name, *shape.box)
        for file in (folder / "voc").glob("*.xml")
        for shape in read_annotation(file).shapes
    )
    assert ours == expected


def test_a_filename_of_another_image_is_noted(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    put("a.xml", voc(("insulator", 1, 2, 30, 40), filename="b.jpg"))
    put("b.xml", voc(("insulator", 1, 2, 30, 40), filename="gone.jpg"))
    source, problems = find_source(tmp_path)
    first, second = source.images
    assert not problems and [first.key, second.key] == ["a", "b"]
    (note,) = first.annotations[0].notes
    assert "'b.jpg'; taken for a.jpg" in note
    assert second.annotations[0].notes == ()


@pytest.mark.parametrize(
    ("stated", "upright", "orientation", "is_noted"),
    [
        ((50, 50), (50, 50), 6, True),
        ((100, 50), (100, 50), 3, True),
        (None, (50, 100), 6, True),
        ((50, 100), (50, 100), 6, False),
        ((100, 50), (50, 100), 6, False),  # turned along, which has a note of its own
        ((100, 50), (100, 50), 1, False),
    ],
)
def test_boxes_that_may_have_been_drawn_before_rotation_are_noted(
    stated: tuple[int, int] | None, upright: tuple[int, int], orientation: int, is_noted: bool
) -> None:
    annotation = Annotation(Path("a.xml"), "a.jpg", stated, (Shape("x", (1, 2, 30, 40)),))
    _, notes = merge_annotations(AnnotatedImage(Path("a.jpg"), "a", [annotation]), upright, orientation)
    assert any("does not tell" in note for note in notes) is is_noted


def test_the_layout_of_vocs_own_data(tmp_path: Path, put: Callable) -> None:
    """JPEGImages holds the photos; masks and drawings of the same name lie beside."""
    drawn = ("SegmentationClass", "SegmentationObject", "AnnotationsVisualization")
    for stem in "abcd":
        put(f"Annotations/{stem}.xml", voc(("x", 1, 2, 30, 40), filename=f"{stem}.jpg"))
        put(f"JPEGImages/{stem}.jpg")
        for folder in drawn:
            put(f"{folder}/{stem}.{'jpg' if folder == drawn[2] else 'png'}")
    put("SegmentationClass/lost.png")
    put("ImageSets/Main/train.txt", "a\nb\nd\n")
    put("ImageSets/Main/test.txt", "c\nd\nlost2\n")
    put("ImageSets/Main/trainval.txt", "a\nb\nc\n")
    put("ImageSets/Main/x_train.txt", "a 1\nb -1\n")
    source, problems = find_source(tmp_path)
    assert problems == []
    assert {image.key: image.split for image in source.images} == {
        "JPEGImages/a": "train",
        "JPEGImages/b": "train",
        "JPEGImages/c": "test",
        "JPEGImages/d": None,
    }
    assert [path.stem for path in source.unannotated] == ["lost"]
    lost, masks, several = source.notes
    assert "test.txt: 1 line(s) that name no picture here passed over, such as 'lost2'" in lost
    assert masks.startswith("12 picture(s) taken for masks of others")
    assert several.startswith("1 picture(s) are listed for several splits")


def test_a_mask_beside_its_photo_is_told_apart_by_the_filename(tmp_path: Path, put: Callable) -> None:
    put("a.xml", voc(("x", 1, 2, 30, 40), filename="a.jpg"))
    put("a.png")
    assert find_source(tmp_path)[0].images[0].file.name == "a.png"
    put("a.jpg")
    source, problems = find_source(tmp_path)
    assert problems == [] and source.images[0].file.name == "a.jpg"
    put("a.xml", voc(("x", 1, 2, 30, 40), filename="a"))
    _, problems = find_source(tmp_path)
    assert len(problems) == 1 and "could belong to a.jpg and a.png; give" in problems[0]


@pytest.mark.parametrize(
    "box",
    [
        "<robndbox><cx>50</cx><cy>25</cy><w>40</w><h>10</h><angle>1.5707963</angle></robndbox>",
        "<bndbox><xmin>30</xmin><ymin>20</ymin><xmax>70</xmax><ymax>30</ymax></bndbox><attributes>"
        "<attribute><name>occluded</name><value>False</value></attribute>"
        "<attribute><name>rotation</name><value>90.0</value></attribute></attributes>",
    ],
    ids=["roLabelImg", "CVAT"],
)
def test_the_angle_of_a_rotated_box(put: Callable, box: str) -> None:
    file = put("a.xml", f"<annotation><object><name>x</name>{box}</object></annotation>")
    annotation = read_annotation(file)
    (shape,) = annotation.shapes
    assert shape.box == pytest.approx((45, 5, 55, 45), abs=1e-3) and shape.area == pytest.approx(400)
    assert annotation.notes == (f"{file}: box 1 (x) is turned by 90 degrees; the box around it is taken",)
