"""What holds for all readers: the same boxes in every format, formats told apart, no error but InputError."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.example_sources import write_examples
from data_prep.annotations import AnnotatedSource, merge_annotations
from data_prep.commands.convert import read_sources
from data_prep.formats import READERS, find_reader
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import NoImageError, SourceFolder
from llava.common.errors import InputError
from llava.common.settings import load_settings

SIX = ("voc", "coco", "yolo", "labelme", "cvat", "labelstudio")

# In pixels, 0 where not named. YOLO writes centre and size to six decimals of the image's side: at 1152
# pixels an edge is off by at most 1.5 * 0.5e-6 * 1152 = 0.0009. CVAT writes hundredths, which hold the whole
# pixels drawn here, as VOC, COCO and LabelMe do; Label Studio's percents are doubles.
TOLERANCE = {"yolo": 1e-3, "labelstudio": 1e-9}


def read(folder: Path, format: str) -> AnnotatedSource:
    source, problems = READERS[format].read(SourceFolder.scan(folder / format, folder / "images"))
    assert problems == []
    return source


def boxes(source: AnnotatedSource) -> Iterator[tuple[str, list[tuple[str, tuple[float, ...]]]]]:
    """Each image's key with its merged boxes, in an order that rounding cannot change."""
    for image in source.images:
        with Image.open(image.file) as opened:
            shapes, notes = merge_annotations(image, opened.size)
        assert notes == []
        yield image.key, sorted((shape.name, shape.box) for shape in shapes)


@pytest.mark.parametrize("format", [format for format in SIX if format != "voc"])
def test_six_formats_give_the_same_boxes(shared_data: Path, format: str) -> None:
    folder = shared_data / "formats"
    expected, ours = (dict(boxes(read(folder, name))) for name in ("voc", format))
    assert len(expected) == 12 and sum(map(len, expected.values())) == 24
    assert ours.keys() == expected.keys()
    for key, known in expected.items():
        assert [name for name, _ in ours[key]] == [name for name, _ in known]
        for (_, box), (_, right) in zip(ours[key], known, strict=True):
            assert box == pytest.approx(right, abs=TOLERANCE.get(format, 0), rel=0), key


@pytest.mark.parametrize("format", SIX)
def test_each_format_is_known_by_its_files(shared_data: Path, format: str) -> None:
    folder = shared_data / "formats"
    reader, _ = find_reader(SourceFolder.scan(folder / format, folder / "images"))
    assert format == reader.NAME


def test_examples_of_all_formats_are_known(tmp_path: Path) -> None:
    """No reader claims what another's tool writes."""
    pytest.importorskip("pyarrow", reason="the example of tables has a Parquet file")
    write_examples(tmp_path)
    folders = {path.name: SourceFolder.scan(path) for path in tmp_path.iterdir()}
    assert folders.keys() == READERS.keys() - {"class_folders"}
    assert {name: find_reader(folder)[0].NAME for name, folder in folders.items()} == {
        name: name for name in folders
    }


def test_several_formats_in_one_folder_are_asked_about(shared_data: Path) -> None:
    with pytest.raises(InputError, match="choose one with --format") as caught:
        find_reader(SourceFolder.scan(shared_data / "formats"))
    listed = str(caught.value).split("several ways (")[1].split("); choose")[0]
    assert [part.split(":")[0] for part in listed.split("; ")] == list(SIX)


def test_a_folder_of_no_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("tower 12\n")
    (tmp_path / "settings.json").write_text('{"version": 1}')
    (tmp_path / "settings.xml").write_text("<settings/>")
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="no annotations in a format known here"):
        find_reader(SourceFolder.scan(tmp_path))


@settings(max_examples=40)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from(
        [b"", b"<annotations>", b"<annotation>", b'{"shapes": [', b'[{"data": {', b'{"images": [']
    ),
    name=st.sampled_from(["a.json", "a.xml", "a.txt", "data.yaml", "a.csv"]),
)
def test_any_bytes_in_any_file_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes, name: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / name).write_bytes(start + data)
    Image.new("L", (9, 9)).save(root / "a.png")
    folder = SourceFolder.scan(root)
    for reader in READERS.values():
        reader.detect(folder)
        try:
            reader.read(folder)
        except InputError as error:
            assert str(root) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("day1/1.jpg", "day2/1.jpg", False),
        ("1.jpg", "1.png", False),
        ("1.jpg", "1", True),
        ("photos/1", "photos/1.JPG", True),
        ("./day1/1.jpg", "D:\\photos\\day1\\1.jpg", True),
    ],
)
def test_one_image_has_one_name_in_a_file(
    tmp_path: Path, put: Callable, first: str, second: str, same: bool
) -> None:
    put("pictures/1.jpg")
    folder = SourceFolder.scan(tmp_path)
    owners: dict[Path, str] = {}
    folder.image_of(tmp_path / "a.csv", first, owners=owners)
    with nullcontext() if same else pytest.raises(InputError, match="would both be"):
        folder.image_of(tmp_path / "a.csv", second, owners=owners)


@pytest.mark.parametrize(
    ("file", "written", "image"),
    [
        ("Annotations/1.xml", "1.jpg", "JPEGImages/1.jpg"),
        ("labels/1.txt", "1", "images/1.jpg"),
        ("valid/json/1.json", "..\\images\\1.jpg", "valid/images/1.jpg"),
        ("valid/labels/1.txt", "1", "images/1.jpg"),
        ("labels/1.txt", "1", "train/1.jpg"),
        ("a.xml", "C:\\photos\\1.jpg", "images/1.jpg"),
        ("a.json", "/home/me/test/photos/1.jpg", "images/1.jpg"),
        ("a.json", "s3://bucket/day2/1.jpg", "images/1.jpg"),
        ("valid/1.json", "D:\\train\\1.jpg", "valid/1.jpg"),  # moved together
        ("more/1.json", "../day1/1.jpg", "more/1.jpg"),  # so here, though there are others in day1
        ("a.csv", "other/day1/1.jpg", "day1/1.jpg"),
    ],
)
def test_an_image_that_lies_elsewhere_is_found(
    tmp_path: Path, put: Callable, file: str, written: str, image: str
) -> None:
    expected = put(image)
    put("day1/2.jpg")
    assert SourceFolder.scan(tmp_path).image_of(tmp_path / file, written) == expected


@pytest.mark.parametrize(
    ("file", "written", "image", "why"),
    [
        ("valid/labels/1.txt", "1", "train/images/1.jpg", "is of the split train, not val"),
        ("valid/1.xml", "C:\\photos\\1.jpg", "train/1.jpg", "is of the split train, not val"),
        ("a.json", "val2017/1.jpg", "train2017/1.jpg", "is of the split train, not val"),
        ("a.csv", "day1/1.jpg", "day2/1.jpg", "there are pictures in a folder 'day1' too"),
        ("a.csv", "D:\\x\\Day1\\1.jpg", "1.jpg", "there are pictures in a folder 'day1' too"),
        ("day1/a.csv", "day1/1.jpg", "day1/old/1.jpg", "there are pictures in a folder 'day1' too"),
    ],
)
def test_a_missing_image_is_not_its_namesake(
    tmp_path: Path, put: Callable, file: str, written: str, image: str, why: str
) -> None:
    put(image)
    put("day1/2.jpg")
    with pytest.raises(NoImageError) as caught:
        SourceFolder.scan(tmp_path).image_of(tmp_path / file, written)
    assert str(caught.value).startswith(f"{tmp_path / file}: no picture '")
    assert f"found only {image}, " in str(caught.value) and str(caught.value).endswith(why)


def test_of_several_namesakes_those_of_another_split_do_not_count(tmp_path: Path, put: Callable) -> None:
    put("train/1.jpg")
    put("test/1.jpg")
    expected = put("more/1.jpg")
    folder = SourceFolder.scan(tmp_path)
    assert folder.image_of(tmp_path / "valid" / "1.xml", "1") == expected
    assert folder.image_of(tmp_path / "a.json", "1.jpg", split="test") == tmp_path / "test/1.jpg"


@pytest.mark.parametrize(
    ("format", "file", "content"),
    [
        ("yolo", "valid/labels/1.txt", "0 0.5 0.5 0.2 0.4"),
        (
            "voc",
            "valid/1.xml",
            "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>",
        ),
        ("labelme", "valid/1.json", {"shapes": [], "imagePath": "1.jpg"}),
        (
            "labelstudio",
            "valid/a.json",
            [{"id": 1, "annotations": [{"result": []}], "data": {"image": "1.jpg"}}],
        ),
        ("cvat", "valid/a.xml", "<annotations><image name='1.jpg'/></annotations>"),
        (
            "coco",
            "valid/a.json",
            {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": []},
        ),
        ("idid", "valid/a.json", [{"filename": "1.jpg", "Labels": {"objects": []}}]),
        ("table", "valid/a.csv", "image,question,answer\n1.jpg,Broken?,no\n"),
        (
            "llava",
            "valid/a.json",
            [
                {
                    "image": "1.jpg",
                    "conversations": [
                        {"from": "human", "value": "<image>\nq"},
                        {"from": "gpt", "value": "a"},
                    ],
                }
            ],
        ),
    ],
)
def test_every_reader_refuses_a_namesake_of_another_split(
    tmp_path: Path, put: Callable, format: str, file: str, content: object
) -> None:
    put("train/images/1.jpg")
    put("data.yaml", "names: [a]")
    path = put(file, content)
    source, problems = READERS[format].read(SourceFolder.scan(tmp_path))
    assert len(problems) == 1 and problems[0].startswith(str(path)) and not source.images
    assert "found only train/images/1.jpg, which is of the split train, not val" in problems[0]
    path.rename(tmp_path / path.name)
    source, problems = READERS[format].read(SourceFolder.scan(tmp_path))
    assert not problems and len(source.images) == 1


def test_every_unknown_class_is_named_at_once(
    tmp_path: Path, repo: Path, put: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    box = {"shape_type": "rectangle", "points": [[1, 1], [30, 30]]}
    labels = {"a": ["nest", "Owl", "owl"], "b": ["owl", "kite", "insulator"]}
    for stem, names in labels.items():
        put(f"photos/{stem}.jpg")
        put(
            f"photos/{stem}.json",
            {"imagePath": f"{stem}.jpg", "shapes": [box | {"label": name} for name in names]},
        )
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "insulator.yaml")
    with pytest.raises(InputError, match=r"2 class\(es\) are not in the recipe .*nothing was written"):
        read_sources([SourceFolder.scan(tmp_path / "photos")], recipe, "auto")
    first, second = capsys.readouterr().err.splitlines()
    assert "a.json: class 'Owl' is not in the recipe (3 time(s), here first; it knows insulator" in first
    assert "b.json: class 'kite' is not in the recipe (1 time(s)" in second
    put("photos/b.json", {"imagePath": "b.jpg", "shapes": []})
    with pytest.raises(
        InputError, match=r"a\.json: class 'Owl' is not in .* \(2 time.*; add it to the aliases"
    ):
        read_sources([SourceFolder.scan(tmp_path / "photos")], recipe, "auto")
