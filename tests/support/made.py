"""A painter that needs nothing: for tests of what lies around painters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.annotations import AnnotatedSource
from data_prep.commands.convert import read_sources
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from data_prep.synthesis.painted import Job, Painted, Rejected
from llava.common.masks import box_mask
from llava.common.settings import load_settings
from llava.common.shipped import find_recipe
from llava.common.synthetic import Method


def recipe_of(name: str = "insulator", *overrides: str) -> Recipe:
    return load_settings(Recipe, find_recipe(Path(name)), list(overrides))


def source_of(folder: Path, recipe: Recipe) -> AnnotatedSource:
    return read_sources([SourceFolder.scan(folder)], recipe, "auto")[0]


class SpotPainter:
    """Paints a spot of a quarter of the target's sides in its middle, in a colour of the job's seed.

    `batches` are the numbers of the jobs of each call.
    """

    method: Method = "render"
    batch_size = 3

    def __init__(self, refuses: Sequence[int] = ()) -> None:
        self.refuses = refuses
        self.batches: list[list[int]] = []

    def can_make(self, kind: str) -> str | None:
        return "it cannot be drawn" if kind == "bird nest" else None

    def paint(self, jobs: Sequence[Job]) -> Sequence[Painted | Rejected]:
        self.batches.append([job.number for job in jobs])
        return [self._paint(job) for job in jobs]

    def _paint(self, job: Job) -> Painted | Rejected:
        if job.number in self.refuses:
            return Rejected("refused")
        width, height = job.photo.size
        x1, y1, x2, y2 = job.target.box if job.target else (0, 0, width, height)
        x, y, across, down = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 8, (y2 - y1) / 8
        mask = box_mask((x - across, y - down, x + across, y + down), (height, width))
        pixels = job.photo.pixels().copy()
        colour = np.random.default_rng(job.seed).integers(0, 100, 3)
        # far from what was there, whatever it was
        pixels[mask] = np.where(pixels[mask] > 127, pixels[mask] - 100, pixels[mask] + 100) + colour % 20
        return Painted(pixels, mask, prompt=f"a {job.kind}", details={"spot": True})
