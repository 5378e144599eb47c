"""Questions in several languages: every word in its own, the same facts in all, scored as right."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.annotations import Shape
from data_prep.images.units import Unit
from data_prep.questions.records import to_record, to_truth
from data_prep.questions.select import make_questions
from data_prep.recipe.schema import Recipe
from eval.scoring.families import family_of
from llava.common.records import report_entries
from llava.common.settings import load_settings
from llava.train.augment import draw_augmentation, mentions_places
from llava.train.config import AugmentSettings
from tests.support.units import KINDS, LANGUAGES, asked_of, make_unit, make_units


@pytest.fixture(scope="module")
def trilingual(repo: Path) -> Recipe:
    return load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml", LANGUAGES)


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    return make_units()


def script_of(text: str) -> set[str]:
    found = set()
    for letter in text:
        if "\uac00" <= letter <= "\ud7a3":
            found.add("ko")
        elif "а" <= letter.lower() <= "я" or letter.lower() == "ё":
            found.add("ru")
        elif letter.isascii() and letter.isalpha():
            found.add("en")
    return found


def test_every_word_is_in_the_language_of_the_record(trilingual: Recipe, units: list[Unit]) -> None:
    for split in ("train", "test"):
        for item in make_questions(units, trilingual, split, 0)[0]:
            texts = [item.question, item.answer]
            if item.type == "json":
                texts = [item.question.replace("JSON", ""), " ".join(map(str, values_of(item.answer)))]
            if item.family == "choice":  # letters stand for themselves
                texts = [item.question.split("\n")[0], *item.options]
            for text in texts:
                assert script_of(text) <= {item.language}, (item.language, text)
            assert to_record(item, trilingual, "g").meta["language"] == item.language
            truth = to_truth(item, trilingual, "g")
            assert truth.language == item.language
            assert truth.label in (*KINDS, "none"), "labels are the recipe's names in every language"


def values_of(report: str) -> list[str]:
    return [value for entry in report_entries(report) for value in entry.values() if value != "null"]


def test_the_test_asks_the_same_in_every_language(trilingual: Recipe, units: list[Unit]) -> None:
    facts: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for item in make_questions(units, trilingual, "test", 0)[0]:
        facts[item.language].add((item.unit.image, item.task, item.about, item.label))
    assert facts["en"] == facts["ko"] == facts["ru"]


def test_shares_of_languages(repo: Path, units: list[Unit]) -> None:
    file = repo / "configs" / "recipes" / "insulator.yaml"
    recipe = load_settings(Recipe, file, ["languages.ko=0.25", "languages.en=0"])
    assert recipe.language_shares == {"ko": 0.25}
    items = make_questions(units, recipe, "train", 0)[0]
    assert {item.language for item in items} == {"ko"}
    assert len({item.unit.image for item in items}) == 60
    per_thing: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.task == "presence":
            per_thing[item.about][item.answer] += 1
    assert per_thing["defect"]["예"] == per_thing["defect"]["아니요"] > 0


def test_images_with_other_languages_are_not_flipped(trilingual: Recipe) -> None:
    """The trainer knows the English words of direction alone."""
    unit = make_unit(0, Shape("bird nest", (20, 20, 40, 40)))
    always = AugmentSettings(flip_horizontal=1, flip_vertical=1)
    for language, flips in (("en", True), ("ko", False), ("ru", False)):
        records = [
            to_record(item, trilingual, "g")
            for item in asked_of(trilingual, unit)
            if item.language == language
        ]
        assert any(record.meta["flip"] for record in records) and all(
            flips or mentions_places(record) for record in records
        )
        drawn = draw_augmentation(always, records, np.random.default_rng(0))
        assert (drawn.horizontal, drawn.vertical) == (flips, flips)


def test_every_true_answer_is_scored_as_right(trilingual: Recipe, units: list[Unit]) -> None:
    by_task: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for item in make_questions(units, trilingual, "test", 0)[0]:
        by_task[item.task, item.language].append(to_truth(item, trilingual, "g"))
    assert len(by_task) == 3 * 13
    for (task, _), truths in by_task.items():
        outcome = family_of(task, truths).evaluate([truth.answer for truth in truths])
        assert outcome.right.all() and outcome.parsed.all(), task
        wrong = family_of(task, truths).evaluate(["?"] * len(truths))
        assert not wrong.right.any(), task


def test_what_is_found_is_not_called_a_defect_of_the_insulator(trilingual: Recipe) -> None:
    """A nest is none; and one thing is not many."""
    nest = Shape("bird nest", (5, 45, 15, 55))
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in asked_of(trilingual, make_unit(0, nest)):
        if item.task in ("describe", "describe_kind", "describe_fully"):
            said[item.task, item.language].add(item.answer)
    assert said["describe", "en"] == {"An insulator with a bird nest on the left."}
    assert said["describe_fully", "en"] == {"There is a bird nest on the insulator."}
    assert said["describe_kind", "en"] == {"There is a bird nest on the left."}
    assert said["describe", "ru"] == {"На изоляторе обнаружено: птичье гнездо (слева)."}
    assert said["describe", "ko"] == {"애자 점검 결과: 새 둥지(왼쪽)."}
    for (_, language), texts in said.items():
        for text in texts:
            assert not any(word in text.casefold() for word in ("defect", "дефект", "결함")), (language, text)
    questions = {item.question for item in asked_of(trilingual, make_unit(0, nest)) if item.language == "ko"}
    assert "새 둥지가 어디에 있습니까?" in questions and "새 둥지가 있습니까?" in questions
