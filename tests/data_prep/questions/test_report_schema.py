"""The JSON schema of a recipe's reports: it fits them, nothing else, and an engine can hold answers to it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from data_prep.questions.report_schema import report_schema
from data_prep.questions.select import make_questions
from data_prep.recipe.schema import Recipe
from llava.common.settings import load_settings
from llava.inference.engine import Engine, Request
from tests.support.small_model import random_model
from tests.support.units import CRACK, LANGUAGES, MOSS, make_unit, make_units, only


@pytest.fixture(scope="module")
def recipe(repo: Path) -> Recipe:
    return load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml", LANGUAGES)


def test_all_reports_of_a_recipe_fit_and_others_do_not(recipe: Recipe) -> None:
    schema = jsonschema.Draft202012Validator(report_schema(recipe))
    units = [*make_units()[:40], make_unit(900, CRACK, MOSS), make_unit(901)]
    answers = [
        item.answer for item in make_questions(units, recipe, "train", 0)[0] if item.family == "report"
    ]
    reports = [json.loads(answer) for answer in answers]
    assert any(isinstance(report, list) for report in reports)
    assert any(report for report in reports if not isinstance(report, list) and report["severity"] is None)
    assert len({str(report.keys()) for report in reports if isinstance(report, dict)}) == 1
    for report in reports:
        schema.validate(report)
        first = report[0] if isinstance(report, list) else report
        for wrong in ({"severity": "fatal"}, {"location": "here"}, {"defect": "x"}, {"more": 1}):
            assert not schema.is_valid(first | wrong)
        assert not schema.is_valid([first])


def test_a_model_that_knows_nothing_writes_a_valid_report(recipe: Recipe, tiny_model_dir: Path) -> None:
    schema = report_schema(recipe)
    loaded = random_model(tiny_model_dir)
    loaded.model.generation_config.eos_token_id = 2  # the others are pieces of text that reports need
    results = Engine(loaded).answer(
        [Request(number, "Write a condition report as JSON.") for number in range(8)],
        json_schema=json.dumps(schema),
        temperature=1.5,
        max_new_tokens=400,
    )
    assert any(result.finish_reason == "stop" for result in results)
    for result in results:
        assert result.error is None
        if result.finish_reason == "stop":
            jsonschema.validate(json.loads(result.text), schema)


def test_a_recipe_without_reports_has_no_schema() -> None:
    assert report_schema(only("presence", {"questions": ["Is there a {kind}?"]})) is None
