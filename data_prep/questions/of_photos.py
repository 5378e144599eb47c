"""What a recipe asks of a photo that nobody has annotated."""

from __future__ import annotations

from data_prep.annotations import Shape
from data_prep.images.units import Unit
from data_prep.questions.records import QuestionAnswer
from data_prep.questions.select import make_questions
from data_prep.recipe.families import FamilyName
from data_prep.recipe.schema import Recipe

_LEFT_OUT: tuple[FamilyName, ...] = ("region", "talk", "choice")


def photo_questions(recipe: Recipe) -> list[QuestionAnswer]:
    """Return the recipe's test questions about any photo, by language and family; the answers mean nothing.

    They are those that test photos with each kind of defect would be asked, so that wordings and choices are
    the same. Left out are questions about the box of an annotation, conversations of the source, and multiple
    choice, whose letters say nothing beside the `kind` question.
    """
    found: dict[tuple[str, str, str], QuestionAnswer] = {}
    size = (1000, 1000)
    components = tuple(Shape(kind.name, (0.0, 0.0, 1000.0, 1000.0)) for kind in recipe.components)
    for kind in recipe.defects:
        defect = Shape(kind.name, (450.0, 450.0, 550.0, 550.0))
        unit = Unit(kind.name, kind.name, kind.name, size, components, (defect,))
        for qa in make_questions([unit], recipe, "test", seed=0)[0]:
            if qa.family not in _LEFT_OUT:
                found.setdefault((qa.task, qa.language, qa.question), qa)
    languages, tasks = list(recipe.language_shares), list(recipe.active_families)
    kinds = ["defect", *(kind.name for kind in recipe.kinds)]
    return sorted(
        found.values(),
        key=lambda qa: (languages.index(qa.language), tasks.index(qa.task), kinds.index(qa.about)),
    )


def presupposes(qa: QuestionAnswer, recipe: Recipe) -> bool:
    """Return whether a question takes for granted that what it is about is there."""
    family = recipe.active_families[qa.task]
    return family.family == "where" or (family.family == "describe" and family.of == "each")
