"""What holds for all readers: the same boxes in every format, formats told apart, no error but InputError."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import Folder, Source, merge
from data_prep.formats import READERS, find_reader
from data_prep.formats.layout import claim
from llava.errors import InputError

SIX = ("voc", "coco", "yolo", "labelme", "cvat", "labelstudio")

# In pixels, 0 where not named. YOLO writes centre and size to six decimals of the picture's side: at 1152
# pixels an edge is off by at most 1.5 * 0.5e-6 * 1152 = 0.0009. CVAT writes hundredths, which hold the whole
# pixels drawn here, as VOC, COCO and LabelMe do; Label Studio's percents are doubles.
TOLERANCE = {"yolo": 1e-3, "labelstudio": 1e-9}


def read(folder: Path, format: str) -> Source:
    source, problems = READERS[format].read(Folder.scan(folder / format, folder / "images"))
    assert problems == []
    return source


def boxes(source: Source) -> Iterator[tuple[str, list[tuple[str, tuple[float, ...]]]]]:
    """Each picture's key with its merged boxes, in an order that rounding cannot change."""
    for picture in source.pictures:
        with Image.open(picture.file) as opened:
            shapes, notes = merge(picture, opened.size)
        assert notes == []
        yield picture.key, sorted((shape.name, shape.box) for shape in shapes)


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
    reader, _ = find_reader(Folder.scan(folder / format, folder / "images"))
    assert format == reader.NAME


def test_several_formats_in_one_folder_are_asked_about(shared_data: Path) -> None:
    with pytest.raises(InputError, match="choose one with --format") as caught:
        find_reader(Folder.scan(shared_data / "formats"))
    listed = str(caught.value).split("several ways (")[1].split("); choose")[0]
    assert [part.split(":")[0] for part in listed.split("; ")] == list(SIX)


def test_a_folder_of_no_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("tower 12\n")
    (tmp_path / "settings.json").write_text('{"version": 1}')
    (tmp_path / "settings.xml").write_text("<settings/>")
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="no annotations in a format known here"):
        find_reader(Folder.scan(tmp_path))


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
    folder = Folder.scan(root)
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
        ("tower.v1", "photos/Tower.v1.JPG", True),
        ("./day1/1.jpg", "D:\\photos\\day1\\1.jpg", True),
    ],
)
def test_one_picture_has_one_name_in_a_file(first: str, second: str, same: bool) -> None:
    owners: dict[Path, str] = {}
    claim(owners, Path("a.csv"), first, Path("1.jpg"))
    with nullcontext() if same else pytest.raises(InputError, match="would both be"):
        claim(owners, Path("a.csv"), second, Path("1.jpg"))
