"""YOLO labels with everything that real folders do to them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Shape, merge_annotations
from data_prep.formats import coco, yolo
from data_prep.formats.sizes import image_size
from data_prep.formats.yolo_data import DataSet, read_data_yaml, read_names
from data_prep.formats.yolo_labels import read_labels
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.images import open_image

NAMES = "names: [insulator, defect]\n"
BOX = "0 0.5 0.5 0.2 0.4\n"  # (40, 15, 60, 35) in an image of 100x50
DATA_SET = DataSet(Path("data.yaml"), {0: "insulator", 1: "defect"})

Put = Callable[..., Path]


def read(folder: Path, images: Path | None = None) -> tuple[AnnotatedSource, list[str]]:
    return yolo.read(SourceFolder.scan(folder, images))


def shapes_of(image: AnnotatedImage) -> list[Shape]:
    return [shape for annotation in image.annotations for shape in annotation.shapes]


def test_boxes_and_outlines_in_pixels(tmp_path: Path, put: Put) -> None:
    put("data.yaml", "nc: 2\n" + NAMES)
    put("images/a.jpg")
    put("labels/a.txt", f"{BOX}\n1 0.1 0.2 0.3 0.2 0.1 0.6\r\n1.0 1e-1 .1 0.05 0.1")
    source, problems = read(tmp_path)
    assert problems == [] and source.notes == ()
    (image,) = source.images
    assert image.annotations[0].size == (100, 50)
    assert shapes_of(image) == [
        Shape("insulator", (40, 15, 60, 35)),
        Shape("defect", (10, 10, 30, 30), pytest.approx(200)),
        Shape("defect", (7.5, 2.5, 12.5, 7.5)),
    ]


def test_shares_are_of_the_upright_image(tmp_path: Path, put: Put) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (100, 50)).save(put(name), exif=exif)
        assert image_size(tmp_path / name) == open_image(tmp_path / name).size == (50, 100)
    # PNG's EXIF may also lie behind the pixels.
    data = (tmp_path / "b.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    (tmp_path / "b.png").write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert image_size(tmp_path / "b.png") == open_image(tmp_path / "b.png").size == (50, 100)
    put("classes.txt", "insulator\n")
    put("a.txt", BOX)
    (image,) = read(tmp_path)[0].images
    assert shapes_of(image) == [Shape("insulator", (20, 30, 30, 70))]
    assert merge_annotations(image, (50, 100), orientation=6) == (shapes_of(image), [])


def test_boxes_are_put_right_and_reported(put: Put) -> None:
    labels = read_labels(put("a.txt", BOX + "1 .5 .5 -.2 .4\n0 .5 .5 0 .4\n" + BOX), DATA_SET)
    assert [shape.name for shape in labels.shapes] == ["insulator", "defect"]
    assert all(shape.box == pytest.approx((0.4, 0.3, 0.6, 0.7)) for shape in labels.shapes)
    assert len(labels.notes) == 3
    assert "a.txt, line 2 ('defect'): negative width" in labels.notes[0]
    assert "line 3 ('insulator'): the box has no width" in labels.notes[1]
    assert "line 4 ('insulator'): is there twice" in labels.notes[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{BOX}2 0.5 0.5 0.2 0.4", "line 2: class 2 is not among the 2 names in data.yaml"),
        ("-1 0.5 0.5 0.2 0.4", "line 1: class -1 is not"),
        ("0 50 25 20 20", "line 1: 50 is no share of a picture"),
        ("0 0.5 0.5 0.2", "line 1: neither a box"),
        ("0.5 0.5 0.5 0.2 0.4", "line 1: neither a box"),
        ("0 0.5 nan 0.2 0.4", "line 1: neither a box"),
        ("0 .1 .1 .2 .2 .3 .3 .9", "line 1: neither a box"),
        ("owl 0.5 0.5 0.2 0.4", "line 1: neither a box"),
        ("0 0.5 0.5 0.2 0.4 -1.57", "line 1: -1.57 after the box is no confidence .* the four corners"),
    ],
)
def test_a_bad_line_is_named(put: Put, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_labels(put("bad.txt", text), DATA_SET)
    assert "bad.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_confidences_and_keypoints_are_passed_over(tmp_path: Path, put: Put) -> None:
    put("data.yaml", NAMES + "kpt_shape: [2, 3]\n")
    put("images/a.jpg")
    put("images/b.jpg")
    put("labels/a.txt", BOX.strip() + " 0.87\n")
    put("labels/b.txt", BOX.strip() + " .1 .1 2 .2 .2 2\n")
    put("colours.yaml", "names: [red]\n")  # not YOLO's
    source, problems = read(tmp_path)
    assert problems == []
    box = [Shape("insulator", (40, 15, 60, 35))]
    assert [shapes_of(image) for image in source.images] == [box, box]
    assert "1 label file(s) hold a confidence, as predictions do, passed over" in source.notes[0]
    assert "1 label file(s) hold keypoints, passed over" in source.notes[1]
    with pytest.raises(InputError, match="neither a box"):
        read_labels(put("c.txt", "0 .1 .1 .2 .2 .3 .3"), DataSet(Path("d"), {0: "x"}, keypoints=6))


def test_ultralytics_layout(tmp_path: Path, put: Put) -> None:
    """Names shared by the splits, images without a label file, empty label files."""
    put("data.yaml", f"path: /home/someone/data\ntrain: images/train\nval: images/val\n{NAMES}")
    for split in ("train", "val"):
        put(f"images/{split}/1.jpg")
        put(f"images/{split}/nothing.jpg")
        put(f"labels/{split}/nothing.txt")
    put("labels/train/1.txt", BOX)
    put("labels/val/1.txt", "1" + BOX[1:])
    put("images/train/background.jpg")
    put("images/unlabelled/new.jpg")
    source, problems = read(tmp_path)
    assert problems == []
    found = {image.key: (image.split, shapes_of(image)) for image in source.images}
    assert found == {
        "images/train/1": ("train", [Shape("insulator", (40, 15, 60, 35))]),
        "images/train/background": ("train", []),
        "images/train/nothing": ("train", []),
        "images/val/1": ("val", [Shape("defect", (40, 15, 60, 35))]),
        "images/val/nothing": ("val", []),
    }
    # A folder without labels of its own was not looked at.
    assert [path.name for path in source.unannotated] == ["new.jpg"]
    assert len(source.notes) == 1
    assert "1 picture(s) without a label file are taken as pictures with nothing in them" in source.notes[0]
    assert "images/train/background" in source.notes[0]


def test_roboflow_layout(tmp_path: Path, put: Put) -> None:
    put("data.yaml", f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n{NAMES}")
    put("README.roboflow.txt", "insulators - v1\n")
    for folder in ("train", "valid"):
        put(f"{folder}/images/t1_jpg.rf.{folder}.jpg")
        put(f"{folder}/labels/t1_jpg.rf.{folder}.txt", BOX)
    source, problems = read(tmp_path)
    assert problems == []
    assert [(image.group, image.split) for image in source.images] == [("t1", "train"), ("t1", "val")]
    notes = "\n".join(source.notes)
    assert "test is '../test/images', where no pictures are" in notes
    assert "1 text file(s) that are no labels passed over, for instance README.roboflow.txt" in notes


def test_paths_of_data_yaml(tmp_path: Path, put: Put) -> None:
    """As written, from `path`, one folder too high, and of another machine, where only the names are left."""
    put("data.yaml", f"path: a/deep\ntrain: b\nval: [../c, /content/gone]\ntest: ./d/\n{NAMES}")
    for image in ("a/deep/b/1", "c/2", "d/3", "e/4"):
        put(f"{image}.jpg")
        put(f"{image}.txt", BOX)
    source, problems = read(tmp_path)
    assert problems == []
    assert [image.split for image in source.images] == ["train", "val", "test", None]
    assert len(source.notes) == 1 and "val is '/content/gone', where no pictures are" in source.notes[0]


def test_labels_beside_images(tmp_path: Path, put: Put) -> None:
    """labelImg and darknet: an image without a file is one that nobody looked at yet."""
    put("obj.names", "insulator\ndefect\n\n")
    put("photos/a.jpg")
    put("photos/a.txt", BOX)
    put("photos/later.jpg")
    source, problems = read(tmp_path)
    assert problems == [] and source.notes == ()
    assert [image.key for image in source.images] == ["photos/a"]
    assert [path.name for path in source.unannotated] == ["later.jpg"]


def test_images_in_a_folder_of_their_own(tmp_path: Path, put: Put) -> None:
    put("set/data.yaml", NAMES + "train: ../photos\n")
    put("photos/a.jpg")
    put("photos/b.jpg")
    put("set/labels/a.txt", BOX)
    source, problems = read(tmp_path / "set", tmp_path / "photos")
    assert problems == []
    assert [(image.key, image.split, len(shapes_of(image))) for image in source.images] == [
        ("a", "train", 1),
        ("b", "train", 0),
    ]


def test_splits_by_lists_and_by_folders(tmp_path: Path, put: Put) -> None:
    put("data.yaml", f"train: [train.txt]\nval: images/b\ntest: images/b\n{NAMES}")
    put("train.txt", "./images/a/1.jpg\n/somewhere/images/a/lost.jpg\n\n")
    for name in ("a/1", "b/2", "test/3"):
        put(f"images/{name}.jpg")
        put(f"labels/{name}.txt", BOX)
    source, problems = read(tmp_path)
    assert problems == []
    assert [image.split for image in source.images] == ["train", None, "test"]
    assert "1 picture(s) are listed for several splits" in "\n".join(source.notes)
    lost = (
        "train.txt: 1 line(s) that name no picture here passed over, such as '/somewhere/images/a/lost.jpg'"
    )
    assert any(note.endswith(lost) for note in source.notes)


def test_missing_images_are_problems_and_never_their_namesakes(tmp_path: Path, put: Put) -> None:
    put("data.yaml", NAMES)
    put("images/train/1.jpg")
    put("images/val/2.jpg")
    put("images/val/3.jpg")
    put("images/val/3.png")
    put("labels/train/1.txt", BOX)
    put("labels/train/2.txt", BOX)
    put("labels/val/3.txt", BOX)
    put("labels/other/lost.txt", BOX)
    _, problems = read(tmp_path)
    assert len(problems) == 3
    assert "lost.txt: no picture named 'lost'" in problems[0]
    assert "2.txt: no picture named '2' in" in problems[1] and problems[1].endswith("images/train")
    assert "3.txt: could belong to" in problems[2]


def test_an_image_elsewhere_is_found_by_its_name(tmp_path: Path, put: Put) -> None:
    put("labels/classes.txt", "insulator")  # labelImg puts it there
    put("photos/2024/A.jpg")
    put("results.png")
    put("labels/a.txt", BOX)
    source, problems = read(tmp_path)
    assert problems == []
    assert [image.key for image in source.images] == ["photos/2024/A"]


def test_a_damaged_image_is_a_problem(tmp_path: Path, put: Put) -> None:
    put("classes.txt", "insulator")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    put("a.txt", BOX)
    _, problems = read(tmp_path)
    assert len(problems) == 1 and "a.jpg: not a picture" in problems[0]


def test_class_names_as_they_are_written(put: Put) -> None:
    """YAML 1.1 would make a truth value, a number and nothing of these."""
    data = read_data_yaml(put("data.yaml", "nc: 5\nnames: {0: no, 2: 1e3, 1: null, 7: ' rust '}\n"))
    assert data is not None and data.names == {0: "no", 2: "1e3", 1: "null", 7: "rust"}
    assert "nc is '5', but there are 4 names" in data.notes[0]
    assert read_names(put("classes.txt", "a\r\nb c\r\n\r\n")).names == {0: "a", 1: "b c"}


def test_the_nearest_names_count(tmp_path: Path, put: Put) -> None:
    put("classes.txt", "mast\n")
    put("north/classes.txt", "insulator\n")
    put("south/classes.txt", "defect\n")
    for folder in ("north", "south"):
        put(f"{folder}/a.jpg")
        put(f"{folder}/a.txt", BOX)
    source, _ = read(tmp_path)
    assert [shapes_of(image)[0].name for image in source.images] == ["insulator", "defect"]
    put("data.yaml", NAMES + "nc: 2\n")
    source, problems = read(tmp_path)
    assert problems == [] and {shapes_of(image)[0].name for image in source.images} == {"insulator"}
    assert [note for note in source.notes if "classes.txt: differs from" in note] == list(source.notes)
    put("other.yaml", "names: [mast]\nnc: 1\n")
    _, problems = read(tmp_path)
    assert len(problems) == 2 and all("or of" in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\nnc: 1", "not valid YAML"),
        ("names: a\nnc: 1", "must be a list of names"),
        ("names: {one: a}\nnc: 1", "must be a list of names"),
        ("names: [a, '']\nnc: 1", "must be a list of names"),
        ("names: [[a]]\nnc: 1", "must be a list of names"),
        ("names: [a]\nkpt_shape: 17\nnc: 1", "kpt_shape"),
    ],
)
def test_a_bad_data_yaml_is_one_line(put: Put, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_data_yaml(put("data.yaml", text))
    assert "data.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_cannot_work(tmp_path: Path, put: Put) -> None:
    put("readme.txt", "hello")
    with pytest.raises(InputError, match="no YOLO labels"):
        read(tmp_path)
    put("labels/a.txt", BOX)
    with pytest.raises(InputError, match="no pictures"):
        read(tmp_path)
    put("images/a.jpg")
    with pytest.raises(InputError, match=r"without class names; add a data\.yaml"):
        read(tmp_path)


def test_detect(tmp_path: Path, put: Put) -> None:
    folder = SourceFolder.scan
    put("photo.jpg")
    put("readme.txt", "0 0.5 0.5 0.2 0.4")  # no image has its name
    put("data.yaml", NAMES)
    assert yolo.detect(folder(tmp_path)) is None
    put("photo.txt", "an insulator on a mast")  # a caption
    assert yolo.detect(folder(tmp_path)) is None
    put("photo.txt", "0 345 200 80 90")  # pixels: `read` says what is wrong
    assert yolo.detect(folder(tmp_path)) is not None
    (tmp_path / "data.yaml").rename(tmp_path / "other.yaml.txt")
    assert yolo.detect(folder(tmp_path)) is None
    (tmp_path / "other.yaml.txt").rename(tmp_path / "data.yaml")
    put("photo.txt", "\n" + BOX)
    assert yolo.detect(folder(tmp_path)) == "1 label file(s) (*.txt) and the names of their classes"
    put("photo.txt", "0 .5 .5 .2 .2 .1 .1 2")  # a keypoint
    assert yolo.detect(folder(tmp_path))


def test_detect_a_labels_folder(tmp_path: Path, put: Put) -> None:
    put("labels/a.txt", "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56")
    assert yolo.detect(SourceFolder.scan(tmp_path)) is None  # KITTI
    put("labels/a.txt")
    assert yolo.detect(SourceFolder.scan(tmp_path)) is None  # empty files alone say nothing
    put("labels/b.txt", BOX)
    assert yolo.detect(SourceFolder.scan(tmp_path)) == "2 label file(s) (*.txt)"


LINES = st.lists(st.lists(st.integers(0, 3) | st.floats(-3, 3) | st.floats() | st.text(max_size=4)))


@given(
    st.binary(max_size=200)
    | LINES.map(
        lambda lines: "\n".join(" ".join(map(str, line)) for line in lines).encode("utf-8", "replace")
    )
)
def test_any_labels_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "a.txt").write_bytes(data)
    (folder / "classes.txt").write_text("insulator\ndefect\n")
    Image.new("L", (3, 2)).save(folder / "a.png")
    yolo.detect(SourceFolder.scan(folder))
    source, problems = read(folder)
    assert len(source.images) + len(problems) == 1
    for problem in problems:
        assert "a.txt" in problem and "\n" not in problem
    for image in source.images:
        merge_annotations(image, (3, 2))


KEYS = ["names", "nc", "path", "train", "val", "kpt_shape", "x"]
PLAIN = st.none() | st.integers(-2, 9) | st.floats() | st.text(max_size=6)
YAML_VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(PLAIN, PLAIN, max_size=3)


@given(
    st.binary(max_size=200).map(lambda data: b"names: [a]\nnc: 1\n" + data)
    | st.dictionaries(st.sampled_from(KEYS), YAML_VALUES).map(
        lambda value: "\n".join(f"{key}: {part!r}" for key, part in value.items()).encode("utf-8", "replace")
    )
)
def test_any_data_yaml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "data.yaml").write_bytes(data)
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.4")
    Image.new("L", (3, 2)).save(folder / "a.png")
    yolo.detect(SourceFolder.scan(folder))
    try:
        read(folder)
    except InputError as error:
        assert "\n" not in str(error)


def test_real_labels_are_the_boxes_of_coco(shared_data: Path) -> None:
    images = shared_data / "formats" / "images"
    source, problems = read(shared_data / "formats" / "yolo", images)
    assert problems == [] and len(source.images) == 12
    assert (
        "12 picture(s) are listed for several splits" in source.notes[0]
    )  # its train and val are one folder
    expected, _ = coco.read(SourceFolder.scan(shared_data / "formats" / "coco", images))
    for ours, theirs in zip(source.images, expected.images, strict=True):
        assert ours.file == theirs.file and shapes_of(ours) == shapes_of(theirs)


@pytest.mark.parametrize(
    "name", ["predefined_classes.txt", "data/predefined_classes.txt", "coco.names", "labels/labels.txt"]
)
def test_lists_of_names_by_other_names(tmp_path: Path, put: Put, name: str) -> None:
    put(name, "insulator\ndefect\n")
    put("a.jpg")
    put("a.txt", BOX)
    source, problems = read(tmp_path)
    assert yolo.detect(SourceFolder.scan(tmp_path)) and problems == [] and source.notes == ()
    assert [shape.name for shape in shapes_of(source.images[0])] == ["insulator"]
    put("label.txt", "a.jpg 0\n")
    assert read(tmp_path)[0].images[0].annotations == source.images[0].annotations
    if name.endswith(".txt"):  # labelImg's choice of names says less than what it saved
        put("classes.txt", "nest\ndefect\n")
        assert [shape.name for shape in shapes_of(read(tmp_path)[0].images[0])] == ["nest"]


@pytest.mark.parametrize(
    "line",
    [
        "0,0.5,0.5,0.2,0.4",
        "0, 0.5, 0.5, 0.2, 0.4,",
        "0;0.5;0.5;0.2;0.4",
        "0 0.5,0.5 0.2,0.4",
        "0 0,5 0,5 0,2 0,4",
        "0;0,5;0,5;0,2;0,4",
        "Insulator,.5,.5,.2,.4",
        "insulator 0.5 0.5 0.2 0.4",
    ],
)
def test_lines_as_people_write_them(tmp_path: Path, put: Put, line: str) -> None:
    put("data.yaml", NAMES)
    put("images/a.jpg")
    put("labels/a.txt", line)
    assert yolo.detect(SourceFolder.scan(tmp_path))
    source, problems = read(tmp_path)
    assert problems == [] and shapes_of(source.images[0]) == [Shape("insulator", (40, 15, 60, 35))]
    assert any("commas between numbers" in note for note in source.notes) == ("," in line or ";" in line)


def test_one_file_that_is_no_label_does_not_hide_the_others(tmp_path: Path, put: Put) -> None:
    put("data.yaml", NAMES)
    for stem in "abc":
        put(f"images/{stem}.jpg")
        put(f"labels/{stem}.txt", BOX if stem != "a" else "to do")
    assert yolo.detect(SourceFolder.scan(tmp_path))
    _, problems = read(tmp_path)
    assert len(problems) == 1 and "a.txt, line 1: neither a box" in problems[0]


CORNERS = [(0, 0, 10, 20), (70, 30, 98, 48), (2, 5, 90, 45), (60, 1, 99, 9)]  # in 100 x 50
WRITTEN = {
    "centre x, centre y, width, height": lambda x1, y1, x2, y2: (
        (x1 + x2) / 2,
        (y1 + y2) / 2,
        x2 - x1,
        y2 - y1,
    ),
    "left, top, width, height": lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    "left, top, right, bottom": lambda *corners: corners,
}


@pytest.mark.parametrize("order", WRITTEN)
def test_pixels_are_read_where_only_one_order_fits_the_pictures(tmp_path: Path, put: Put, order: str) -> None:
    put("data.yaml", NAMES)
    for number, corners in enumerate(CORNERS):
        Image.new("L", (300, 150)).save(put(f"images/{number}.png"))
        values = WRITTEN[order](*(3 * corner for corner in corners))
        put(f"labels/{number}.txt", f"0 {' '.join(map(str, values))}")
    source, problems = read(tmp_path)
    assert problems == []
    assert [shapes_of(image)[0].box for image in source.images] == [
        tuple(3 * corner for corner in corners) for corners in CORNERS
    ]
    assert f"4 label file(s) are in pixels, read as class, {order}:" in source.notes[0]


def test_outlines_in_pixels_have_one_meaning(tmp_path: Path, put: Put) -> None:
    put("data.yaml", NAMES)
    Image.new("L", (300, 150)).save(put("images/a.png"))
    put("labels/a.txt", "0 30 30 240 30 240 120")
    source, problems = read(tmp_path)
    assert problems == []
    assert shapes_of(source.images[0]) == [Shape("insulator", (30, 30, 240, 120), 210 * 90 / 2)]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("0 50 25 20 20", "(centre x, centre y, width, height) and as (left, top, width, height)"),
        ("0 10 10 20 20", "(left, top, width, height) and as (left, top, right, bottom)"),
        ("0 500 25 20 20", "as pixels no order of them fits"),
        ("0 50 25 0.2 0.2", "as pixels no order of them fits"),
        ("0 45 35 90 30\n0 45 35 90 28\n0 45 35 90 26", "could be read as (centre"),  # or percents
    ],
)
def test_pixels_that_may_mean_something_else_are_refused(
    tmp_path: Path, put: Put, lines: str, why: str
) -> None:
    put("data.yaml", NAMES)
    put("images/a.jpg")
    put("labels/a.txt", lines)
    source, problems = read(tmp_path)
    (problem,) = problems
    assert "a.txt, line 1: " in problem and "is no share of a picture" in problem and why in problem
    assert not source.images
