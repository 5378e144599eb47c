"""COCO with everything that real files do to it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Shape, merge_annotations
from data_prep.formats import coco
from data_prep.formats.coco_file import read_file
from data_prep.formats.coco_masks import decode_counts
from data_prep.formats.layout import OtherFormatError
from data_prep.photo_names import exported_photo
from data_prep.source_folder import SourceFolder, split_in
from llava.common.errors import InputError

CATEGORIES = [{"id": 1, "name": "insulator"}, {"id": 2, "name": "defect"}]
IMAGE = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}
BOX = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 30]}
# A mask of 5 rows and 7 columns with columns 2 to 5 of rows 1 to 3 and pixel (3, 4) set, as pycocotools
# writes it, and the runs in it, down the columns.
COMPRESSED, RUNS = ";321OO104", [11, 3, 2, 4, 1, 3, 2, 3, 6]


def lists(*annotations: Any, images: Sequence = (IMAGE,), categories: Sequence = CATEGORIES) -> dict:
    return {"images": list(images), "annotations": list(annotations), "categories": list(categories)}


Put = Callable[..., Path]


def read(folder: Path) -> tuple[AnnotatedSource, list[str]]:
    return coco.read(SourceFolder.scan(folder))


def shapes_of(image: AnnotatedImage) -> list[Shape]:
    return [shape for annotation in image.annotations for shape in annotation.shapes]


def test_names_that_are_addresses(tmp_path: Path, put: Put) -> None:
    put("images/a b.jpg")
    address = "https://store.example.com/photos/a%20b.jpg?signature=x/1.jpg"
    put("labels.json", lists(BOX, images=[{**IMAGE, "file_name": address}]))
    source, problems = read(tmp_path)
    assert problems == [] and [image.key for image in source.images] == ["images/a b"]


def test_places_in_shares_of_the_image(tmp_path: Path, put: Put) -> None:
    put("a.jpg")
    box = {**BOX, "bbox": [0.1, 0.1, 0.2, 0.6], "segmentation": [[0.1, 0.1, 0.3, 0.1, 0.3, 0.7]]}
    file = put("labels.json", lists(box, {**BOX, "id": 2, "bbox": [0, 0, 1, 1]}))
    source, problems = read(tmp_path)
    assert problems == []
    assert shapes_of(source.images[0]) == [
        Shape("insulator", pytest.approx((10, 5, 30, 35)), pytest.approx(300)),
        Shape("insulator", (0, 0, 100, 50)),
    ]
    assert source.notes[-1].endswith(
        "its place is in shares of the picture, not in pixels; taken as such (and 1 more)"
    )
    put("labels.json", lists(box, images=[{"id": 7, "file_name": "a.jpg"}]))
    (problem,) = read(tmp_path)[1]
    assert problem.startswith(
        f"{file}, annotations[0] (id 1): its bbox is in shares of the picture, and its "
    )


def test_boxes_join_their_images(tmp_path: Path, put: Put) -> None:
    put("photos/a.jpg")
    put("photos/b.jpg")
    put("photos/c.jpg")
    images = [IMAGE, {"id": "b", "file_name": "C:\\work\\B.JPG"}]
    boxes = [{**BOX, "bbox": [1.5, 2, 3.25, 4.0], "category_id": 2}, BOX]
    put("labels/instances.json", lists(*boxes, images=images))
    source, problems = read(tmp_path)
    assert problems == []
    assert [image.key for image in source.images] == ["photos/a", "photos/b"]
    a, b = source.images
    assert shapes_of(a) == [Shape("defect", (1.5, 2, 4.75, 6)), Shape("insulator", (10, 5, 30, 35))]
    assert a.annotations[0].size == (100, 50) and b.annotations[0].size is None
    # Listed without a box: it was looked at and there is nothing in it.
    assert len(b.annotations) == 1 and shapes_of(b) == []
    assert [path.name for path in source.unannotated] == ["c.jpg"]


def test_polygons_and_masks_have_boxes_and_areas(tmp_path: Path, put: Put) -> None:
    put("a.jpg")
    put("b.jpg")
    triangle, square = [10, 10, 30, 10, 10, 30], [40, 10, 50, 10, 50, 20, 40, 20]
    small = {"id": 8, "file_name": "b.jpg", "width": 7, "height": 5}
    other = {"image_id": 8, "category_id": 1}
    outlined = [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [triangle, square]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": triangle, "bbox": [9, 9, 22, 22]},
        {"id": 3, "image_id": 7, "category_id": 1, "segmentation": [[1, 2, 3, 4]], "bbox": [0, 0, 4, 5]},
        {**other, "id": 4, "segmentation": {"size": [5, 7], "counts": COMPRESSED}},
        {**other, "id": 5, "segmentation": {"size": [5, 7], "counts": [6, 2]}, "iscrowd": 1},
    ]
    put("x.json", lists(*outlined, images=[IMAGE, small]))
    source, problems = read(tmp_path)
    assert problems == []
    assert shapes_of(source.images[0]) == [
        Shape("insulator", (10, 10, 50, 30), 200 + 100),
        Shape("insulator", (9, 9, 31, 31), 200),
        Shape("insulator", (0, 0, 4, 5)),
    ]
    assert shapes_of(source.images[1]) == [
        Shape("insulator", (2, 1, 6, 5), 13),
        Shape("insulator", (1, 1, 2, 3), 2),
    ]
    notes = "\n".join(source.notes)
    assert "(id 1): has no bbox; taken from its segmentation (and 2 more)" in notes
    assert "(id 2): its segmentation is a polygon without the list around it" in notes
    assert "(id 3): a polygon of fewer than three points" in notes
    assert "(id 5): iscrowd: the box stands for several objects" in notes


def test_boxes_are_put_right_and_reported(put: Put) -> None:
    boxes = [[30, 20, -20, 10], [5, 5, 0, 10], [5, 5, 10, 10], [5, 5, 10, 10]]
    items = [{"id": n, "image_id": 7, "category_id": 1, "bbox": box} for n, box in enumerate(boxes)]
    (annotation,) = read_file(put("x.json", lists(*items))).annotations
    assert annotation.shapes == (Shape("insulator", (10, 20, 30, 30)), Shape("insulator", (5, 5, 15, 15)))
    assert len(annotation.notes) == 3
    assert "(id 0) ('insulator'): the box has a negative" in annotation.notes[0]
    assert "(id 1) ('insulator'): the box has no width" in annotation.notes[1]
    assert "(id 3) ('insulator'): is there twice" in annotation.notes[2]
    assert all("x.json" in note for note in annotation.notes)


def test_every_problem_is_a_line(put: Put) -> None:
    wrong = [
        {**BOX, "image_id": 99},
        {**BOX, "image_id": 98},
        {**BOX, "category_id": 9},
        {**BOX, "bbox": [1, 2, 3]},
        {**BOX, "bbox": [1, 2, 3, float("nan")]},
        {**BOX, "bbox": None},
        {**BOX, "segmentation": [[1, 2, 3, 4, 5]]},
        {**BOX, "segmentation": "far"},
        {**BOX, "segmentation": {"size": [5, 7], "counts": [1, 99]}},
        {**BOX, "segmentation": {"size": [50, 100], "counts": "é"}},
        {**BOX, "segmentation": {"size": [50, 100], "counts": "Ta"}},
        {**BOX, "segmentation": {"size": [2, 2], "counts": [9, 9]}},
        {**BOX, "segmentation": {"size": [50, 100], "counts": [5000, 1]}},
        "no object",
    ]
    images = [IMAGE, {**IMAGE, "file_name": "b.jpg"}, {"id": 5}]
    categories = [*CATEGORIES, {"id": 1, "name": "other"}, {"id": 3, "name": ""}]
    file = put("x.json", lists(*wrong, images=images, categories=categories))
    problems = read_file(file).problems
    messages = [
        "categories[2] (id 1): its id belongs to another category",
        "categories[3] (id 3): a category needs an id and a name",
        "images[1] (id 7): its id belongs to another image",
        "images[2] (id 5): an image needs an id and a file_name",
        "annotations[0] (id 1): its image_id is not among the ids in `images` (and 1 more)",
        "annotations[2] (id 1): its category_id is not among",
        "annotations[3] (id 1): its bbox is not four numbers (x, y, width, height) (and 1 more)",
        "annotations[5] (id 1): has neither a bbox nor a segmentation",
        "annotations[6] (id 1): a polygon of its segmentation is not a list of x, y",
        "annotations[7] (id 1): its segmentation is neither",
        "annotations[8] (id 1): its mask has another size than the image (and 1 more)",
        "annotations[9] (id 1): the counts of its mask are not a compressed",
        "annotations[10] (id 1): the counts of its mask are cut short",
        "annotations[12] (id 1): the runs of its mask are longer than the picture",
        "annotations[13]: an annotation is an object",
    ]
    assert len(problems) == len(messages)
    for problem, expected in zip(problems, messages, strict=True):
        assert problem.startswith(f"{file}, {expected}"), problem


def test_images_listed_twice(tmp_path: Path, put: Put) -> None:
    put("a.jpg")
    again = {**IMAGE, "id": 8}
    put("x.json", lists(BOX, {**BOX, "image_id": 8, "category_id": 2}, images=[IMAGE, IMAGE, again]))
    source, problems = read(tmp_path)
    assert problems == []
    (image,) = source.images
    assert [shape.name for shape in shapes_of(image)] == ["insulator", "defect"]
    notes = "\n".join(source.notes)
    assert "images[1] (id 7): is there twice; kept once" in notes
    assert "images[2] (id 8): the same file_name under another id" in notes


def test_missing_images_are_problems_and_never_their_namesakes(tmp_path: Path, put: Put) -> None:
    put("train/a.jpg")
    two = [{"id": 1, "file_name": "north/a.jpg"}, {"id": 2, "file_name": "south/a.jpg"}]
    put("x.json", lists(images=two))
    put("valid/_annotations.coco.json", lists(BOX))
    put("y.json", lists(images=[{"id": n, "file_name": f"lost{n}.jpg"} for n in range(3)]))
    _, problems = read(tmp_path)
    assert len(problems) == 3
    text = "\n".join(problems)
    assert "no picture 'a.jpg'; found only train/a.jpg, which is of the split train, not val" in text
    assert "'north/a.jpg' and 'south/a.jpg' would both be" in text
    assert "no picture named 'lost0.jpg'" in text and "(and 2 more of its images)" in text


def test_roboflow_layout(tmp_path: Path, put: Put) -> None:
    """Two versions of one photo in one group, splits by folder, and a category that nothing uses."""
    dummy = [{"id": 0, "name": "insulators-x"}, *CATEGORIES]
    for folder, version in (("train", "aa1"), ("valid", "bb2"), ("test", "cc3")):
        name = f"tower_12_jpg.rf.{version}.jpg"
        put(f"{folder}/{name}")
        entry = {"id": 0, "file_name": name}
        used = [{**BOX, "image_id": 0}, {**BOX, "image_id": 0, "category_id": 2}]
        put(f"{folder}/_annotations.coco.json", lists(*used, images=[entry], categories=dummy))
    source, problems = read(tmp_path)
    assert problems == []
    assert [(image.split, image.group) for image in source.images] == [
        ("test", "tower_12"),
        ("train", "tower_12"),
        ("val", "tower_12"),
    ]
    assert source.notes == ("categories that no annotation uses, 1 in all: 'insulators-x'",)


def test_splits_by_the_names_of_the_files(tmp_path: Path, put: Put) -> None:
    """`annotations/instances_train.json` beside `images/train`, with the same names in every folder."""
    for split in ("train", "val"):
        put(f"images/{split}/a.jpg")
        put(f"annotations/instances_{split}.json", lists({**BOX, "category_id": 1 + (split == "val")}))
    source, problems = read(tmp_path)
    assert problems == []
    found = [(image.split, shapes_of(image)[0].name) for image in source.images]
    assert found == [("train", "insulator"), ("val", "defect")]


def test_an_image_of_several_splits_has_none(tmp_path: Path, put: Put) -> None:
    put("a.jpg")
    put("b.jpg")
    put("train.json", lists(images=[IMAGE, {"id": 8, "file_name": "b.jpg"}]))
    put("test.json", lists())
    source, problems = read(tmp_path)
    assert problems == []
    assert [image.split for image in source.images] == [None, "train"]
    assert "listed for several splits" in source.notes[-1]


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("data", "Valid"), "val"),
        (("train2017",), "train"),
        (("images", "test"), "test"),
        (("train", "val"), None),
        (("training_old", "latest"), None),
    ],
)
def test_split_names(words: tuple[str, ...], split: str | None) -> None:
    assert split_in(words) == split


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        ("3378_jpg.rf.c7a428913804c3381d0a0e29d43a73d7", "3378"),
        ("a_b_PNG.rf.1f", "a_b"),
        ("video_mp4-12_jpeg.rf.Ab9", "video_mp4-12"),
        ("3378_jpg", None),
        ("tower.rf.12", None),
    ],
)
def test_roboflow_names(stem: str, group: str | None) -> None:
    assert exported_photo(stem) == group


def test_other_json_is_passed_over(tmp_path: Path, put: Put) -> None:
    put("a.jpg")
    put("labelme.json", {"shapes": [], "imagePath": "a.jpg", "imageWidth": 100})
    put("llava.json", [{"image": "a.jpg", "images": []}])
    assert coco.detect(SourceFolder.scan(tmp_path)) is None
    put("captions.json", {"images": [IMAGE], "annotations": [{"image_id": 7, "caption": "a mast"}]})
    with pytest.raises(InputError, match="none of its JSON file"):
        read(tmp_path)
    put("x.json", lists(BOX))
    source, problems = read(tmp_path)
    assert problems == [] and len(source.images) == 1
    assert "3 JSON file(s) that are not COCO passed over" in source.notes[0]


def test_detect_looks_at_the_ends_only(tmp_path: Path, put: Put) -> None:
    """The lists may come in any order, and any of them may be long."""
    long = [{"id": n, "file_name": f"{n:06}.jpg"} for n in range(20_000)]
    many = [{**BOX, "id": n} for n in range(20_000)]
    for order in (("images", "annotations", "categories"), ("categories", "annotations", "images")):
        data = {"images": long, "annotations": many, "categories": CATEGORIES}
        put("x.json", {"info": {}, **{key: data[key] for key in order}})
        assert coco.detect(SourceFolder.scan(tmp_path)) == (
            "1 JSON file(s) with images, annotations, categories at the top"
        )
    put("x.json", {"images": long, "categories": CATEGORIES, "annotations": many})
    assert coco.detect(SourceFolder.scan(tmp_path))


def test_folders_that_cannot_work(tmp_path: Path, put: Put) -> None:
    with pytest.raises(InputError, match="no COCO annotations"):
        read(tmp_path)
    file = put("x.json", lists(BOX))
    with pytest.raises(InputError, match="no pictures"):
        read(tmp_path)
    put("a.jpg")
    file.write_text(file.read_text()[:-30])
    _, problems = read(tmp_path)
    assert len(problems) == 1 and "x.json, line 1: not valid JSON" in problems[0]


def test_compressed_runs() -> None:
    assert decode_counts(COMPRESSED) == RUNS


def compress(counts: list[int]) -> str:
    """The inverse of `decode_counts`, written from the description alone."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


@given(st.lists(st.integers(0, 1 << 30), max_size=20))
def test_runs_survive_compression(counts: list[int]) -> None:
    assert decode_counts(compress(counts)) == counts


@given(st.data())
def test_a_mask_is_its_pixels(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Box and area of a run-length mask are those of the mask painted out."""
    width, height = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    pixels = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    counts, colour = [0], False
    for pixel in pixels:
        if pixel != colour:
            counts.append(0)
            colour = pixel
        counts[-1] += 1
    points = [divmod(index, height) for index, pixel in enumerate(pixels) if pixel]
    image = {"id": 7, "file_name": "a.jpg", "width": width, "height": height}
    mask = {"size": [height, width], "counts": data.draw(st.sampled_from([counts, compress(counts)]))}
    file = tmp_path_factory.mktemp("coco") / "a.json"
    item = {"image_id": 7, "category_id": 1, "segmentation": mask}
    file.write_text(json.dumps(lists(item, images=[image])))
    parsed = read_file(file)
    if not points:
        assert "has neither a bbox nor a segmentation" in parsed.problems[0]
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
    assert parsed.annotations[0].shapes == (Shape("insulator", box, len(points)),)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
IDS = st.sampled_from([1, 7, 1.0, "1", True, None]) | VALUES


def objects(**fields: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.fixed_dictionaries({}, optional=fields) | VALUES, max_size=3)


MASKS = st.fixed_dictionaries({}, optional={"size": st.just([50, 100]) | VALUES, "counts": VALUES})


@given(
    images=objects(id=IDS, file_name=st.just("a.jpg") | VALUES, width=VALUES, height=VALUES),
    categories=objects(id=IDS, name=st.just("x") | VALUES),
    annotations=objects(
        id=IDS,
        image_id=IDS,
        category_id=IDS,
        bbox=st.lists(st.floats() | st.integers(-9, 9), max_size=5) | VALUES,
        segmentation=st.lists(st.lists(st.floats(0, 99), max_size=8)) | MASKS | VALUES,
        iscrowd=VALUES,
    ),
)
def test_any_values_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, images: list, categories: list, annotations: list
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "a.jpg").touch()
    file = folder / "x.json"
    file.write_text(json.dumps(lists(*annotations, images=images, categories=categories)))
    parsed = read_file(file)
    for line in [*parsed.problems, *parsed.notes]:
        assert "x.json" in line and "\n" not in line
    for annotation in parsed.annotations:
        for shape in annotation.shapes:
            x1, y1, x2, y2 = shape.box
            assert x1 < x2 and y1 < y2 and (shape.area is None or shape.area >= 0)
    source, problems = read(folder)
    assert problems or len(source.images) <= 1


@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("coco") / "a.json"
    file.write_bytes(data)
    coco.detect(SourceFolder.scan(file.parent))
    with pytest.raises(InputError, match=r"a\.json"):  # nothing that small is COCO
        read_file(file)


def test_not_coco_is_its_own_error(put: Put) -> None:
    with pytest.raises(OtherFormatError, match="expected the lists images, annotations, categories"):
        read_file(put("x.json", {"images": [], "annotations": {}, "categories": []}))


def test_real_roboflow_export(shared_data: Path) -> None:
    source, problems = read(shared_data / "roboflow_coco")
    assert problems == [] and not source.unannotated
    assert Counter(image.split for image in source.images) == {"train": 175, "val": 25, "test": 25}
    assert sum(len(shapes_of(image)) for image in source.images) == 341 + 42 + 44
    groups = Counter(image.group for image in source.images)
    assert None not in groups and max(groups.values()) > 1
    for image in source.images:
        merge_annotations(image, (640, 640))
    assert source.notes == ("categories that no annotation uses, 1 in all: 'insulators-defects'",)


@pytest.mark.parametrize("first", [("annotations", "categories", "images"), ("annotations", "images")])
def test_lists_in_any_order_and_of_any_length_are_known(tmp_path: Path, put: Put, first: Sequence) -> None:
    put("a.jpg")
    content = lists(*[BOX | {"id": id} for id in range(30000)])  # 2 MB
    ordered = {name: content[name] for name in first} | content | {"info": {"text": "x" * 200_000}}
    put("val.json", lists(BOX))
    put("train.json", ordered | {"zzz": {"text": "x" * 200_000}})
    folder = SourceFolder.scan(tmp_path)
    assert "2 JSON file(s)" in str(coco.detect(folder))
    source, problems = coco.read(folder)
    assert problems == [] and len(source.images[0].annotations) == 2


def test_the_key_of_a_list_may_lie_across_two_reads(tmp_path: Path, put: Put) -> None:
    start = '{"annotations": [], "info": "'
    for position in range(1, 12):
        filler = "x" * ((1 << 20) - len(start) - 3 - position)
        path = put("a.json", f'{start}{filler}", "images": [], "categories": []}}')
        assert path.read_bytes()[(1 << 20) - position : (1 << 20) - position + 1] == b'"'
        assert coco.detect(SourceFolder.scan(tmp_path))


def test_an_id_that_is_a_text_in_one_list_is_found(tmp_path: Path, put: Put) -> None:
    boxes = [{**BOX, "image_id": "7"}, {**BOX, "image_id": 8, "category_id": "02"}]
    images = [IMAGE, {"id": "8", "file_name": "b.jpg"}, {"id": "007", "file_name": "c.jpg"}]
    file = read_file(put("a.json", lists(*boxes, images=images, categories=[*CATEGORIES, *CATEGORIES])))
    assert file.problems == []
    assert [[shape.name for shape in item.shapes] for item in file.annotations] == [
        ["insulator"],
        ["defect"],
        [],
    ]


@pytest.mark.parametrize(
    ("fields", "box", "area"),
    [
        ({"attributes": {"rotation": 90.0}}, (45, 20, 55, 60), 400),
        ({"attributes": {"rotation": "270"}}, (45, 20, 55, 60), 400),
        ({"rotation": 90}, (45, 20, 55, 60), 400),
        ({"attributes": {"rotation": 45}}, (32.32, 22.32, 67.68, 57.68), 400),
        # Its segmentation is the bbox once more, or lies in its place already.
        ({"attributes": {"rotation": 90}, "segmentation": [[30, 35, 70, 35, 70, 45, 30, 45]]}, None, 400),
        ({"attributes": {"rotation": 90}, "segmentation": [[45, 20, 55, 20, 55, 60, 45, 60]]}, None, 400),
        ({"attributes": {"rotation": 30}, "segmentation": [[40, 20, 60, 20, 50, 30]]}, (40, 20, 60, 30), 100),
        ({"attributes": {"rotation": 0.0}}, (30, 35, 70, 45), None),
        ({"attributes": {"rotation": "left"}}, (30, 35, 70, 45), None),
    ],
)
def test_an_angle_apart_from_the_box(
    tmp_path: Path, put: Put, fields: dict, box: tuple | None, area: float | None
) -> None:
    """CVAT's COCO export: bbox is the box before it is rotated about its centre."""
    put("a.jpg")
    put("a.json", lists({**BOX, "bbox": [30, 35, 40, 10], **fields}))
    source, problems = read(tmp_path)
    (shape,) = shapes_of(source.images[0])
    assert problems == []
    assert shape.box == pytest.approx(box or (45, 20, 55, 60), abs=0.01)
    assert shape.area == (None if area is None else pytest.approx(area))
    assert any("is turned" in note for note in source.notes) == (area is not None)
