"""IDID: the discs of insulator strings with their conditions."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats import find_reader, idid
from data_prep.formats.idid import read_record
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.settings import load_settings

FILE = Path("labels_v1.2.json")


def disc(*, box: Any = (10, 20, 30, 40), **more: Any) -> dict[str, Any]:
    return {"name": "insulator", "bbox": list(box), "string": 0, **more}


def record(*objects: Any, name: Any = "100228.JPG") -> dict[str, Any]:
    return {"filename": name, "Labels": {"objects": list(objects)}}


def shapes(*objects: Any) -> tuple[Shape, ...]:
    return read_record(FILE, 0, record(*objects)).shapes


def folder(root: Path, records: Any, *images: str) -> SourceFolder:
    (root / "Images").mkdir(parents=True)
    for name in images:
        (root / "Images" / name).touch()
    (root / "labels_v1.2.json").write_text(json.dumps(records, indent=1))
    return SourceFolder.scan(root)


def read(source: SourceFolder) -> AnnotatedSource:
    found, problems = idid.read(source)
    assert problems == []
    return found


def test_images_with_their_discs(tmp_path: Path) -> None:
    records = [
        record(
            {"name": "insulator", "bbox": [0, 0, 500, 100], "string": 1},
            disc(conditions={"shell": "Broken"}),
            disc(box=(50, 20.5, 30, 40), conditions={"glaze": "Flashover damage"}),
            disc(box=(90, 20, 30, 40), conditions={"No issues": "No issues"}),
        ),
        record(name="100229.jpg"),
    ]
    source_folder = folder(tmp_path / "Train", records, "100228.JPG", "100229.jpg", "unlabelled.JPG")
    assert find_reader(source_folder)[0] is idid
    source = read(source_folder)
    first, second = source.images
    assert first.key == "Images/100228"
    assert first.annotations[0].shapes == (
        Shape("string", (0, 0, 500, 100)),
        Shape("broken", (10, 20, 40, 60)),
        Shape("flashover", (50, 20.5, 80, 60.5)),
        Shape("good", (90, 20, 120, 60)),
    )
    assert second.annotations[0].shapes == ()
    assert [path.name for path in source.unannotated] == ["unlabelled.JPG"]


def test_the_views_of_an_image_are_one_group(tmp_path: Path) -> None:
    names = ["7.JPG", "7d.JPG", "7H.jpg", "7v.JPG", "70.JPG", "7x.JPG", "tower7d.JPG"]
    source = read(folder(tmp_path / "Train", [record(name=name) for name in names], *names))
    groups = {image.file.name: image.group for image in source.images}
    assert groups == dict(zip(names, ["7", "7", "7", "7", "70", None, None], strict=True))


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ({"shell": "Broken"}, ["broken"]),
        ({"glaze": "Flashover damage"}, ["flashover"]),
        ({"No issues": "No issues"}, ["good"]),
        ({"notbroken-notflashed": "notbroken-notflashed"}, ["good"]),
        ({"shell": "Good", "glaze": "flashover damage"}, ["flashover"]),
        ({"shell": "Broken", "glaze": "Flashover damage"}, ["broken", "flashover"]),
        ({"shell": "Good", "glaze": "Good"}, ["good"]),
        ({}, ["disc"]),
        (None, ["disc"]),
    ],
)
def test_conditions(conditions: Any, names: list[str]) -> None:
    annotation = read_record(FILE, 0, record(disc(conditions=conditions)))
    assert annotation.shapes == tuple(Shape(name, (10, 20, 40, 60)) for name in names)
    assert bool(annotation.notes) == (names == ["disc"])


def test_a_box_that_is_there_twice_is_kept_once_and_noted() -> None:
    broken = disc(conditions={"shell": "Broken"})
    found = read_record(FILE, 0, record(broken, broken))
    assert found.shapes == (Shape("broken", (10, 20, 40, 60)),)
    assert len(found.notes) == 1 and "object 1 ('broken'): is there twice" in found.notes[0]


def test_what_is_put_right_is_noted() -> None:
    annotation = read_record(
        FILE,
        4,
        record(
            disc(box=(40, 60, -30, -40), conditions={"shell": "Broken"}),
            disc(string="1", conditions={"shell": "Broken"}),
            disc(string=True),
        ),
    )
    assert annotation.shapes == (Shape("broken", (10, 20, 40, 60)), Shape("string", (10, 20, 40, 60)))
    assert "record 4 ('100228.JPG'), object 0: box was reversed" in annotation.notes[0]
    assert "object 1: conditions of a whole string (broken) not used" in annotation.notes[1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no filename"),
        (record(name=" "), "no filename"),
        ({"filename": "1.JPG"}, "no list Labels.objects"),
        ({"filename": "1.JPG", "Labels": {"objects": {}}}, "no list Labels.objects"),
        (record("disc"), "object 0: expected an object, found str"),
        (record(disc(box=(1, 2, 3))), "four numbers"),
        (record(disc(box=(1, 2, 3, float("nan")))), "four numbers"),
        (record(disc(conditions={"shell": "Cracked"})), "unknown condition 'shell': 'Cracked'"),
        (record(disc(conditions={"shell": 1})), "unknown condition 'shell': 1"),
        (record(disc(conditions=["Broken"])), "conditions must be an object"),
        (record(disc(string=2)), "string must be 0 or 1, not 2"),
    ],
)
def test_a_bad_record_is_one_line_that_names_it(bad: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_record(FILE, 3, bad)
    assert "labels_v1.2.json, record 3" in str(caught.value) and "\n" not in str(caught.value)


def test_every_problem_is_reported(tmp_path: Path) -> None:
    records = [record(), record(name="absent.JPG"), record(disc(conditions={"shell": "Cracked"}))]
    source, problems = idid.read(folder(tmp_path / "Train", records, "100228.JPG"))
    assert len(source.images) == 1 and len(problems) == 2
    assert "absent.JPG" in problems[0] and "record 2" in problems[1]
    (tmp_path / "Train" / "labels_v1.2.json").write_text('[{"Labels": {"objects": [')
    _, problems = idid.read(SourceFolder.scan(tmp_path / "Train"))
    assert len(problems) == 1 and "not valid JSON" in problems[0]


@pytest.mark.parametrize(
    "other",
    [
        {"images": [], "annotations": [], "categories": []},
        [{"id": "1", "image": "a.jpg", "conversations": []}],
        [{"data": {"image": "a.jpg"}, "annotations": [{"result": []}]}],
        [],
    ],
)
def test_other_json_is_not_claimed(tmp_path: Path, other: Any) -> None:
    source = folder(tmp_path / "Train", other)
    assert idid.detect(source) is None
    with pytest.raises(InputError, match="no IDID labels"):
        idid.read(source)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


DISCS = st.fixed_dictionaries(
    {
        "conditions": JSON
        | st.dictionaries(st.text(max_size=5), st.sampled_from(["Broken", "No issues"]), max_size=2),
        "string": JSON | st.sampled_from([0, 1]),
        "bbox": JSON | st.lists(st.integers() | st.floats(), min_size=4, max_size=4),
    }
)


@given(JSON | st.builds(record, JSON | DISCS, DISCS, name=st.text(max_size=5)))
def test_any_record_is_read_or_refused(value: Any) -> None:
    try:
        annotation = read_record(FILE, 0, value)
    except InputError as error:
        assert "labels_v1.2.json, record 0" in str(error) and "\n" not in str(error)
    else:
        for shape in annotation.shapes:
            assert shape.box[0] <= shape.box[2] and shape.box[1] <= shape.box[3]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("idid")
    (root / "1.jpg").touch()
    (root / "labels.json").write_bytes(b'[{"Labels": {"objects": ' + data)
    _, problems = idid.read(SourceFolder.scan(root))
    assert len(problems) == 1 and "labels.json" in problems[0]


def test_the_recipe_knows_every_name(repo: Path) -> None:
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "insulator_discs.yaml")
    known = recipe.known_names()
    kinds = {name: known[name] for name in ("string", "broken", "flashover", "good", "disc")}
    assert {name: kind and kind.name for name, kind in kinds.items()} == {
        "string": "insulator string",
        "broken": "broken disc",
        "flashover": "flashover",
        "good": None,
        "disc": None,
    }
