"""The painter that draws defects on real components: what `data_prep.scenes` draws, and marks on surfaces.

It needs no donor and no weights. It knows kinds by their names: KINDS says which drawing a name means.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from data_prep.annotations import plain_name
from data_prep.recipe.schema import Recipe
from data_prep.scenes.chance import Chance
from data_prep.synthesis.drawing.coats import draw_burn, draw_pollution
from data_prep.synthesis.drawing.discs import draw_broken, draw_missing
from data_prep.synthesis.drawing.drawn import Drawn, FoundString
from data_prep.synthesis.drawing.nests import draw_nest
from data_prep.synthesis.drawing.shells import Shells, find_shells
from data_prep.synthesis.drawing.surfaces import (
    draw_crack,
    draw_on_surface,
    draw_pits,
    draw_scratches,
    draw_stain,
)
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from data_prep.synthesis.strings import InsulatorString, find_string
from llava.common.boxes import Box
from llava.common.masks import Pixels, blend_over
from llava.common.synthetic import Method

Drawing = Literal[
    "missing disc", "broken disc", "burn", "pollution", "nest", "scratch", "crack", "stain", "pit"
]

KINDS: dict[str, Drawing] = {
    **dict.fromkeys(("missing disc", "missing cap", "missing shed", "self explosion"), "missing disc"),
    **dict.fromkeys(("broken disc", "damaged disc", "broken cap", "broken shed", "chipped"), "broken disc"),
    **dict.fromkeys(("flashover", "flashed", "burn", "burnt", "arc damage"), "burn"),
    **dict.fromkeys(("pollution", "polluted", "contamination", "dirt"), "pollution"),
    **dict.fromkeys(("nest", "nests"), "nest"),
    **dict.fromkeys(("scratch", "scratches"), "scratch"),
    **dict.fromkeys(("crack", "cracks"), "crack"),
    **dict.fromkeys(("stain", "stains", "patches"), "stain"),
    **dict.fromkeys(("pit", "pits", "pitted", "pitting", "blowhole"), "pit"),
}
"""Words in a kind's name or aliases, and what is drawn for it."""
WHOLE: dict[str, Drawing] = {
    "missing": "missing disc",
    "broken": "broken disc",
    "spot": "stain",
    "spots": "stain",
}
"""Names that mean a drawing if they say no more: a broken strand is no broken disc."""

_ON_SURFACE = {"scratch": draw_scratches, "crack": draw_crack, "stain": draw_stain, "pit": draw_pits}
_ON_STRING = {
    "missing disc": draw_missing,
    "broken disc": draw_broken,
    "burn": draw_burn,
    "pollution": draw_pollution,
}
_REMEMBERED = 256  # strings: finding one takes seconds, and a component is drawn on again and again


def drawing_of(names: Sequence[str]) -> Drawing | None:
    """Return what is drawn for a kind of these names, the first that says it; None where none does."""
    for name in map(plain_name, names):
        if name in WHOLE:
            return WHOLE[name]
        for words, drawing in KINDS.items():
            if f" {words} " in f" {name} ":
                return drawing
    return None


class RenderPainter:
    """Draws a recipe's kinds of defects."""

    method: Method = "render"
    batch_size = 1

    def __init__(self, recipe: Recipe) -> None:
        self._drawings = {kind.name: drawing_of([kind.name, *kind.aliases]) for kind in recipe.defects}
        self._found = lru_cache(_REMEMBERED)(_find)  # which threads may share

    def can_make(self, kind: str) -> str | None:
        if self._drawings.get(kind):
            return None
        known = ", ".join(get_args(Drawing))
        return f"nothing is drawn for a kind of this name; known are {known} (by the kind's name or aliases)"

    def paint(self, jobs: Sequence[Job]) -> Sequence[Painted | Rejected]:
        return [self._paint(job) for job in jobs]

    def _paint(self, job: Job) -> Painted | Rejected:
        assert job.kind is not None
        drawing = self._drawings.get(job.kind)
        if drawing is None:
            return Rejected("nothing is drawn for that kind")
        pixels = job.photo.pixels()
        chance = Chance(job.seed)
        drawn: Drawn | Rejected | None
        if drawing in _ON_SURFACE:
            box = job.target.box if job.target else None
            drawn = draw_on_surface(_ON_SURFACE[drawing], pixels, box, chance)
        elif job.target is None:
            return Rejected(f"a {drawing} needs a component to be drawn on")
        else:
            drawn = self._on_component(drawing, job.photo, pixels, job.target.box, chance)
        if drawn is None:
            return Rejected("the component or photo is too small to draw on")
        if isinstance(drawn, Rejected):
            return drawn
        return _laid_on(pixels, drawn, drawing)

    def _on_component(
        self, drawing: Drawing, photo: Photo, pixels: Pixels, box: Box, chance: Chance
    ) -> Drawn | Rejected | None:
        found = self._found(photo, box)
        if drawing == "nest":
            return draw_nest(pixels, box, found[0] if found else None, chance)
        if found is None:
            return Rejected("no discs that repeat along a line were found on the component")
        string, shells = found
        if not shells.rows:
            return Rejected("the component's discs could not be told from what lies behind")
        return _ON_STRING[drawing](FoundString(pixels, string, shells), chance)


def _find(photo: Photo, box: Box) -> tuple[InsulatorString, Shells] | None:
    """Return the string in a box of a photo and what it covers, None where there is none."""
    pixels = photo.pixels()
    string = find_string(pixels, box)
    return (string, find_shells(pixels, string)) if string else None


def _laid_on(pixels: Pixels, drawn: Drawn, drawing: Drawing) -> Painted:
    """Lay what was drawn on its photo; nothing else of the photo changes."""
    colours = drawn.colours
    if (pixels == pixels[..., :1]).all():  # a grey photo stays one
        colours = np.repeat(colours.mean(-1, keepdims=True), 3, axis=-1)
    result, mask = pixels.copy(), np.zeros(pixels.shape[:2], np.bool_)
    result[drawn.area] = blend_over(pixels[drawn.area], np.rint(colours).astype(np.uint8), drawn.share)
    mask[drawn.area] = drawn.share > 0
    return Painted(result, mask, details={"drawing": drawing, **drawn.details})
