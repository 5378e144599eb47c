"""Says in a recipe's words what a job wishes to see: "a broken disc on an insulator"."""

from __future__ import annotations

from data_prep.annotations import plain_name
from data_prep.recipe.english import noun_phrase
from data_prep.recipe.families import DefectKind
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job


class Wishes:
    """The wishes of a recipe, in English where it has English words: most text encoders read little else."""

    def __init__(self, recipe: Recipe) -> None:
        in_english = "en" in (recipe.language, *recipe.translations)
        spoken = recipe.in_language("en") if in_english else recipe
        self._kinds = {plain_name(kind.name): kind for kind in spoken.kinds}
        self._in_english = in_english

    def of(self, job: Job) -> str:
        """Return what the picture of a job shall show, and on what if the photo says so.

        The component that a job of no kind keeps is not wished for: what is painted would be more of them.
        """
        if job.kind is None:
            assert job.target is not None
            return f"the surroundings of {self._phrase(job.target.name)}"
        wish = self._phrase(job.kind)
        return wish if job.target is None else f"{wish} on {self._phrase(job.target.name)}"

    def _phrase(self, name: str) -> str:
        """Return how a sentence says that there is one: the recipe's phrase, else that of an English name."""
        kind: DefectKind | None = self._kinds.get(plain_name(name))
        if kind is None:
            return noun_phrase(name)
        return kind.phrase or (noun_phrase(kind.word) if self._in_english else kind.word)
