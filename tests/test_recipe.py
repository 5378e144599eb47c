"""Recipes: the ones that ship are valid, and mistakes are named with a remedy."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.recipe import Recipe
from llava.errors import InputError
from llava.settings import load_settings, validate_settings


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "components": [{"name": "insulator"}],
        "defects": [{"name": "missing disc", "aliases": ["Missing-Cap"]}, {"name": "nest"}],
        "families": {"presence": {"questions": ["Is there a defect?"]}},
    }
    return validate_settings(Recipe, values | changes, "test.yaml")


@pytest.mark.parametrize("name", ["insulator", "steel_surface", "defect", "magnetic_tile", "insulator_discs"])
def test_shipped_recipes(repo: Path, name: str) -> None:
    loaded = load_settings(Recipe, repo / "configs" / "recipes" / f"{name}.yaml")
    assert loaded.asked
    for family in loaded.asked.values():
        assert len(family.questions) >= 2, "several phrasings each"


def test_overrides_reach_inside(repo: Path) -> None:
    file = repo / "configs" / "recipes" / "insulator.yaml"
    loaded = load_settings(Recipe, file, ["families.count=null", "families.kind.times=3", "splits.test=0.3"])
    assert "count" not in loaded.asked
    assert loaded.asked["kind"].times == 3 and loaded.splits.test == 0.3
    with pytest.raises(InputError, match=r"families\.kind\.tims.*did you mean 'times'"):
        load_settings(Recipe, file, ["families.kind.tims=3"])


def test_defaults_are_filled_in() -> None:
    made = recipe(families={"box": {"family": "where", "type": "box", "questions": ["Box of it?"]}})
    assert made.asked["box"].of == "defect"
    assert recipe().asked["presence"].type == "yesno"
    assert [kind.phrase for kind in made.components] == ["an insulator"]
    assert made.kind_answers == ["missing disc", "nest", "none"]
    known = made.known_names()
    assert known["missing cap"] is known["missing disc"] is made.defects[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defcts": []}, "did you mean 'defects'"),
        ({"defects": []}, "defects"),
        ({"families": {}}, "at least one question family"),
        ({"families": {"kind": None}}, "at least one question family"),
        ({"families": {"presence": {"questions": []}}}, "questions"),
        ({"families": {"presence": {"questions": ["Is {this} it?"]}}}, r"\{this\}.*\{kind\}, \{phrase\}"),
        ({"families": {"presence": {"questions": ["<image> Fine?"]}}}, "mark is added"),
        ({"families": {"presence": {"questions": ["{"]}}}, "questions|families"),
        ({"families": {"presence": {"type": "box", "questions": ["?"]}}}, "has type yesno, not box"),
        ({"families": {"presence": {"of": "tower", "questions": ["?"]}}}, "'tower' is not one of"),
        ({"families": {"describe": {"questions": ["?"]}}}, "describe family"),
        ({"families": {"where": {"family": "kind", "questions": ["?"]}}}, "another key"),
        ({"defects": [{"name": "a"}, {"name": "b", "aliases": ["A"]}]}, "belongs to both a and b"),
        ({"none_word": "nest"}, "is the name of a defect"),
        ({"unit": "object", "components": []}, "crops around components"),
        ({"group": {"pattern": "(a)(b)"}}, "one pair of brackets"),
        ({"group": {"pattern": "("}}, "not a regular expression"),
        ({"splits": {"train": 0}}, "splits.train"),
        ({"splits": {"train": float("inf")}}, "splits.train"),
        ({"places": ["left"] * 9}, "nine different"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(**changes)
    assert str(caught.value).startswith("test.yaml: ") and "\n" not in str(caught.value)
