"""What a recipe asks of photos that have no annotation."""

from pathlib import Path

from data_prep.questions.of_photos import photo_questions, presupposes
from data_prep.questions.records import to_question
from data_prep.recipe.schema import Recipe
from llava.common.settings import load_settings
from llava.common.shipped import RECIPES, find_recipe, names_in


def shipped(name: str) -> Recipe:
    return load_settings(Recipe, find_recipe(Path(name)))


def test_every_kind_is_asked_for_in_the_words_and_with_the_choices_of_the_test() -> None:
    recipe = shipped("insulator_full")
    found = photo_questions(recipe)
    asked = {(qa.task, qa.about): to_question(qa, recipe) for qa in found}
    assert len(asked) == len(found), "each is asked once"
    for kind in recipe.defects:
        assert asked["presence_of", kind.name].text == f"Is there {kind.phrase}?"
        assert asked["presence_of", kind.name].choices == ["yes", "no"]
        assert asked["where", kind.name].text == f"Where is the {kind.word}?"
    assert asked["kind", "defect"].choices == [kind.word for kind in recipe.defects] + ["none"]
    assert {"presence", "count", "describe", "report", "box"} <= {task for task, _ in asked}
    assert not {"choice", "region", "component_region"} & {task for task, _ in asked}
    assert {qa.task for qa in found if presupposes(qa, recipe)} == {"where", "box", "describe_kind"}


def test_every_shipped_recipe_but_that_of_conversations_asks_something() -> None:
    assert [name for name in names_in(RECIPES) if not photo_questions(shipped(name))] == ["vqa"]


def test_several_languages_are_all_asked() -> None:
    recipe = load_settings(Recipe, find_recipe(Path("insulator_full")), ["languages.ko=1"])
    found = photo_questions(recipe)
    assert [qa.language for qa in found if qa.task == "presence"] == ["en", "ko"]
    assert {qa.task for qa in found if qa.language == "ko"} == {
        qa.task for qa in found if qa.language == "en"
    }
