"""Recipes: the ones that ship are valid, and mistakes are named with a remedy."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from data_prep.__main__ import main as data_prep
from data_prep.recipe.families import DefectKind, FamilyName, QuestionFamily, Words
from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError
from llava.common.files import read_jsonl
from llava.common.records import Truth
from llava.common.settings import load_settings, validate_settings
from tests.support.photos import write_pair


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "components": [{"name": "insulator"}],
        "defects": [{"name": "missing disc", "aliases": ["Missing-Cap"]}, {"name": "nest"}],
        "families": {"presence": {"questions": ["Is there a defect?"]}},
    }
    return validate_settings(Recipe, values | changes, "test.yaml")


SHIPPED = [
    "defect",
    "insulator",
    "insulator_discs",
    "insulator_full",
    "magnetic_tile",
    "steel_surface",
    "vqa",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes(repo: Path, name: str) -> None:
    loaded = load_settings(Recipe, repo / "configs" / "recipes" / f"{name}.yaml")
    assert loaded.active_families
    for language in (loaded.language, *loaded.translations):
        for family in loaded.in_language(language).active_families.values():
            assert len(family.questions) >= 2 or family.family == "talk", "several phrasings each"


def test_every_shipped_recipe_is_tested(repo: Path) -> None:
    files = {path.stem for path in (repo / "configs" / "recipes").glob("*.yaml")}
    assert files == {*SHIPPED, "insulator.ko", "insulator.ru"}


def test_the_full_recipe_has_every_family(repo: Path) -> None:
    loaded = load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml")
    assert {family.family for family in loaded.active_families.values()} == set(get_args(FamilyName))
    assert set(loaded.translations) == {"ko", "ru"}
    plain = load_settings(Recipe, repo / "configs" / "recipes" / "insulator.yaml")
    known = [(kind.name, kind.aliases, kind.phrase) for kind in plain.defects]
    assert [(kind.name, kind.aliases, kind.phrase) for kind in loaded.defects] == known


def test_overrides_reach_inside(repo: Path) -> None:
    file = repo / "configs" / "recipes" / "insulator.yaml"
    loaded = load_settings(Recipe, file, ["families.count=null", "families.kind.times=3", "splits.test=0.3"])
    assert "count" not in loaded.active_families
    assert loaded.active_families["kind"].times == 3 and loaded.splits.test == 0.3
    with pytest.raises(InputError, match=r"families\.kind\.tims.*did you mean 'times'"):
        load_settings(Recipe, file, ["families.kind.tims=3"])


def test_defaults_are_filled_in() -> None:
    made = recipe(families={"box": {"family": "where", "type": "box", "questions": ["Box of it?"]}})
    assert made.active_families["box"].of == "defect"
    assert recipe().active_families["presence"].type == "yesno"
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
        ({"families": {"presence": {"questions": ["Any {kind:d}?"]}}}, r"write \{kind\} alone"),
        ({"families": {"presence": {"questions": ["Any {kind!r}?"]}}}, r"write \{kind\} alone"),
        ({"families": {"presence": {"questions": ["{"]}}}, "questions|families"),
        ({"families": {"presence": {"type": "box", "questions": ["?"]}}}, "has type yesno, not box"),
        ({"families": {"presence": {"of": "tower", "questions": ["?"]}}}, "'tower' is not one of"),
        ({"families": {"describe": {"questions": ["?"]}}}, "answers: write the sentences that a describe"),
        (
            {"families": {"presence": {"questions": ["?"], "answers": ["x"]}}},
            "presence question is not answered",
        ),
        ({"families": {"where": {"family": "kind", "questions": ["?"]}}}, "another key"),
        ({"defects": [{"name": "a"}, {"name": "b", "aliases": ["A"]}]}, "belongs to both a and b"),
        ({"none_word": "nest"}, "is the name of a defect"),
        ({"unit": "object", "components": []}, "crops around components"),
        (
            {"unit": "object", "families": {"count": {"of": "insulator", "questions": ["How many?"]}}},
            "cannot be asked for components",
        ),
        ({"group": {"pattern": "(a)(b)"}}, "one pair of brackets"),
        ({"group": {"pattern": "("}}, "not a regular expression"),
        ({"splits": {"train": 0}}, "splits.train"),
        ({"splits": {"train": float("inf")}}, "splits.train"),
        ({"places": ["left"] * 9}, "nine different"),
        ({"absent_word": "left"}, "one of the places"),
        ({"yes_word": "No"}, "the same"),
        ({"defects": [{"name": "a", "word": "x"}, {"name": "b", "word": "X"}]}, "the same word"),
        ({"place_phrase": "{phrase} in {colour}"}, r"place_phrase.*\{colour\}"),
        ({"families": {"choice": {"questions": ["Which?"]}}}, r"needs \{options\}"),
        ({"families": {"choice": {"questions": ["{options}"], "options": 4}}}, "only 3 possible answers"),
        ({"families": {"region": {"questions": ["What is this?"]}}}, r"needs \{box\}"),
        ({"families": {"region": {"of": "each", "questions": ["{box}"]}}}, "not each kind"),
        ({"families": {"region": {"type": "text", "questions": ["{box}"]}}}, "the sentences that a region"),
        (
            {"none_word": None, "families": {"region": {"questions": ["{box}"], "negatives": 0.5}}},
            "none_word",
        ),
        ({"families": {"where": {"questions": ["?"], "negatives": 0.5}}}, "`negatives` are for"),
        ({"families": {"where": {"questions": ["?"], "negatives": 1}}}, "negatives"),
        ({"families": {"presence": {"questions": ["?"], "cap": 2}}}, "`cap` is for"),
        ({"families": {"presence": {"questions": ["?"], "options": 3}}}, "`options` is for"),
        ({"families": {"presence": {"questions": ["?"], "component": "x"}}}, "`component` is for"),
        (
            {
                "families": {
                    "describe": {"of": "each", "questions": ["?"], "answers": ["x"], "negatives": 0.1}
                }
            },
            "`whole`",
        ),
        ({"families": {"report": {"questions": ["?"]}}}, "severity and action of 'missing disc'"),
        ({"families": {"talk": {"questions": ["?"]}}}, "leave out `questions`"),
        ({"languages": {"ko": 1}}, "no translation to 'ko'"),
        ({"languages": {"en": 0}}, "a share above 0"),
        ({"languages": {"en": 2}}, "languages.en"),
        ({"translations": {"de": {"kinds": {}, "families": {}}}}, "yes_word.*the defaults are English"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(**changes)
    assert str(caught.value).startswith("test.yaml: ") and "\n" not in str(caught.value)


GERMAN = {
    "yes_word": "ja",
    "no_word": "nein",
    "none_word": "keiner",
    "absent_word": "nicht im Bild",
    "and_word": "und",
    "or_word": "oder",
    "places": [f"Feld {number}" for number in range(1, 10)],
    "place_phrase": "{phrase} ({place})",
    "any_defect": {"word": "Schaden"},
    "kinds": {
        "insulator": {"word": "Isolator"},
        "missing disc": {"word": "Scheibe fehlt"},
        "nest": {"word": "Nest", "phrase": "ein Nest"},
    },
    "families": {"presence": {"questions": ["Gibt es einen Schaden?"]}, "never asked": {}},
}


def german(**changes: Any) -> Recipe:
    return recipe(translations={"de": GERMAN | changes}, languages={"de": 0.5})


def test_any_language_can_be_added_as_data() -> None:
    made = german()
    assert made.language_shares == {"en": 1, "de": 0.5}
    in_language = made.in_language("de")
    assert in_language.kind_answers == ["Scheibe fehlt", "Nest", "keiner"]
    assert [kind.phrase for kind in in_language.defects] == ["Scheibe fehlt", "ein Nest"]
    assert in_language.kind_names == ["missing disc", "nest"], "annotations, labels and scores keep the names"
    assert (
        made.in_language("en") is made and made.yes_no("de") == ("ja", "nein") and made.yes_no("fr") is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": {"insulator": {"word": "Isolator"}}}, r"translations\.de\.kinds: 'missing disc'"),
        ({"families": {}}, r"translations\.de\.families\.presence: write its questions"),
        ({"families": {"presence": {"questions": ["Ist {das} da?"]}}}, r"translations\.de.*\{das\}"),
        (
            {"families": {"presence": {"questions": ["Heil?"], "answers": ["Ja."]}}},
            "answers: write it as in the recipe",
        ),
        ({"none_word": None}, r"translations\.de\.none_word"),
        ({"none_word": "nest"}, r"translations\.de\.none_word 'nest' is the name"),
    ],
)
def test_incomplete_translations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        german(**changes)
    assert "\n" not in str(caught.value)


def test_recipes_build_on_others(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text(
        "defects: [{name: crack}]\nseveral: largest\nfamilies: {presence: {questions: [Fine?]}}\n"
    )
    (tmp_path / "b.yaml").write_text("several: skip\nfamilies: {count: {questions: [How many?]}}\n")
    (tmp_path / "c.yaml").write_text("extends: [base/a.yaml, b.yaml]\nfamilies: {presence: {times: 2}}\n")
    made = load_settings(Recipe, tmp_path / "c.yaml", ["families.count.times=3"])
    assert made.several == "skip" and made.kind_names == ["crack"]
    assert {task: family.times for task, family in made.active_families.items()} == {
        "presence": 2,
        "count": 3,
    }
    for text, message in (
        ("extends: c.yaml", "extends itself"),
        ("extends: absent.yaml", "absent.yaml: no such file"),
        ("extends: {a: 1}", "a file name or a list"),
        ("7", "expected `key: value` lines"),
    ):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            load_settings(Recipe, tmp_path / "c.yaml")


def test_the_example_in_the_docs_loads_and_converts(repo: Path, tmp_path: Path) -> None:
    text = (repo / "docs" / "recipes.md").read_text(encoding="utf-8")
    example, german_words = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "blades.yaml"
    file.write_text(example, encoding="utf-8")
    # The German words fit it, once those families alone are asked.
    (tmp_path / "blades.de.yaml").write_text(f"extends: blades.yaml\n{german_words}", encoding="utf-8")
    off = [f"families.{task}=null" for task in ("presence_of", "where", "region", "report")]
    german = load_settings(Recipe, tmp_path / "blades.de.yaml", ["languages.de=1", *off])
    assert german.in_language("de").kind_answers == ["Riss", "Erosion", "keiner"]

    source = tmp_path / "photos"
    for index in range(24):
        boxes = [("blade", (5, 5, 75, 43)), ("shadow", (60, 2, 70, 9))]
        boxes += [(("Crack-1", "erosion")[index % 2], (10 + index, 12, 20 + index, 20))] if index % 3 else []
        write_pair(source, f"p{index}", boxes, seed=index)
    output = tmp_path / "out"
    assert (
        data_prep(["convert", "--source", str(source), "--recipe", str(file), "--output", str(output)]) == 0
    )
    truths = read_jsonl(output / "truth_test.jsonl", Truth)
    assert {truth.task for truth in truths} == set(load_settings(Recipe, file).active_families)
    assert {truth.label for truth in truths} == {"crack", "erosion", "none"}


def test_the_docs_name_every_field(repo: Path) -> None:
    text = (repo / "docs" / "recipes.md").read_text(encoding="utf-8")
    for settings in (Recipe, QuestionFamily, DefectKind, Words):
        for name in settings.model_fields:
            assert f"`{name}`" in text or name in ("families", "translations", "languages"), name
    for name in get_args(FamilyName):
        assert f"| `{name}` |" in text, name
    for file in sorted((repo / "configs" / "recipes").glob("*.yaml")):
        assert f"`{file.name}`" in text or file.stem in ("insulator.ru",), file.name
