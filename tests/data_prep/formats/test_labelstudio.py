"""Label Studio's exports, JSON and JSON-MIN, with their percents, upload addresses and several annotators."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import AnnotatedSource, Annotation, Shape, merge_annotations
from data_prep.formats import labelstudio
from data_prep.formats.brush import brush_runs
from data_prep.formats.labelstudio_shapes import annotate
from data_prep.formats.labelstudio_tasks import image_names, read_tasks
from data_prep.formats.layout import OtherFormatError
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from tests.support.label_files import json_like


def result(kind: str, *classes: str, id: str = "", size: tuple = (100, 50), **value: Any) -> dict[str, Any]:
    width, height = size
    facts = {"id": id, "type": kind, "original_width": width, "original_height": height, "image_rotation": 0}
    return facts | {"value": value | {kind: list(classes)}}


def rectangle(x: Any, y: Any, w: Any, h: Any, *classes: str, **more: Any) -> dict[str, Any]:
    return result("rectanglelabels", *(classes or ("x",)), x=x, y=y, width=w, height=h, **more)


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    facts = {"id": 9, "completed_by": 1, "was_cancelled": False, "updated_at": "2024-01-01T00:00:00Z"}
    return facts | {"result": list(results)} | more


def task(
    *annotations: Any, id: Any = 1, image: str = "/data/upload/1/1a2b3c4d-a.jpg", **more: Any
) -> dict[str, Any]:
    """In the order of keys that Label Studio itself writes."""
    return {"id": id, "annotations": list(annotations), "predictions": [], "data": {"image": image} | more}


@pytest.fixture
def one(put: Callable[..., Path]) -> Callable[..., Annotation]:
    """What is read of one task of the given results."""

    def read(*results: dict[str, Any]) -> Annotation:
        path = put("a.json", [task(annotation(*results))])
        tasks, problems, _ = read_tasks(path)
        assert problems == []
        return annotate(tasks[0], path, (100, 50))

    return read


def find_source(folder: Path) -> tuple[AnnotatedSource, list[str]]:
    return labelstudio.read(SourceFolder.scan(folder))


def test_every_shape_becomes_a_box_in_pixels(one: Callable) -> None:
    found = one(
        rectangle(10, 20, 30, 40),
        rectangle(10, 20, 30, 40, "y", "z"),
        result("polygonlabels", "p", points=[[0, 0], [10, 0], [0, 16]], closed=True),
        result("ellipselabels", "e", x=50, y=50, radiusX=10, radiusY=8, rotation=0),
        result("labels", "plain", x=1, y=2, width=3, height=4, rotation=0),
    )
    assert found.shapes == (
        Shape("x", (10, 10, 40, 30)),
        Shape("y", (10, 10, 40, 30)),
        Shape("z", (10, 10, 40, 30)),
        Shape("p", (0, 0, 10, 8), 40),
        Shape("e", (40, 21, 60, 29), math.pi * 40),
        Shape("plain", (1, 1, 4, 3)),
    )
    assert found.notes == () and found.size == (100, 50)


def test_a_rectangle_turns_about_its_corner_in_pixels(one: Callable) -> None:
    """The example of github.com/HumanSignal/label-studio/issues/2293: 300x100 at (200, 100), turned by 90."""
    turned, slanted = one(
        rectangle(20, 20, 30, 20, rotation=90, size=(1000, 500)),
        rectangle(20, 20, 30, 20, rotation=330, size=(1000, 500)),
    ).shapes
    assert turned.box == pytest.approx((100, 100, 200, 400)) and turned.area == pytest.approx(30_000)
    right = 200 + 300 * math.cos(math.pi / 6) + 50, 100 + 100 * math.cos(math.pi / 6)
    assert slanted.box == pytest.approx((200, 100 - 150, *right))
    quarter = one(result("ellipselabels", "e", x=50, y=50, radiusX=20, radiusY=8, rotation=90)).shapes[0]
    assert quarter.box == pytest.approx((46, 5, 54, 45))


def test_what_is_put_right_is_noted(one: Callable) -> None:
    found = one(rectangle(40, 60, -30, -40), rectangle(10, 20, 30, 40), rectangle(0, 0, 9, 9, rotation=5))
    assert found.shapes[0] == Shape("x", (10, 10, 40, 30))
    assert ["reversed" in found.notes[0], "twice" in found.notes[1], "turned by 5" in found.notes[2]] == [
        True
    ] * 3


def test_choices_are_labels_of_the_image(one: Callable) -> None:
    about_shape = {"type": "choices", "id": "r1", "value": {"x": 1, "choices": ["deep"]}}
    about_plain = {"type": "choices", "id": "r2", "value": {"choices": ["deep"]}}
    found = one(
        result("choices", "rusty", "wet"),
        rectangle(0, 0, 9, 9, id="r1"),
        about_shape,
        {"type": "rectangle", "id": "r2", "value": {"x": 1, "y": 1, "width": 2, "height": 2}},
        result("labels", "y", id="r2", x=1, y=1, width=2, height=2),
        about_plain,
    )
    assert found.labels == ("rusty", "wet")
    assert [shape.name for shape in found.shapes] == ["x", "y"]
    assert found.notes[0].endswith("left out: 2 choices about a shape")


def test_what_has_no_area_or_class_is_left_out_with_a_note(one: Callable) -> None:
    found = one(
        result("keypointlabels", "k", x=1, y=1, width=0.5),
        result("polygonlabels", "p", points=[[0, 0], [1, 1]]),
        result("rectanglelabels", x=1, y=1, width=9, height=9),
        {"type": "polygon", "id": "r9", "value": {"points": [[0, 0], [1, 1], [0, 1]]}},
        {"type": "textarea", "value": {"text": ["cracked"]}},
        {"type": "relation", "from_id": "r1", "to_id": "r2"},
        {"type": "bitmasklabels", "value": {"bitmasklabels": ["b"], "imageDataURL": "data:"}},
    )
    assert found.shapes == ()
    assert found.notes[0].endswith(
        "left out: 1 bitmasklabels, 1 keypointlabels, 1 polygon without a class, 1 polygonlabels, "
        "1 rectanglelabels without a class, 1 textarea"
    )


def test_the_latest_finished_annotation_counts(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    early = annotation(rectangle(0, 0, 10, 10, "early"), updated_at="2024-01-02T00:00:00Z")
    late = annotation(rectangle(0, 0, 10, 10, "late"), updated_at="2024-01-03T00:00:00Z")
    skipped = annotation(rectangle(0, 0, 10, 10, "skipped"), was_cancelled=True, updated_at="2025")
    guessed = {"predictions": [annotation(rectangle(0, 0, 9, 9, "guessed"))]}
    put(
        "a.json",
        [task(late, skipped, early), task(skipped, id=2, image="b.jpg"), task(id=3, image="c.jpg") | guessed],
    )
    source, problems = find_source(tmp_path)
    assert problems == []
    (image,) = source.images
    assert [shape.name for shape in image.annotations[0].shapes] == ["late"]
    skip_note, several = image.annotations[0].notes
    assert "task 1: 1 skipped annotation(s) not used" in skip_note
    assert "task 1: the latest of 2 annotations taken" in several
    assert "2 task(s) without a finished annotation passed over" in source.notes[0]
    assert [path.name for path in source.unannotated] == ["b.jpg"]


def pack(words: bytes, sizes: tuple[int, ...] = (3, 4, 8, 16)) -> bytes:
    """The inverse of `brush_runs`, as the packer's README says."""
    text = f"{len(words):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    place = 0
    while place < len(words):
        end = place + 1
        run = end < len(words) and words[end] == words[place]
        while end < len(words) and (words[end] == words[end - 1]) == run and end - place < 1 << sizes[3]:
            end += 1
        kind = next(kind for kind, size in enumerate(sizes) if end - place - 1 < 1 << size)
        text += f"{int(run)}{kind:02b}{end - place - 1:0{sizes[kind]}b}"
        text += "".join(f"{word:08b}" for word in words[place : place + 1 if run else end])
        place = end
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


PIXELS = st.sampled_from([(0, 0, 0, 0), (7, 7, 7, 7), (255, 0, 0, 128), (1, 2, 3, 0)])


@given(st.lists(PIXELS, min_size=1, max_size=80), st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 4)]))
def test_a_brush_stroke_is_its_painted_pixels(pixels: list[tuple[int, ...]], sizes: tuple[int, ...]) -> None:
    packed = pack(bytes(word for pixel in pixels for word in pixel), sizes)
    painted = [index for start, stop in brush_runs(packed, len(pixels)) for index in range(start, stop)]
    assert painted == [index for index, pixel in enumerate(pixels) if pixel[3]]


def test_a_brush_stroke_becomes_the_box_around_it(one: Callable, put: Callable) -> None:
    painted = Image.new("RGBA", (100, 50))
    painted.paste((200, 10, 10, 255), (20, 10, 60, 30))
    painted.putpixel((25, 15), (0, 0, 0, 0))
    stroke = result("brushlabels", "x", format="rle", rle=list(pack(painted.tobytes())))
    empty = result("brushlabels", "x", format="rle", rle=list(pack(bytes(100 * 50 * 4))))
    found = one(stroke, empty)
    assert found.shapes == (Shape("x", (20, 10, 60, 30), 799),)
    assert found.notes[0].endswith("left out: 1 brushlabels")


@pytest.mark.parametrize("rle", [[], [0] * 9, [1, 2], 7, "x", [300], [0.5], list(pack(bytes(8)))])
def test_a_bad_brush_stroke_is_refused(one: Callable, rle: Any) -> None:
    with pytest.raises(InputError, match=r"task 1: brushlabels 1: its brush stroke cannot be unpacked"):
        one(result("brushlabels", "x", rle=rle))


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/data/upload/1/1a2b3c4d-a.jpg", ["/data/upload/1/1a2b3c4d-a.jpg", "/data/upload/1/a.jpg"]),
        ("/data/local-files/?d=set%20one/a.jpg", ["set one/a.jpg", "set%20one/a.jpg"]),
        ("/data/local-files/?d=set%5Ca.jpg&x=1", ["set\\a.jpg", "set%5Ca.jpg"]),
        ("s3://bucket/set/a.jpg", ["s3://bucket/set/a.jpg"]),
        ("https://host/set/a%2B1.jpg?key=1", ["https://host/set/a+1.jpg", "https://host/set/a%2B1.jpg"]),
        ("deadbeef-.jpg", ["deadbeef-.jpg", ".jpg"]),
        ("1A2B3C4D-a.jpg", ["1A2B3C4D-a.jpg"]),
    ],
)
def test_an_address_is_a_name(address: str, names: list[str]) -> None:
    assert [name for name in image_names(address) if name != address or address in names] == names


def test_images_are_found_by_their_addresses(tmp_path: Path, put: Callable) -> None:
    for image in ("a.jpg", "1a2b3c4d-b.jpg", "b.jpg", "one/c.jpg", "two/c.jpg", "d e.jpg", "lonely.jpg"):
        put(image)
    done = annotation(rectangle(0, 0, 50, 50))
    addresses = ("/data/upload/1/99999999-a.jpg", "/data/upload/1/1a2b3c4d-b.jpg", "s3://all/two/c.jpg")
    numbered = [task(done, id=id, image=address) for id, address in enumerate(addresses)]
    photo = {"id": 7, "annotations": [done], "data": {"photo": "https://host/d%20e.jpg?key=1", "tower": "12"}}
    put("a.json", [*numbered, photo])
    put("other.json", "{}")
    source, problems = find_source(tmp_path)
    assert problems == []
    assert [image.key for image in source.images] == ["1a2b3c4d-b", "a", "d e", "two/c"]
    assert "1 picture(s) found by the name that they had before the upload" in source.notes[0]
    assert "not Label Studio's passed over, for instance other.json" in source.notes[1]


def test_unstated_sizes_are_the_images_own_upright(tmp_path: Path, put: Callable) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (100, 50)).save(tmp_path / "a.jpg", exif=exif)
    box = {"type": "rectanglelabels", "value": rectangle(10, 10, 20, 20)["value"]}
    put("a.json", [task(annotation(box))])
    source, problems = find_source(tmp_path)
    assert problems == []
    assert merge_annotations(source.images[0], (50, 100), 6) == ([Shape("x", (5, 10, 15, 30))], [])


def minimal(*shapes: dict[str, Any], id: int = 1, **more: Any) -> dict[str, Any]:
    values = [shape["value"] | {"original_width": 100, "original_height": 50} for shape in shapes]
    facts = {"image": "/data/upload/1/1a2b3c4d-a.jpg", "id": id, "label": values, "annotator": 1}
    return facts | {"annotation_id": 4, "created_at": "2024-01-01", "updated_at": "2024-01-01"} | more


def test_json_min_is_read_too(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    old = minimal(rectangle(0, 0, 10, 10, "old"), updated_at="2023-01-01")
    polygon = result("polygonlabels", "p", points=[[0, 0], [10, 0], [0, 16]])
    new = minimal(
        rectangle(10, 20, 30, 40), polygon, quality="good", state={"choices": ["wet", "rusty"]}, tower=12
    )
    put("a.json", [new, old, minimal(id=2, image="b.jpg")])
    source, problems = find_source(tmp_path)
    assert problems == []
    first, second = (image.annotations[0] for image in source.images)
    assert first.shapes == (Shape("x", (10, 10, 40, 30)), Shape("p", (0, 0, 10, 8), 40))
    assert first.labels == ("wet", "rusty") and second.shapes == ()
    latest, unsure = source.notes[:2]
    assert "task 1: the latest of 2 annotations taken" in latest
    assert "'quality' may be a choice or data, not used; the JSON export tells which" in unsure


def test_every_problem_is_reported(tmp_path: Path, put: Callable) -> None:
    put("a.jpg")
    put("b.jpg")
    put("c.jpg")
    done = annotation(rectangle(0, 0, 50, 50))
    two = {"id": 6, "annotations": [done], "data": {"left": "a.jpg", "right": "b.jpg"}}
    turned = rectangle(0, 0, 9, 9) | {"image_rotation": 90}
    put(
        "a.json",
        [
            task(done),
            task(done, id=2, image="/data/upload/1/55555555-a.jpg"),
            task(done, id=3, image="absent.jpg"),
            task(annotation(rectangle(0, 0, "wide", 9)), id=4, image="b.jpg"),
            task(17, id=5, image="b.jpg"),
            two,
            task(annotation(turned), id=7, image="b.jpg"),
            task(annotation(rectangle(0, 0, 9, 9), rectangle(0, 0, 9, 9, size=(9, 9))), id=8, image="b.jpg"),
            task(done, id=9, image="data:image/png;base64,aGVsbG8="),
            task(annotation(rectangle(0, 0, 9, 9, "")), id=10, image="c.jpg"),
        ],
    )
    put("cut.json", "[{")
    _, problems = find_source(tmp_path)
    assert all("\n" not in problem and str(tmp_path) in problem for problem in problems)
    text = "\n".join(problems)
    assert len(problems) == 10
    for message in (
        "task 2: speaks of a.jpg, as does",
        "no picture named 'absent.jpg'",
        "task 4: rectanglelabels 1 has an unreadable number (found 'wide')",
        "task 5: its annotations are not written out",
        "task 6: cannot tell its picture (addresses found: 'left', 'right')",
        "task 7: its picture was turned in Label Studio",
        "task 8: its shapes were drawn on pictures of 9x9 and 100x50",
        "task 9: the picture is inside the file",
        "task 10: rectanglelabels 1 has an unreadable class",
        "cut.json, line 1: not valid JSON",
    ):
        assert message in text


def test_folders_that_cannot_work(tmp_path: Path, put: Callable) -> None:
    put("a.json", [{"image": "a.jpg", "annotations": [{"label": "x"}]}])  # CreateML's layout
    with pytest.raises(OtherFormatError):
        read_tasks(tmp_path / "a.json")
    assert labelstudio.detect(SourceFolder.scan(tmp_path)) is None
    with pytest.raises(InputError, match="no finished Label Studio annotations"):
        find_source(tmp_path)
    put("a.json", [task(annotation())])
    with pytest.raises(InputError, match="--image-folder"):
        find_source(tmp_path)


def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, put: Callable) -> None:
    put("full.json", [task(annotation(*[rectangle(0, 0, 9, 9)] * 200))])
    put("unfinished_first.json", [task(), task(annotation(), id=2)])
    put("min.json", [minimal(rectangle(0, 0, 9, 9))])
    put("coco.json", {"images": [], "annotations": [], "categories": []})
    put("vqa.json", [{"image": "a.jpg", "question": "?", "answer": "yes"}])
    assert labelstudio.detect(SourceFolder.scan(tmp_path)) == "3 JSON file(s) with Label Studio's tasks"


KEYS = (
    *("id", "data", "annotations", "result", "value", "type", "image", "x", "y", "width", "height", "rle"),
    *("points", "rotation", "radiusX", "radiusY", "rectanglelabels", "polygonlabels", "brushlabels"),
    *("original_width", "original_height", "choices", "was_cancelled", "updated_at", "annotation_id"),
)
WORDS = (
    "rectanglelabels",
    "polygonlabels",
    "ellipselabels",
    "brushlabels",
    "choices",
    "labels",
    "a.jpg",
    "x\nx",
)
ANY = json_like(KEYS, WORDS)
VALUES = st.fixed_dictionaries(
    {"rectanglelabels": st.just(["x"]) | ANY, "x": ANY, "y": ANY},
    optional={
        "width": ANY,
        "height": ANY,
        "points": st.lists(st.lists(ANY, max_size=2)),
        "rle": st.lists(ANY),
        "rotation": ANY,
    },
)
RESULTS = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS), "value": VALUES},
    optional={"original_width": ANY, "original_height": ANY, "id": ANY},
)
TASKS = st.fixed_dictionaries(
    {
        "data": st.just({"image": "a.jpg"}) | ANY,
        "annotations": st.lists(
            st.fixed_dictionaries({"result": st.lists(RESULTS | ANY, max_size=3)}), max_size=2
        ),
    }
) | st.fixed_dictionaries(
    {"image": st.just("a.jpg"), "annotation_id": ANY, "label": st.lists(VALUES, max_size=2)}
)


@given(ANY | st.lists(TASKS | ANY, max_size=2))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value))
    try:
        tasks, problems, notes = read_tasks(path)
    except InputError as error:
        assert "a.json" in str(error) and "\n" not in str(error)
        return
    assert "\n" not in "".join(problems + notes)
    for item in tasks:
        try:
            found = annotate(item, path, (100, 50))
        except InputError as error:
            assert item.place in str(error) and "\n" not in str(error)
            continue
        assert "\n" not in "".join(found.notes)
        for shape in found.shapes:
            x1, y1, x2, y2 = shape.box
            assert x1 <= x2 and y1 <= y2 and math.isfinite(x2 - x1 + y2 - y1)


def test_real_files_are_read(shared_data: Path) -> None:
    folder = shared_data / "formats"
    source, problems = labelstudio.read(SourceFolder.scan(folder / "labelstudio", folder / "images"))
    assert problems == [] and len(source.images) == 12 and source.unannotated == ()
    (first,) = source.images[0].annotations
    assert [shape.name for shape in first.shapes] == ["insulator", "defect"]
    assert first.shapes[0].box == pytest.approx((250, 427, 1010, 579))
