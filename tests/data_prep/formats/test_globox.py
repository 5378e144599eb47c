"""Our boxes against those of globox (https://github.com/laclouis5/globox), box for box, on the real data.

What globox cannot do, and how it is compared all the same:

- It tells images apart by the `<filename>` of a VOC file, and refuses a set in which two files have the
  same (CPLID's two files for one image): files of a single image are compared one by one.
- It keeps a box that a file holds twice (NEU-DET has one); here it is one box.
- It gives YOLO's classes as their numbers, which are looked up in data.yaml here.
- It reads no Label Studio, and of CVAT boxes only.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats import READERS
from data_prep.formats.sizes import image_size
from data_prep.formats.yolo_data import read_data_yaml
from data_prep.source_folder import SourceFolder

globox = pytest.importorskip("globox", reason="globox is absent; to compare with it: pip install globox")

TOLERANCE = 0.01  # pixels: the six digits of a fraction of the image say no more


def read(shared_data: Path, folder: str, format: str) -> AnnotatedSource:
    images = shared_data / "formats" / "images" if folder.startswith("formats/") else None
    source, problems = READERS[format].read(SourceFolder.scan(shared_data / folder, images))
    assert problems == [] and source.images
    return source


def shapes_by_file(source: AnnotatedSource) -> dict[Path, tuple[Shape, ...]]:
    """The shapes of each annotation file, for formats with a file per image."""
    found = {item.file: item.shapes for image in source.images for item in image.annotations}
    assert len(found) == sum(len(image.annotations) for image in source.images)
    return found


def shapes_by_image(source: AnnotatedSource) -> dict[tuple[Path, str], tuple[Shape, ...]]:
    """The shapes of each (annotation file, name of an image in it)."""
    return {(item.file, item.image): item.shapes for image in source.images for item in image.annotations}


def assert_same(ours: Iterable[Shape], theirs: Iterable[Any], names: Mapping[str, str] | None = None) -> int:
    """Each of our boxes is one of theirs and the other way round; returns how many there are. A box that a
    file holds twice is one box to us."""
    left = sorted((shape.name, *shape.box) for shape in ours)
    right = sorted({(names[box.label] if names else box.label, *box.ltrb) for box in theirs})
    assert [name for name, *_ in left] == [name for name, *_ in right]
    for (_, *our_box), (_, *their_box) in zip(left, right, strict=True):
        assert our_box == pytest.approx(their_box, abs=TOLERANCE)
    return len(left)


@pytest.mark.parametrize(("folder", "boxes"), [("cplid", 196), ("neu_det", 447), ("formats/voc", 24)])
def test_voc(shared_data: Path, folder: str, boxes: int) -> None:
    found = shapes_by_file(read(shared_data, folder, "voc"))
    total = sum(
        assert_same(shapes, globox.Annotation.from_pascal_voc(file).boxes) for file, shapes in found.items()
    )
    assert total == boxes


@pytest.mark.parametrize(("folder", "boxes"), [("roboflow_coco", 427), ("formats/coco", 24)])
def test_coco(shared_data: Path, folder: str, boxes: int) -> None:
    found = shapes_by_image(read(shared_data, folder, "coco"))
    total = 0
    for file in (shared_data / folder).rglob("*.json"):
        for theirs in globox.AnnotationSet.from_coco(file):
            total += assert_same(found.pop((file, theirs.image_id)), theirs.boxes)
    assert total == boxes and found == {}


def test_yolo(shared_data: Path) -> None:
    folder = shared_data / "formats"
    found = shapes_by_image(read(shared_data, "formats/yolo", "yolo"))
    data_set = read_data_yaml(folder / "yolo" / "data.yaml")
    assert data_set is not None
    names = {str(index): name for index, name in data_set.names.items()}
    labels = folder / "yolo" / "labels"
    total = 0
    for theirs in globox.AnnotationSet.from_yolo_v5(labels, image_folder=folder / "images"):
        file = labels / Path(theirs.image_id).with_suffix(".txt")
        total += assert_same(found.pop((file, theirs.image_id)), theirs.boxes, names)
    assert total == 24 and found == {}


def test_labelme(shared_data: Path) -> None:
    found = shapes_by_file(read(shared_data, "formats/labelme", "labelme"))
    total = sum(
        assert_same(shapes, globox.Annotation.from_labelme(file, include_poly=True).boxes)
        for file, shapes in found.items()
    )
    assert total == 24


def test_cvat(shared_data: Path) -> None:
    found = shapes_by_image(read(shared_data, "formats/cvat", "cvat"))
    file = shared_data / "formats" / "cvat" / "annotations.xml"
    total = 0
    for theirs in globox.AnnotationSet.from_cvat(file):
        total += assert_same(found.pop((file, theirs.image_id)), theirs.boxes)
    assert total == 24 and found == {}


@pytest.mark.parametrize("format", ["yolo", "yolo_outlines"])
def test_yolo_of_our_own_making(tmp_path: Path, format: str) -> None:
    """The real YOLO labels are few and plain: random ones, with outlines too."""
    random = Random(format)
    labels = tmp_path / "labels"
    labels.mkdir()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for number in range(30):
        size = (random.randint(20, 3000), random.randint(20, 3000))
        Image.new("1", size).save(tmp_path / f"{number}.png")
        count = 4 if format == "yolo" else 2 * random.randint(3, 12)
        lines = [
            [random.randint(0, 1), *(round(random.uniform(0.01, 1), 6) for _ in range(count))] for _ in "12"
        ]
        (labels / f"{number}.txt").write_text("\n".join(" ".join(map(str, line)) for line in lines))
    source, problems = READERS["yolo"].read(SourceFolder.scan(tmp_path))
    assert problems == [] and len(source.images) == 30
    parse = globox.Annotation.from_yolo_v5 if format == "yolo" else globox.Annotation.from_yolo_seg
    for file, shapes in shapes_by_file(source).items():
        (size,) = {image_size(tmp_path / f"{file.stem}.png")}
        assert_same(shapes, parse(file, image_size=size).boxes, {"0": "a", "1": "b"})
