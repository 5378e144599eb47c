"""Says what to paint for a job: its wish in the recipe's words, with keywords of its photo, at its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job, Photo
from data_prep.synthesis.wishes import Wishes
from llava.common.images import open_image
from llava.painting.fitting import fit_prompt
from llava.painting.keywords import Asker, find_keywords
from llava.painting.prompts import Writer, fill_template, write_prompt


class JobPrompts:
    """Composes a prompt for each job; a photo is asked about once, and the same words are written once.

    For one thread at a time, as models and tokenizers are.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizers: Sequence[Any],
        see: Asker | None = None,
        write: Writer | None = None,
    ) -> None:
        """Take what is asked.

        Args:
            recipe: Its words and its template (`synthetic.prompt`) are used.
            tokenizers: The diffusion model's; each reads the whole prompt.
            see: Finds keywords of photos; None uses none.
            write: A language model; None fills the template.
        """
        self._wishes = Wishes(recipe)
        self._template = recipe.synthetic.prompt
        self._tokenizers = tokenizers
        self._see = see
        self._write = write
        self._keywords: dict[str, tuple[str, ...]] = {}
        self._prompts: dict[tuple[str, tuple[str, ...]], str] = {}

    def __call__(self, job: Job) -> str:
        """Return the prompt of a job, cut to what the model reads."""
        asked = self._wishes.of(job), self._keywords_of(job.photo)
        if asked not in self._prompts:
            wish, keywords = asked
            if self._write is None:
                composed = fill_template(wish, keywords, self._template)
            else:
                composed = write_prompt(wish, keywords, self._write, self._template)
            self._prompts[asked] = fit_prompt(composed, self._tokenizers)
        return self._prompts[asked]

    def _keywords_of(self, photo: Photo) -> tuple[str, ...]:
        if self._see is None:
            return ()
        if photo.sha256 not in self._keywords:
            self._keywords[photo.sha256] = tuple(find_keywords(open_image(photo.file), self._see))
        return self._keywords[photo.sha256]
