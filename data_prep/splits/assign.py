"""Puts the groups of images into splits, and leaves out what would let a test score be too good."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from data_prep.annotations import Shape
from data_prep.images.units import PreparedImage, Unit
from data_prep.recipe.schema import Recipe, Shares
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.balance import improve_shares, unmet_shares
from data_prep.splits.checks import Check, what_joins
from data_prep.splits.groups import Leaks, count_leaks, count_splits, find_groups
from data_prep.splits.member import GroupMember
from llava.common.errors import InputError


@dataclass
class Conversion:
    """What was read, cut, grouped and split: the units that questions are made of, and notes on the way."""

    recipe: Recipe
    units: dict[Split, list[Unit]] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    """The group of each unit's image."""
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    changes: dict[str, list[str]] = field(default_factory=dict)
    """What was done to source images before they were cut: a phrase -> the keys of the images."""
    leaks: Leaks | None = None
    checks: tuple[Check, ...] = ()
    """What was looked for among the images of `split_units`, which has the test source's first."""
    groups_of_file: dict[str, list[str]] = field(default_factory=dict)
    """The groups of each source file, by its SHA-256: several sources may hold it."""
    split_of_group: dict[str, Split] = field(default_factory=dict)
    """A group that nothing is left of, and that no split was stated for, has none."""

    def drop_unasked(self, split: Split, asked: Set[str]) -> int:
        """Drop the units of `split` whose image is not among those `asked` about; return how many."""
        unasked = [unit for unit in self.units[split] if unit.image not in asked]
        self.units[split] = [unit for unit in self.units[split] if unit.image in asked]
        for unit in unasked:
            del self.group_of[unit.image]
        return len(unasked)


def split_units(
    prepared: Sequence[Sequence[PreparedImage]],
    recipe: Recipe,
    seed: int,
    notes: Sequence[str] = (),
    workers: int = 1,
) -> Conversion:
    """Group the images and assign the groups to splits.

    An image that is there twice is kept once. If its copies are annotated differently, none is kept: one of
    them is wrong (most often it was not annotated at all), nothing tells which, and a wrong answer would be
    trained on or scored by. A training image that is a near-duplicate of one of the test source, or in its
    group, is left out, as it would inflate the test's score. So is, with `splits.given: keep`, one whose
    group has an image that the source holds out further.

    Args:
        prepared: The images of the source; of the test source too, if there is one.
        recipe: Its rules of groups and splits.
        seed: Of the assignment.
        notes: Notes on the sources, which come first.
        workers: Threads that open images.

    Raises:
        InputError: Nothing is left for a split.
    """
    conversion = Conversion(recipe, {split: [] for split in SPLITS}, notes=list(notes))
    has_test_source = len(prepared) == 2
    # The test source comes first, so that it keeps what both hold.
    numbered = [(number, image) for number in reversed(range(len(prepared))) for image in prepared[number]]
    for _, image in numbered:
        conversion.notes.extend(image.notes)
        conversion.left_out.update(image.left_out)
        for change in image.changes:
            conversion.changes.setdefault(change, []).append(image.key)
    members = [
        GroupMember(
            image.key,
            image.fingerprint,
            number,
            image.group,
            image.split,
            image.cached.taken,
            image.file,
            image.cached.size,
            image.cached.points,
            image.crops,
        )
        for number, image in numbered
    ]
    found = find_groups(members, recipe.group, workers)
    groups, conversion.checks = found.names, found.checks
    shares = scaled_shares(recipe.splits, without_test=has_test_source)
    conversion.leaks = count_leaks(members, found, shares)
    stated = _stated_splits(numbered, recipe, has_test_source)
    fixed = given_splits(stated, groups)
    images = [image for _, image in numbered]
    units = _keep_units(conversion, images, groups, stated, fixed, has_test_source)
    open_groups = {group: [unit.label for unit in cut] for group, cut in units.items() if group not in fixed}
    assigned = assign_splits(open_groups, shares, seed)
    conversion.notes[:0] = unmet_shares(open_groups, shares, assigned)
    splits = conversion.split_of_group = fixed | assigned
    for image, group in zip(images, groups, strict=True):
        conversion.groups_of_file.setdefault(image.digest, []).append(group)
    for group, cut in units.items():
        conversion.units[splits[group]].extend(cut)
    _require_units(conversion, shares, len(units))
    return conversion


def _keep_units(
    conversion: Conversion,
    images: Sequence[PreparedImage],
    groups: Sequence[str],
    stated: Sequence[Split | None],
    fixed: Mapping[str, Split],
    has_test_source: bool,
) -> dict[str, list[Unit]]:
    """Choose the units of each group: no copies, and no images whose group belongs to another split.

    Args:
        conversion: Gets the notes and counts of what is left out.
        images: The prepared images.
        groups: The group of each.
        stated: The split that each must be in, None where that is open.
        fixed: The split of each group of which an image has a stated one.
        has_test_source: Whether the test images are a source of their own.
    """
    conflicting = _annotated_differently([unit for image in images for unit in image.units])
    for copies in conflicting.values():
        keys = ", ".join(unit.key for unit in copies)
        conversion.left_out["copies of one picture that are annotated differently"] += len(copies)
        conversion.notes.append(f"{keys}: left out, as these are one picture and annotated differently")
    units: dict[str, list[Unit]] = {}
    first_of: dict[str, Unit] = {}
    for image, group, split in zip(images, groups, stated, strict=True):
        if fixed.get(group, split) != split and (split or has_test_source):
            reason = f"{split or 'training'} pictures akin to a {fixed[group]} picture"
            conversion.left_out[reason] += 1
            conversion.notes.append(f"{image.key}: left out, akin to a {fixed[group]} picture of the source")
            continue
        for unit in image.units:
            if unit.image in conflicting:
                continue
            if (first := first_of.setdefault(unit.image, unit)) is not unit:
                conversion.left_out["copies of another picture"] += 1
                conversion.notes.append(f"{unit.key}: left out, the same picture as {first.key}")
                continue
            units.setdefault(group, []).append(unit)
            conversion.group_of[unit.image] = group
    return units


def _require_units(conversion: Conversion, shares: Mapping[Split, float], groups: int) -> None:
    """Raise InputError if a split that should have units has none."""
    for split in SPLITS:
        if conversion.units[split] or (split != "train" and shares[split] == 0):
            continue
        if conversion.recipe.splits.given == "keep":
            raise InputError(
                f"nothing is left for {split}: the source's own splits have none; "
                f"set splits.{split}=0 or splits.given=ignore"
            )
        raise InputError(
            f"nothing is left for {split}: {groups} group(s) of pictures are too few to split"
            + what_joins(conversion.checks)
        )


def _annotated_differently(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Find the images whose copies are annotated differently, with those copies."""
    copies: dict[str, list[Unit]] = {}
    for unit in units:
        copies.setdefault(unit.image, []).append(unit)
    return {
        image: found
        for image, found in copies.items()
        if not all(_agree(found[0], other) for other in found[1:])
    }


def _agree(first: Unit, second: Unit) -> bool:
    """Tell whether two copies are annotated the same; sides may be a pixel apart, as tools round."""
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


def _stated_splits(
    numbered: Sequence[tuple[int, PreparedImage]], recipe: Recipe, has_test_source: bool
) -> list[Split | None]:
    """Return the split that each (number of its source, image) must be in, None where that is open."""
    if recipe.splits.given == "ignore":
        return ["test" if number else None for number, _ in numbered]
    if has_test_source:
        raise InputError("--test-source and splits.given=keep both say what the test pictures are; use one")
    if not any(image.split for _, image in numbered):
        raise InputError("splits.given=keep, but the source states no splits; leave it out")
    return [image.split for _, image in numbered]


def given_splits(given: Sequence[Split | None], groups: Sequence[str]) -> dict[str, Split]:
    """Return the split of each group of which an image has a `given` one: the most held out of them, so that
    no image leaves a given test set. Groups without are absent."""
    return {
        group: next(split for split in reversed(SPLITS) if split in splits)
        for group, splits in count_splits(given, groups).items()
        if any(splits.keys() - {None})
    }


def assign_splits(
    groups: Mapping[str, Sequence[str]], shares: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """Assign a split to each group so that every label's share is as close as groups allow, as far as a
    search finds (`improve_shares`).

    `groups` holds the labels of each group's units; `shares` sum to 1. A group counts for the label of it
    that is rarest overall. Label by label, largest groups first, each goes where that label is most short of
    its target; what is left by rounding goes where units of all labels are. Then the search improves what
    groups of several labels left uneven. Deterministic in `seed`.

    Calibration comes first and is drawn: the search would give it the small groups, which are missed less
    often than those that a decision is certified for.
    """
    if share := shares.get("calibration"):
        drawn: dict[str, Split] = dict.fromkeys(_draw(groups, share, seed), "calibration")
        rest = {name: labels for name, labels in groups.items() if name not in drawn}
        others = {split: value / (1 - share) for split, value in shares.items()} | {"calibration": 0.0}
        return drawn | assign_splits(rest, others, seed)
    strata = _strata(groups)
    used = [split for split, share in shares.items() if share > 0]
    missing_overall = dict.fromkeys(used, 0.0)  # of the labels so far
    assigned: dict[str, Split] = {}
    for label in sorted(strata, key=lambda item: (-len(strata[item]), item)):
        members = strata[label]
        random.Random(f"{seed}/{label}").shuffle(members)
        members.sort(key=lambda name: -len(groups[name]))  # stable: keeps the shuffle among equals
        units = sum(len(groups[name]) for name in members)
        missing_here = {split: shares[split] * units for split in used}
        for split in used:
            missing_overall[split] += missing_here[split]
        for name in members:
            split = max(used, key=lambda item: round(missing_here[item], 6))
            if missing_here[split] < 1:
                # Only fractions are left: whichever gets it, the label is within one of its target, so
                # the sums over labels decide. Else each label's rounding would favour the same split.
                open_splits = [item for item in used if missing_here[item] > 1e-6] or used
                split = max(open_splits, key=lambda item: round(missing_overall[item], 6))
            assigned[name] = split
            missing_here[split] -= len(groups[name])
            missing_overall[split] -= len(groups[name])
    if len(used) < 2 or not groups:
        return assigned
    numbers = {name: used.index(split) for name, split in assigned.items()}
    improved = improve_shares(groups, [shares[split] for split in used], numbers, seed)
    return {name: used[number] for name, number in improved.items()}


def _draw(groups: Mapping[str, Sequence[str]], share: float, seed: int) -> list[str]:
    """Draw a share of the groups, one at least, each as likely as any other whatever its size; of every
    stratum as many as its share, to within one (systematic sampling, in a random order within strata)."""
    generator = random.Random(f"{seed}/calibration")
    order: list[str] = []
    for _, members in sorted(_strata(groups).items()):
        order += generator.sample(members, len(members))
    start = generator.random()
    drawn = [
        name
        for place, name in enumerate(order)
        if math.floor(start + (place + 1) * share) > math.floor(start + place * share)
    ]
    return drawn or generator.sample(order, min(1, len(order)))


def _strata(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the groups by the label of each that is rarest overall."""
    rarity = Counter(label for labels in groups.values() for label in labels)
    strata: dict[str, list[str]] = {}
    for name in sorted(groups):
        label = min(groups[name], key=lambda item: (rarity[item], item))
        strata.setdefault(label, []).append(name)
    return strata


def scaled_shares(shares: Shares, without_test: bool) -> dict[Split, float]:
    """Scale the shares to a sum of 1; a test source of its own makes the whole test split."""
    values = {split: 0.0 if split == "test" and without_test else getattr(shares, split) for split in SPLITS}
    total = sum(values.values())
    return {split: value / total for split, value in values.items()}
