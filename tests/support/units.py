"""Units, recipes and questions for tests of what is asked."""

import random
from typing import Any

from data_prep.annotations import Shape
from data_prep.images.units import Unit
from data_prep.questions.records import QuestionAnswer
from data_prep.questions.select import make_questions
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import Split
from llava.common.settings import validate_settings

KINDS = ["missing disc", "broken disc", "flashover", "pollution", "bird nest"]
LANGUAGES = ["languages.ko=1", "languages.ru=1"]


def make_unit(number: int, *defects: Shape, **more: Any) -> Unit:
    """A picture of 200x100 with an insulator over most of it; its name says nothing."""
    name = f"images/{random.Random(f'name {number}').getrandbits(64):016x}.jpg"
    insulator = Shape("insulator", (10, 10, 190, 90))
    return Unit(f"u{number}", f"u{number}", name, (200, 100), (insulator,), defects, **more)


def make_units(count: int = 240, seed: int = 0) -> list[Unit]:
    """Pictures with no, one or two defects; missing discs are common, nests rare."""
    rng = random.Random(seed)
    units = []
    for number in range(count):
        names = rng.choices(KINDS, [8, 4, 4, 2, 1], k=rng.choice((0, 1, 1, 1, 2)))
        shapes = []
        for name in names:
            x, y = rng.randrange(15, 160), rng.randrange(15, 70)
            shapes.append(Shape(name, (x, y, x + rng.randrange(8, 25), y + rng.randrange(6, 15))))
        units.append(make_unit(1000 * seed + number, *shapes))
    return units


def only(task: str, family: dict[str, Any], **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "components": [{"name": "insulator"}],
        "defects": [
            {"name": "crack", "severity": "severe", "action": "replace"},
            {"name": "moss", "phrase": "moss", "severity": "minor", "action": "clean"},
        ],
        "families": {task: family},
    }
    return validate_settings(Recipe, values | changes, "test.yaml")


def asked_of(recipe: Recipe, *units: Unit, split: Split = "test") -> list[QuestionAnswer]:
    return make_questions(units, recipe, split, 0)[0]


CRACK, MOSS = Shape("crack", (20, 20, 40, 40)), Shape("moss", (150, 60, 180, 90))
