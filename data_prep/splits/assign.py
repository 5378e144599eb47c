"""Pictures that were read and cut, in groups and splits: what is there to ask about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from data_prep.annotations import Shape
from data_prep.images.units import Prepared, Unit
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.splits import (
    Leaks,
    Member,
    assign_splits,
    count_leaks,
    find_groups,
    given_splits,
    scaled_shares,
)
from llava.common.errors import InputError


@dataclass
class Conversion:
    """What was read, cut, grouped and split, ready to be asked about."""

    recipe: Recipe
    units: dict[Split, list[Unit]] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    # What was done to source pictures before they were cut: a phrase -> the keys of the pictures.
    changes: dict[str, list[str]] = field(default_factory=dict)
    leaks: Leaks | None = None

    def drop_silent(self, split: Split, asked: Set[str]) -> int:
        """Forget the units of `split` whose image is not among those `asked` about; returns how many."""
        silent = [unit for unit in self.units[split] if unit.image not in asked]
        self.units[split] = [unit for unit in self.units[split] if unit.image in asked]
        for unit in silent:
            del self.group_of[unit.image]
        return len(silent)


def split_units(
    prepared: Sequence[Sequence[Prepared]], recipe: Recipe, seed: int, notes: Sequence[str] = ()
) -> Conversion:
    """Group the pictures and assign the splits. `prepared` is [source] or [source, test source].

    A picture that is there twice is kept once. If its copies are annotated differently, none is kept: one of
    them is wrong (most often it was not annotated at all), nothing tells which, and a wrong answer would be
    trained on or scored by. A training picture akin to one of the test source is left out, as it would
    inflate the test's score. So is, with `splits.given: keep`, a picture akin to one that the
    source holds out further.
    """
    conversion = Conversion(recipe, {split: [] for split in SPLITS}, notes=list(notes))
    # The test source comes first, so that it keeps what both hold.
    tagged = [(number, item) for number in reversed(range(len(prepared))) for item in prepared[number]]
    for _, item in tagged:
        conversion.notes.extend(item.notes)
        conversion.left_out.update(item.left_out)
        for change in item.changes:
            conversion.changes.setdefault(change, []).append(item.key)
    members = [Member(item.key, item.fingerprint, number, item.group, item.split) for number, item in tagged]
    groups = find_groups(members, recipe.group)
    shares = scaled_shares(recipe.splits, without_test=len(prepared) == 2)
    conversion.leaks = count_leaks(members, groups, recipe.group, shares)

    held_out = _held_out(tagged, recipe, test_source=len(prepared) == 2)
    fixed = given_splits(held_out, groups)
    doubtful = _annotated_differently([unit for _, item in tagged for unit in item.units])
    for copies in doubtful.values():
        keys = ", ".join(unit.key for unit in copies)
        conversion.left_out["copies of one picture that are annotated differently"] += len(copies)
        conversion.notes.append(f"{keys}: left out, as these are one picture and annotated differently")
    units: dict[str, list[Unit]] = {}
    seen: dict[str, Unit] = {}
    for (_, item), group, said in zip(tagged, groups, held_out, strict=True):
        if fixed.get(group, said) != said and (said or len(prepared) == 2):
            reason = f"{said or 'training'} pictures akin to a {fixed[group]} picture"
            conversion.left_out[reason] += 1
            conversion.notes.append(f"{item.key}: left out, akin to a {fixed[group]} picture of the source")
            continue
        for unit in item.units:
            if unit.image in doubtful:
                continue
            if (first := seen.setdefault(unit.image, unit)) is not unit:
                conversion.left_out["copies of another picture"] += 1
                conversion.notes.append(f"{unit.key}: left out, the same picture as {first.key}")
                continue
            units.setdefault(group, []).append(unit)
            conversion.group_of[unit.image] = group

    free = {group: [unit.label for unit in cut] for group, cut in units.items() if group not in fixed}
    splits = fixed | assign_splits(free, shares, seed)
    for group, cut in units.items():
        conversion.units[splits[group]].extend(cut)
    for split in SPLITS:
        if not conversion.units[split] and (split == "train" or shares[split] > 0):
            if recipe.splits.given == "keep":
                raise InputError(
                    f"nothing is left for {split}: the source's own splits have none; "
                    f"set splits.{split}=0 or splits.given=ignore"
                )
            raise InputError(
                f"nothing is left for {split}: {len(units)} group(s) of pictures are too few to split"
            )
    return conversion


def _annotated_differently(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """The copies of each image on which they do not agree."""
    copies: dict[str, list[Unit]] = {}
    for unit in units:
        copies.setdefault(unit.image, []).append(unit)
    return {
        image: found
        for image, found in copies.items()
        if not all(_agree(found[0], other) for other in found[1:])
    }


def _agree(first: Unit, second: Unit) -> bool:
    """Are two copies annotated the same? The sides of boxes may be a pixel apart: tools round differently."""
    return (
        set(first.labels) == set(second.labels)
        and _same_shapes(first.components, second.components)
        and _same_shapes(first.defects, second.defects)
    )


def _same_shapes(first: Sequence[Shape], second: Sequence[Shape]) -> bool:
    left = list(second)
    for shape in first:
        for other in left:
            if other.name == shape.name and all(
                abs(ours - theirs) <= 1 for ours, theirs in zip(shape.box, other.box, strict=True)
            ):
                left.remove(other)
                break
        else:
            return False
    return not left


def _held_out(
    tagged: Sequence[tuple[int, Prepared]], recipe: Recipe, *, test_source: bool
) -> list[Split | None]:
    """The split that each (number of its source, picture) must be in, None where that is open."""
    if recipe.splits.given == "ignore":
        return ["test" if number else None for number, _ in tagged]
    if test_source:
        raise InputError("--test-source and splits.given=keep both say what the test pictures are; use one")
    if not any(item.split for _, item in tagged):
        raise InputError("splits.given=keep, but the source states no splits; leave it out")
    return [item.split for _, item in tagged]
