"""Masks become regions, and the layout of MVTec AD becomes annotated images."""

import re
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape, merge_annotations
from data_prep.formats import READERS, find_reader, mvtec
from data_prep.formats.masks import SPECK, connected_regions, read_mask
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.settings import load_settings

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes an array (default: a grey image of 20x10) as an image below tmp_path."""

    def write(name: str, values: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 20), 90, np.uint8) if values is None else values).save(path)
        return path

    return write


def marked(
    *boxes: tuple[int, int, int, int], value: int = 255, size: tuple[int, int] = (20, 10)
) -> np.ndarray:
    values = np.zeros(size[::-1], np.uint8)
    for x1, y1, x2, y2 in boxes:
        values[y1:y2, x1:x2] = value
    return values


def read(folder: Path) -> AnnotatedSource:
    source, problems = mvtec.read(SourceFolder.scan(folder))
    assert problems == []
    return source


def annotated(source: AnnotatedSource, key: str) -> Annotation:
    (annotation,) = next(image for image in source.images if image.key == key).annotations
    return annotation


def flooded(mask: np.ndarray) -> list[tuple[tuple[float, ...], float]]:
    """The same regions, pixel by pixel."""
    open_pixels = set(zip(*np.nonzero(mask), strict=True))
    found = []
    while open_pixels:
        region, border = set(), [open_pixels.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            near = {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & open_pixels
            open_pixels -= near
            border.extend(near)
        ys, xs = zip(*region, strict=True)
        box = (float(min(xs)), float(min(ys)), float(max(xs) + 1), float(max(ys) + 1))
        found.append((box, float(len(region))))
    return found


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_regions_are_those_of_a_flood_fill(mask: np.ndarray) -> None:
    found, specks = connected_regions(mask)
    expected = flooded(mask)
    assert sorted(found) == sorted(region for region in expected if region[1] >= SPECK)
    assert specks == len(expected) - len(found)


def test_a_region_may_wind() -> None:
    mask = np.zeros((1024, 1024), bool)
    mask[::4] = True  # one snake: rows joined at alternating ends
    for number, row in enumerate(range(0, 1020, 4)):
        mask[row : row + 5, -1 if number % 2 else 0] = True
    assert connected_regions(mask) == ([((0, 0, 1024, 1021), float(mask.sum()))], 0)
    assert connected_regions(np.zeros((3, 3), bool)) == ([], 0)


def test_several_masks_of_an_image(tmp_path: Path, put: Put) -> None:
    """MVTec LOCO."""
    for name in ("train/good/000.png", "test/good/000.png", "test/logical/000.png", "test/logical/001.png"):
        put(f"box/{name}")
    put("box/ground_truth/logical/000/000.png", marked((2, 3, 7, 5)))
    put("box/ground_truth/logical/000/001.png", marked((12, 0, 20, 10), value=251))
    put("box/ground_truth/logical/001/000.png", marked((0, 0, 5, 5)))
    source = read(tmp_path)
    assert find_reader(SourceFolder.scan(tmp_path))[0] is mvtec
    boxes = {
        image.key: [shape.box for annotation in image.annotations for shape in annotation.shapes]
        for image in source.images
    }
    assert boxes == {
        "box/test/good/000": [],
        "box/test/logical/000": [(2, 3, 7, 5), (12, 0, 20, 10)],
        "box/test/logical/001": [(0, 0, 5, 5)],
        "box/train/good/000": [],
    }


def test_masks_inside_the_public_test(tmp_path: Path, put: Put) -> None:
    """MVTec AD 2, with sound pictures called as BeanTech calls them."""
    for name in ("train/ok/0.png", "test_public/ok/0.png", "test_public/bad/1.png"):
        put(f"can/{name}")
    put("can/test_public/ground_truth/bad/1_mask.png", marked((2, 3, 7, 5)))
    source = read(tmp_path)
    assert find_reader(SourceFolder.scan(tmp_path))[0] is mvtec
    assert annotated(source, "can/test_public/bad/1").shapes == (Shape("bad", (2, 3, 7, 5), 10),)
    assert annotated(source, "can/train/ok/0").labels == ()
    assert len(source.images) == 3


def test_the_layout_is_read(tmp_path: Path, put: Put) -> None:
    put("train/good/000.png")
    put("test/good/000.png")
    put("test/crack/000.png")
    put("test/crack/001.png")
    put("test/broken_edge/000.PNG")
    put("readme_picture.png")
    put("ground_truth/crack/000_mask.png", marked((2, 3, 7, 5), (12, 0, 20, 10)))
    put("ground_truth/broken_edge/000.png", marked((0, 0, 5, 5)))
    source = read(tmp_path)
    assert [image.key for image in source.images] == [
        "test/broken_edge/000",
        "test/crack/000",
        "test/crack/001",
        "test/good/000",
        "train/good/000",
    ]
    assert [path.name for path in source.unannotated] == ["readme_picture.png"]  # no mask among them
    assert annotated(source, "test/crack/000").shapes == (
        Shape("crack", (12, 0, 20, 10), 80),
        Shape("crack", (2, 3, 7, 5), 10),
    )
    assert annotated(source, "test/broken_edge/000").shapes == (Shape("broken_edge", (0, 0, 5, 5), 25),)
    for key in ("test/good/000", "train/good/000"):
        assert (
            annotated(source, key).shapes
            == annotated(source, key).labels
            == annotated(source, key).notes
            == ()
        )
    alone = annotated(source, "test/crack/001")
    assert alone.labels == ("crack",) and alone.shapes == () and "no mask" in alone.notes[0]
    assert {image.split for image in source.images} == {None}
    assert any("not taken as splits" in note for note in source.notes)


def test_several_categories_below_one_root(tmp_path: Path, put: Put) -> None:
    for category, box in (("bottle", (0, 0, 5, 5)), ("sets/cable", (5, 5, 20, 10))):
        put(f"{category}/train/good/000.png")
        put(f"{category}/test/bent/000.png")
        put(f"{category}/ground_truth/bent/000_mask.png", marked(box))
    source = read(tmp_path)
    assert annotated(source, "bottle/test/bent/000").shapes[0].box == (0, 0, 5, 5)
    assert annotated(source, "sets/cable/test/bent/000").shapes[0].box == (5, 5, 20, 10)
    assert len(source.images) == 4


@pytest.mark.parametrize(
    ("values", "boxes", "noted"),
    [
        (marked((2, 2, 9, 9), value=1), [(2, 2, 9, 9)], []),  # 0 and 1 are binary too
        (np.full((10, 20), 255, np.uint8), [(0, 0, 20, 10)], []),
        (marked((2, 2, 9, 9)) + marked((9, 2, 11, 9), value=100), [(2, 2, 9, 9)], ["not binary (3 "]),
        (marked((2, 2, 9, 9)) + marked((9, 2, 11, 9), value=128), [(2, 2, 11, 9)], ["not binary (3 "]),
        (marked((2, 2, 9, 9)) + marked((15, 5, 17, 7)), [(2, 2, 9, 9)], ["1 speck(s)"]),
        (marked((2, 2, 4, 4)), [], ["1 speck(s)", "marks nothing"]),
        (marked(), [], ["marks nothing"]),
        (marked((2, 2, 9, 9)).astype(np.uint16) * 257, [(2, 2, 9, 9)], []),
        (marked((2, 2, 9, 9)).astype(np.uint16) * 200 + 5, [(2, 2, 9, 9)], ["half of 65535"]),
        (np.dstack([marked((2, 2, 9, 9))] * 3), [(2, 2, 9, 9)], []),
        (marked((2, 2, 9, 9)) > 0, [(2, 2, 9, 9)], []),
    ],
)
def test_masks_as_they_are_in_the_wild(
    tmp_path: Path, put: Put, values: np.ndarray, boxes: list, noted: list[str]
) -> None:
    put("test/dent/1.png")
    put("ground_truth/dent/1_mask.png", values)
    annotation = annotated(read(tmp_path), "test/dent/1")
    assert [shape.box for shape in annotation.shapes] == boxes
    assert annotation.labels == (() if boxes else ("dent",))
    assert len(annotation.notes) == len(noted)
    assert all(part in note for part, note in zip(noted, annotation.notes, strict=True))


def test_masks_of_another_size(tmp_path: Path, put: Put) -> None:
    put("test/dent/1.png")
    put("ground_truth/dent/1_mask.png", marked((4, 4, 10, 8), size=(40, 20)))
    (image,) = read(tmp_path).images
    shapes, notes = merge_annotations(image, (20, 10))
    assert shapes == [Shape("dent", (2, 2, 5, 4), 6)] and "scaled" in notes[-1]
    put("ground_truth/dent/1_mask.png", marked((4, 4, 10, 8), size=(30, 30)))
    (image,) = read(tmp_path).images
    with pytest.raises(InputError, match="30x30"):
        merge_annotations(image, (20, 10))


def test_every_problem_is_a_line(tmp_path: Path, put: Put) -> None:
    for name in ("test/a/1.png", "test/a/2.png", "test/a/3.png", "test/good/4.png", "train/a/9.png"):
        put(name)
    put("ground_truth/a/1.png", marked((0, 0, 5, 5)))
    put("ground_truth/a/1_mask.png", marked((0, 0, 5, 5)))
    put("ground_truth/a/2_mask.png", marked((0, 0, 5, 5)))
    cut = tmp_path / "ground_truth" / "a" / "2_mask.png"
    cut.write_bytes(cut.read_bytes()[:50])
    put("ground_truth/a/3_mask.png").write_bytes(b"no picture")
    put("ground_truth/good/4_mask.png", marked((0, 0, 5, 5)))
    put("ground_truth/a/9_mask.png", marked((0, 0, 5, 5)))  # train has no masks
    _, problems = mvtec.read(SourceFolder.scan(tmp_path))
    for name, words in (
        ("a/1_mask.png", "second mask"),
        ("a/2_mask.png", "damaged or cut short"),
        ("a/3_mask.png", "not a picture"),
        ("good/4_mask.png", "a picture in good"),
        ("a/9_mask.png", "without its picture"),
    ):
        (line,) = [problem for problem in problems if name in problem.split(":")[0]]
        assert words in line and "\n" not in line
    assert len(problems) == 5


def test_folders_of_other_layouts(tmp_path: Path, put: Put) -> None:
    put("one/test/a.png")
    put("ground_truth.png")
    put("ground_truth/a/1.png")
    folder = SourceFolder.scan(tmp_path)
    assert mvtec.detect(folder) is None
    with pytest.raises(InputError, match="train/good or test/<defect>"):
        mvtec.read(SourceFolder.scan(tmp_path / "one"))


@given(st.data())
def test_any_mask_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    buffer = BytesIO()
    Image.fromarray(marked((1, 1, 6, 6))).save(
        buffer, format=data.draw(st.sampled_from(["PNG", "BMP", "TIFF"]))
    )
    content = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("mask") / "mask.png"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert connected_regions(read_mask(file) > 0)[1] >= 0
    except InputError as error:
        assert "mask.png" in str(error) and "\n" not in str(error)


def test_every_real_folder_has_its_own_reader(shared_data: Path) -> None:
    mine = {"mvtec": "magnetic_tile", "class_folders": "broken_unbroken", "visa": None, "idid": None}
    for path in sorted(path for path in shared_data.iterdir() if path.is_dir()):
        folder = SourceFolder.scan(path)
        for name, owner in mine.items():
            assert (READERS[name].detect(folder) is not None) == (path.name == owner), (name, path)


def test_real_magnetic_tiles(shared_data: Path) -> None:
    folder = SourceFolder.scan(shared_data / "magnetic_tile")
    assert find_reader(folder)[0] is mvtec
    source = read(folder.root)
    kinds = ("blowhole", "break", "crack", "fray", "uneven")
    assert len(source.images) == 150 and source.unannotated == ()
    for kind in kinds:
        of_kind = [p.annotations[0] for p in source.images if p.key.startswith(f"test/{kind}/")]
        assert len(of_kind) == 15
        assert {shape.name for annotation in of_kind for shape in annotation.shapes} == {kind}
        assert all("not binary" in annotation.notes[0] for annotation in of_kind)
    blowhole = annotated(source, "test/blowhole/exp1_num_308015")
    assert blowhole.size == (221, 272) and blowhole.shapes == (Shape("blowhole", (211, 189, 217, 198), 42),)
    # This mask marks one pixel in earnest.
    assert annotated(source, "test/uneven/exp3_num_24829").labels == ("uneven",)


def test_re_lit_tiles_stay_together(shared_data: Path, repo: Path) -> None:
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "magnetic_tile.yaml")
    assert recipe.group.pattern
    keys = [image.key for image in read(shared_data / "magnetic_tile").images]
    groups = {key: match.group(1) for key in keys if (match := re.search(recipe.group.pattern, key))}
    assert len(groups) == 150 and all(groups.values())
    of_number = {int(re.findall(r"\d+", key)[-1]): group for key, group in groups.items()}
    near = [(a, b) for a, b in pairwise(sorted(of_number)) if b - a <= 500]
    assert (24829, 25007) in near and (241913, 242089) in near and len(near) > 50
    assert all(of_number[a] == of_number[b] for a, b in near)
    assert len(set(groups.values())) > 25, "groups are not larger than they must be"
