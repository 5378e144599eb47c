"""`inspect --write-recipe`: a first recipe that fits the photos, reads as English and converts as written."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError
from llava.common.files import read_json_list, write_json_list
from llava.common.records import Record
from llava.common.settings import load_settings
from tests.support.photos import Boxes, write_boxes

BOLT = ("bolt", (10, 5, 70, 43))
CORRODED, MISSING = ("corroded", (20, 10, 40, 30)), ("missing_nut", (50, 15, 75, 40))


def first_recipe(photos: Path, *more: str) -> tuple[Recipe, str, dict[str, set[str]]]:
    """Return the recipe that is written for a folder, its text, and the questions that it makes of the
    photos, each with its answers."""
    file, output = photos.parent / "my.yaml", photos.parent / "data"
    assert data_prep(["inspect", "--source", str(photos), "--write-recipe", str(file), *more]) == 0
    convert = ["convert", "--source", str(photos), "--recipe", str(file), "--output", str(output)]
    assert data_prep(convert) == 0
    asked: dict[str, set[str]] = {}
    for record in read_json_list(output / "train.json", Record):
        question, answer = (turn.value.removeprefix("<image>\n") for turn in record.conversations[:2])
        asked.setdefault(question, set()).add(answer)
    return load_settings(Recipe, file), file.read_text(encoding="utf-8"), asked


def write_folders(root: Path, *names: str, count: int = 6) -> Path:
    """Write `count` photos to a folder of each name."""
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(100 * index + number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((90, 60)).save(root / name / f"{number}.png")
    return root


def test_a_new_domain_with_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_boxes(tmp_path / "photos", [BOLT], [BOLT, CORRODED], [BOLT, MISSING])
    recipe, text, asked = first_recipe(photos)
    assert [kind.name for kind in recipe.components] == ["bolt"]
    assert {kind.name: kind.phrase for kind in recipe.defects} == {
        "corroded part": "a corroded part",
        "missing nut": "a missing nut",
    }
    assert set(recipe.active_families) == {"presence", "presence_of", "kind", "choice", "where", "box"}
    assert "# - count: nearly all have the same number, or one at most" in text
    assert "Is anything wrong with the bolt?" in asked and "Do you see a corroded part?" in asked
    assert "corroded part" in asked["What is wrong with the bolt?"]
    said = capsys.readouterr().out
    assert f"recipe: {tmp_path / 'my.yaml'} (a first one: read and edit it)" in said
    assert f"convert --source {photos} --recipe {tmp_path / 'my.yaml'} --output runs/data" in said


def test_class_folders_with_a_sound_one(tmp_path: Path) -> None:
    recipe, text, asked = first_recipe(write_folders(tmp_path / "photos", "good", "glue", "thread_side"))
    assert (recipe.sound, recipe.kind_names) == (["good"], ["glue", "thread side"])
    assert "none" in recipe.kind_answers and "where" not in recipe.active_families
    assert "# - box: no box says where something is" in text
    assert "Do you see glue?" in asked and "Do you see a thread side?" in asked


def test_a_folder_named_like_the_part_is_what_is_sound(tmp_path: Path) -> None:
    recipe, _, asked = first_recipe(write_folders(tmp_path / "photos", "bolt", "corroded", "missing_nut"))
    assert [kind.name for kind in recipe.components] == ["bolt"]
    named = asked["Name the defect."] | asked["What is wrong with the bolt?"]
    assert named == {"corroded part", "missing nut", "none"}


def test_boxes_tell_unknown_names_apart(tmp_path: Path) -> None:
    outer, inner = ("Widget-X2", (5, 5, 75, 43)), ("zorn", (20, 10, 50, 40))
    recipe, text, _ = first_recipe(write_boxes(tmp_path / "photos", [outer], [outer, inner]))
    assert [kind.name for kind in recipe.components] == ["widget X2"]
    assert [kind.name for kind in recipe.defects] == ["zorn"]
    assert "its boxes lie in those of 'widget x2'" in text


def test_without_sound_photos_nothing_asks_whether_there_is_a_defect(tmp_path: Path) -> None:
    photos = write_boxes(
        tmp_path / "photos", [("patches", (2, 2, 20, 14))], [("inclusion", (50, 30, 79, 47))]
    )
    recipe, text, asked = first_recipe(photos)
    assert recipe.none_word is None and "presence" not in recipe.active_families
    assert "# - presence: none is without a defect" in text
    assert "In which part of the picture do you see patches?" in "".join(
        recipe.families["where"].questions
    ) or ("Where do you see {phrase}?" in recipe.active_families["where"].questions)
    assert not [question for question in asked if re.search(r"\b(a|an|is the|is there) patches", question)]


def test_several_boxes_are_counted(tmp_path: Path) -> None:
    one, two = ("crack", (5, 5, 30, 40)), ("crack", (40, 5, 70, 40))
    recipe, _, _ = first_recipe(write_boxes(tmp_path / "photos", [one], [one, two], []))
    assert "count" in recipe.active_families and "kind" not in recipe.active_families


def test_where_nothing_is_a_defect_classes_are_things_to_look_for(tmp_path: Path) -> None:
    pump, tank = ("pump", (5, 5, 40, 40)), ("tank", (45, 5, 75, 40))
    recipe, _, asked = first_recipe(write_boxes(tmp_path / "photos", [pump], [pump, tank], [tank]))
    assert recipe.kind_names == ["pump", "tank"] and not recipe.components
    assert "Do you see a tank?" in asked and not any("defect" in question for question in asked)


SMALL = ("crack", (200, 200, 212, 212))


@pytest.mark.parametrize(
    ("boxes", "model", "unit"),
    [
        ([SMALL, ("blade", (180, 180, 240, 240))], "tiny_cpu", "object"),
        ([SMALL], "tiny_cpu", "tile"),  # nothing to crop around
        ([("crack", (200, 200, 400, 400))], "tiny_cpu", "picture"),
        ([SMALL, ("blade", (180, 180, 240, 240))], "onevision_7b_lora", "picture"),
    ],
)
def test_the_unit_fits_the_boxes_and_the_model(boxes: Boxes, model: str, unit: str, tmp_path: Path) -> None:
    sound = [box for box in boxes if box[0] != "crack"]
    photos = write_boxes(tmp_path / "photos", boxes, sound, count=12, size=(800, 600))
    recipe, text, _ = first_recipe(photos, "--model", model)
    assert recipe.unit == unit and "presence" in recipe.active_families
    assert unit == "picture" or "100% of the boxes are thinner than one patch when" in " ".join(text.split())


def test_conversations_of_the_source_are_passed_on(tmp_path: Path) -> None:
    photos = write_boxes(tmp_path / "photos", [], count=12)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A pump."}]
    images = sorted((photos / "images").iterdir())
    records = [{"id": p.stem, "image": f"images/{p.name}", "conversations": turns} for p in images]
    write_json_list(photos / "records.json", records)
    for file in (photos / "annotations").iterdir():
        file.unlink()
    recipe, _, asked = first_recipe(photos)
    assert set(recipe.active_families) == {"talk"} and set(asked) == {"What is it?"}


@pytest.mark.parametrize(
    "name", ["no", "1e3", "a: b", "${x}", "{kind}", "# x", "'", '"', "no\u202ewhere", "1"]
)
def test_foreign_class_names_are_quoted(name: str, tmp_path: Path) -> None:
    photos = write_boxes(tmp_path / "photos", [("crack", (5, 5, 30, 40))], [(name, (40, 5, 70, 40))])
    recipe, _, _ = first_recipe(photos)
    known = recipe.known_names()
    assert {"crack", " ".join(name.casefold().split())} <= known.keys()


def test_a_recipe_is_not_overwritten(tmp_path: Path) -> None:
    photos = write_boxes(tmp_path / "photos", [BOLT], [BOLT, MISSING])
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"my\.yaml: exists already"):
        data_prep(["inspect", "--source", str(photos), "--write-recipe", str(tmp_path / "my.yaml")])
    assert (tmp_path / "my.yaml").read_text() == "mine"


def test_photos_that_support_no_question_are_refused(tmp_path: Path) -> None:
    photos = write_boxes(tmp_path / "photos", [("crack", (5, 5, 30, 40))], count=2)
    with pytest.raises(InputError, match="no question has different answers in 3 pictures or more"):
        data_prep(["inspect", "--source", str(photos), "--write-recipe", str(tmp_path / "my.yaml")])
    assert not (tmp_path / "my.yaml").exists()


@pytest.mark.parametrize(
    ("source", "defects", "unit"),
    [
        ("cplid", ["defect"], "object"),
        (
            "neu_det",
            ["inclusion", "patches", "crazing", "pitted surface", "rolled-in scale", "scratches"],
            "picture",
        ),
        ("magnetic_tile", ["blowhole", "break", "crack", "fray", "uneven part"], "picture"),
        ("broken_unbroken", ["broken part"], "picture"),
        ("roboflow_coco", ["defect"], "object"),
    ],
)
def test_real_folders(shared_data: Path, source: str, defects: list[str], unit: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    folder = shared_data / source
    assert data_prep(["inspect", "--source", str(folder), "--write-recipe", str(file)]) == 0
    recipe = load_settings(Recipe, file)
    assert (recipe.kind_names, recipe.unit) == (defects, unit)
