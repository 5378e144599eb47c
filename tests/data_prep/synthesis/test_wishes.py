"""What is painted is named in the recipe's words, in English where there are such."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from data_prep.annotations import Shape
from data_prep.recipe.families import Words
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job, Photo
from data_prep.synthesis.wishes import Wishes
from tests.support.made import recipe_of


def job(kind: str | None, component: str | None = None) -> Job:
    target = None if component is None else Shape(component, (0.0, 0.0, 9.0, 9.0))
    return Job(0, Photo(Path("a.png"), "a.png", "0" * 64, (9, 9), (), ()), kind, target, 0)


def test_a_wish_names_the_defect_and_what_it_is_on() -> None:
    wishes = Wishes(recipe_of())
    assert wishes.of(job("broken disc", "insulator")) == "a broken disc on an insulator"
    assert wishes.of(job("flashover", "insulator")) == "flashover on an insulator"
    assert wishes.of(job(None, "insulator")) == "the surroundings of an insulator"
    assert Wishes(recipe_of("steel_surface")).of(job("scratches")) == "scratches"


def test_a_recipe_in_another_language_wishes_in_english_if_it_can() -> None:
    crack = {"name": "crack", "word": "Riss", "phrase": "ein Riss"}
    german = {
        "language": "de",
        "defects": [crack],
        "families": {"presence": {"questions": ["Ist etwas kaputt?"]}},
        "any_defect": {"word": "Fehler", "phrase": "ein Fehler"},
    }
    assert Wishes(Recipe.model_validate(german)).of(job("crack", "beam")) == "ein Riss on a beam"
    english = Words().model_dump() | {
        "none_word": "none",
        "kinds": {"crack": {"word": "crack", "phrase": "a long crack"}},
        "families": {"presence": {"questions": ["Is anything broken?"]}},
    }
    both = Recipe.model_validate(german | {"translations": {"en": english}})
    assert Wishes(both).of(job("crack", "beam")) == "a long crack on a beam"


@pytest.mark.parametrize("prompt", ["a photo", "{wish} of {color}", "{wish", "{wish:5}"])
def test_a_template_needs_the_wish_and_known_fields(prompt: str) -> None:
    with pytest.raises(ValidationError, match=r"synthetic\.prompt"):
        Recipe.model_validate({"defects": [{"name": "crack"}], "synthetic": {"prompt": prompt}})
