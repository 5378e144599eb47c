"""Chooses what one question is about, a picture, a crop or a tile, by how large defects are to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from data_prep.annotations import plain_name
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import ObjectCrops
from data_prep.report.box_sizes import box_sizes, lie_in_components, sufficient_span, thin_in_crops
from data_prep.report.model import THIN_SHARE, ShapeRole, View
from data_prep.starter.classes import FoundClasses

_LARGE = 4  # times as many pixels along a side as the model sees: then a tile shows more of a picture
_MOST_TILES = 6  # along the longer side
_MOST_WINDOWS = 4  # of a component


@dataclass(frozen=True)
class ChosenUnit:
    """A recipe's `unit` and why, in a sentence; the `side` of its tiles and the `windows` of its crops."""

    unit: Literal["picture", "object", "tile"]
    why: str
    side: int = 0
    windows: int = 1


def choose_unit(views: Sequence[View], classes: FoundClasses, model_input: ModelInput) -> ChosenUnit:
    """Choose the unit for a source.

    Whole pictures, where nine of ten defects are a patch or more thick in them or nothing says where defects
    are. Else crops around components, where defects lie in them and are thicker there; else tiles, where
    pictures have far more pixels than the model sees.
    """
    named: dict[ShapeRole, set[str]] = {
        "component": {plain_name(name) for found in classes.components for name in found.names},
        "defect": {plain_name(name) for found in classes.defects for name in found.names},
    }
    roles: dict[str, ShapeRole] = {
        shape.name: role
        for view in views
        for shape in view.shapes
        for role, names in named.items()
        if plain_name(shape.name) in names
    }
    defects = {name for name, role in roles.items() if role == "defect"}
    sizes = [size for size in box_sizes(views, roles, [model_input]) if size.role == "defect"]
    if not sizes:
        return ChosenUnit("picture", "no box says where in a picture something is")
    thin, count = sizes[0].thin, sizes[0].count
    seen = f"when {model_input.name} sees whole pictures at {model_input.side} pixels"
    if thin < THIN_SHARE * count:
        return ChosenUnit("picture", f"the boxes are large enough {seen}")
    what = f"{thin / count:.0%} of the boxes are thinner than one patch {seen}"
    if lie_in_components(views, defects, roles):
        words = " or ".join(found.word for found in classes.components)
        for windows in range(1, _MOST_WINDOWS + 1):
            in_crops = thin_in_crops(views, roles, model_input, ObjectCrops(windows=windows))
            if in_crops <= thin / 2:
                part = f"each {words}" if windows == 1 else f"each of {windows} parts of every {words}"
                return ChosenUnit(
                    "object", f"{what}, {in_crops / count:.0%} in a crop around {part}", windows=windows
                )
    longer = median(max(view.size) for view in views)
    if longer >= _LARGE * model_input.side:
        span = sufficient_span(views, defects, model_input)
        side = max(span * longer, model_input.side, longer / _MOST_TILES)
        return ChosenUnit(
            "tile", f"{what}, and tiles show more of such large pictures", side=32 * round(side / 32)
        )
    return ChosenUnit(
        "picture",
        f"{what}. The pictures are too small to gain much by tiles (unit: tile); a model that sees more "
        "pixels would",
    )
