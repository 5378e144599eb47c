"""Lists the methods of making defects. A new one is a row of PAINTERS: what makes its painter.

Each is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Painter, Photo
from data_prep.synthetic import Method


def _paste(photos: Sequence[Photo], recipe: Recipe) -> Painter:
    painter: Painter = import_module("data_prep.synthesis.paste").PastePainter(photos)
    return painter


def _render(photos: Sequence[Photo], recipe: Recipe) -> Painter:
    painter: Painter = import_module("data_prep.synthesis.render").RenderPainter(recipe)
    return painter


PAINTERS: dict[Method, Callable[[Sequence[Photo], Recipe], Painter]] = {"paste": _paste, "render": _render}
