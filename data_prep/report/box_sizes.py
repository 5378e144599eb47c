"""Measure boxes as a model sees them, and warn where it most likely misses some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles

from data_prep.annotations import Shape
from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import ObjectCrops, Recipe
from data_prep.report.model import (
    BOUNDS,
    SHAPE_ROLES,
    THIN_SHARE,
    BoxSizes,
    ClassSizes,
    ShapeRole,
    View,
    unit_noun,
)
from llava.common.boxes import Box, area, holds_centre

_ADVICE = {
    "picture": "tile the pictures (unit: tile in the recipe) or train a model that sees more pixels",
    "crop": "cut smaller crops (crops.windows, crops.context in the recipe)",
    "tile": "cut smaller tiles (tiles.side in the recipe)",
}
_CROP_ADVICE = "crop around each component (unit: object in the recipe) or tile the pictures (unit: tile)"


def box_sizes(
    views: Iterable[View], roles: Mapping[str, ShapeRole], model_inputs: Sequence[ModelInput]
) -> list[BoxSizes]:
    """Return the sizes of the boxes of each role that has boxes, for each model."""
    by_role: dict[ShapeRole, dict[str, list[tuple[Shape, tuple[float, float]]]]] = {}
    for view in views:
        for shape in view.shapes:
            by_class = by_role.setdefault(roles.get(shape.name, "box"), {})
            by_class.setdefault(shape.name, []).append((shape, view.size))
    sizes = []
    for model_input in model_inputs:
        for role in [role for role in SHAPE_ROLES if role in by_role]:
            bins = [0] * (len(BOUNDS) + 1)
            classes = []
            for name, shapes in sorted(by_role[role].items()):
                sides = [model_input.thickness(shape.box, size) for shape, size in shapes]
                for side in sides:
                    bins[sum(side >= bound * model_input.patch for bound in BOUNDS)] += 1
                thin = sum(side < model_input.patch for side in sides)
                classes.append(ClassSizes(name, len(sides), median(sides), thin))
            sizes.append(BoxSizes(model_input, role, tuple(bins), tuple(classes)))
    return sizes


def thin_warnings(
    views: Sequence[View],
    sizes: Sequence[BoxSizes],
    roles: Mapping[str, ShapeRole],
    recipe: Recipe | None,
    converted: bool = False,
) -> list[str]:
    """Return a warning for each role of boxes of which the first model most likely misses some.

    It says what to do about it and how other models would fare.

    Args:
        views: The images, crops or tiles.
        sizes: Their box sizes, from `box_sizes`.
        roles: The role of each class, by name.
        recipe: The recipe, if there is one.
        converted: the views are the recipe's units, not images as they are in the source.
    """
    warnings = []
    for part in sizes:
        if part.model_input != sizes[0].model_input:
            break
        # Without a recipe nothing tells defects from the rest, so only classes with thin boxes count.
        classes = [row for row in part.classes if part.role != "box" or row.thin >= THIN_SHARE * row.count]
        count, thin = sum(row.count for row in classes), sum(row.thin for row in classes)
        if part.role == "component" or not thin or thin < THIN_SHARE * count:
            continue
        model_input, names = part.model_input, {row.name for row in classes}
        unit = unit_noun(recipe) if recipe and converted else "picture"
        what = "defects" if part.role == "defect" else f"boxes of {_join_names(sorted(names))}"
        can_crop = unit == "picture" and lie_in_components(views, names, roles)
        lines = [
            f"{thin:,} of {count:,} {what} ({thin / count:.0%}) are thinner than one "
            f"{model_input.patch}-pixel patch when {model_input.name} sees the whole {unit} at "
            f"{model_input.side} pixels: it may not see them at all.",
            *_other_models(part, sizes, names, count),
            f"Advice: {_CROP_ADVICE if can_crop else _ADVICE[unit]}.",
        ]
        if recipe and can_crop:
            still_thin = thin_in_crops(views, roles, model_input, recipe.crops)
            lines.append(f"Cropped around each component, {still_thin / count:.0%} would be thinner.")
        lines.append(
            f"Nine of ten are a patch or more thick in a crop or tile that spans at most "
            f"{sufficient_span(views, names, model_input):.0%} of the {unit}'s longer side."
        )
        warnings.append(" ".join(lines))
    return warnings


def lie_in_components(views: Iterable[View], names: set[str], roles: Mapping[str, ShapeRole]) -> bool:
    """Return whether most boxes of one of the classes `names` lie in components: where there are no roles, in
    boxes of another class."""
    count, inside = Counter[str](), Counter[str]()
    for view in views:
        for shape in view.shapes:
            if shape.name not in names:
                continue
            count[shape.name] += 1
            inside[shape.name] += any(
                holds_centre(other.box, shape.box) and area(other.box) > area(shape.box)
                for other in view.shapes
                if (roles.get(other.name) == "component" if roles else other.name != shape.name)
            )
    return any(inside[name] > number / 2 for name, number in count.items())


def _other_models(part: BoxSizes, sizes: Sequence[BoxSizes], names: set[str], count: int) -> list[str]:
    lines = []
    for other in sizes:
        if other.model_input != part.model_input and other.role == part.role:
            thin = sum(row.thin for row in other.classes if row.name in names)
            name, side = other.model_input.name, other.model_input.side
            lines.append(f"To {name}, at {side} pixels, {thin / count:.0%} are.")
    return lines


def sufficient_span(views: Sequence[View], names: set[str], model_input: ModelInput) -> float:
    """Return which share of the longer side a crop may span so that nine of ten boxes of the classes `names`
    are at least a patch thick."""
    shares = [
        model_input.thickness(shape.box, view.size) / model_input.side
        for view in views
        for shape in view.shapes
        if shape.name in names
    ]
    tenth = quantiles(shares, n=10, method="inclusive")[0] if len(shares) > 1 else shares[0]
    return tenth * model_input.side / model_input.patch


def _join_names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def thin_in_crops(
    views: Iterable[View], roles: Mapping[str, ShapeRole], model_input: ModelInput, crops: ObjectCrops
) -> int:
    """Return how many defects stay thinner than a patch in crops of components."""
    thin = 0
    for view in views:
        components = [shape.box for shape in view.shapes if roles.get(shape.name) == "component"]
        for shape in view.shapes:
            if roles.get(shape.name, "box") != "defect":
                continue
            sides = [_crop_side(box, crops) for box in components if holds_centre(box, shape.box)]
            side = min([*sides, max(view.size)])
            thin += model_input.thickness(shape.box, (side, side)) < model_input.patch
    return thin


def _crop_side(component: Box, crops: ObjectCrops) -> float:
    """Return the longer side of a crop of a component, or of a window of it."""
    x1, y1, x2, y2 = component
    shorter, longer = sorted((x2 - x1, y2 - y1))
    return max(longer / crops.windows, shorter) * (1 + 2 * crops.context)
