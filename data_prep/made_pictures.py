"""Add made pictures to the training units of a conversion: `convert --synthetic DIR`.

A made picture looks like the photos it was made of, so it may only be trained on, and only beside these: one
made of any photo that is held out is left out. Real photos are grouped and split before made ones are looked
at, so that their splits are the same with and without.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_prep.annotations import (
    AnnotatedSource,
    Annotation,
    merge_annotations,
    plain_name,
)
from data_prep.images.units import PreparedImage, Unit
from data_prep.made_folders import NONE, MadeFolder, MadePicture
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SPLITS
from data_prep.splits.assign import Conversion
from data_prep.splits.twins import find_twins
from data_prep.synthetic import Origin
from llava.common.boxes import Box, intersection
from llava.common.errors import InputError
from llava.common.files import inside, sha256
from llava.common.masks import Mask, load_mask, share_of_box
from llava.common.synthetic import SYNTHETIC_FILE, Facts

_COVERED = 0.5  # a box is lost if so much of it was painted over


@dataclass(frozen=True)
class MadeUnits:
    """The units of a made picture that may be trained on."""

    picture: MadePicture
    units: tuple[Unit, ...]


# --- choosing --------------------------------------------------------------------------------------------


def of_training_photos(
    folders: Sequence[MadeFolder], conversion: Conversion, prepared: Sequence[Sequence[PreparedImage]]
) -> list[MadePicture]:
    """Return the pictures whose parents are all in train. The others are counted in `conversion.left_out`.

    Args:
        folders: All made pictures.
        conversion: The real photos, split.
        prepared: The same photos, as they were prepared.
    """
    _, held = held_out(conversion, prepared)
    chosen = []
    for folder in folders:
        if folder.removed:
            conversion.left_out["made pictures whose files were removed"] += folder.removed
        for picture in folder.pictures:
            reason = _why_not(picture, conversion, held)
            if reason is None:
                chosen.append(picture)
            else:
                conversion.left_out[f"made pictures {reason}"] += 1
    return chosen


def held_out(
    conversion: Conversion, prepared: Sequence[Sequence[PreparedImage]]
) -> tuple[list[PreparedImage], set[str]]:
    """Return the photos that have a unit in a split other than train, and the SHA-256 of the files that may
    not be trained on: theirs, and those of all photos whose group is in such a split."""
    images = {unit.image for split in SPLITS[1:] for unit in conversion.units[split]}
    held = [item for items in prepared for item in items if any(unit.image in images for unit in item.units)]
    groups = {group for group, split in conversion.split_of_group.items() if split != "train"}
    of_groups = {file for file, own in conversion.groups_of_file.items() if not groups.isdisjoint(own)}
    return held, of_groups | {item.digest for item in held}


def _why_not(picture: MadePicture, conversion: Conversion, held: Set[str]) -> str | None:
    """Return why a picture cannot be trained on, None if it can; `held` are the files of `held_out`."""
    parents = [parent.sha256 for parent in picture.facts.parents]
    if not held.isdisjoint(parents):
        return "of a photo that is held out"
    groups = [conversion.groups_of_file.get(parent, []) for parent in parents]
    if not all(groups):
        return "of a photo that is in no source"
    if any(group not in conversion.split_of_group for found in groups for group in found):
        return "of a photo that no split holds"
    return None


def with_labels_of_parents(
    pictures: Sequence[MadePicture],
    recipe: Recipe,
    sources: Sequence[AnnotatedSource],
    prepared: Sequence[Sequence[PreparedImage]],
) -> list[MadePicture]:
    """Return pictures with the labels of the photo that was changed, where their facts ask for these.

    Args:
        pictures: Those of `of_training_photos`.
        recipe: Says which classes are components.
        sources: The real photos.
        prepared: The same, prepared.
    """
    annotated = {image.file: image for source in sources for image in source.images}
    by_digest = {item.digest: item for items in reversed(prepared) for item in reversed(items)}
    components = {kind.name for kind in recipe.components}
    names = recipe.known_names()
    added = []
    for picture in pictures:
        facts, image = picture.facts, picture.image
        if facts.adds_labels:
            item = by_digest[facts.parents[0].sha256]
            photo = annotated[item.file]
            shapes, _ = merge_annotations(photo, item.cached.size, item.cached.orientation)
            (own,) = image.annotations
            painted = _painted(own, facts)
            # A defect is painted on a component, which stays; a new background takes what it covers.
            on = components if facts.kind else set()
            stays = [
                shape
                for shape in shapes
                if ((kind := names[plain_name(shape.name)]) and kind.name in on)
                or share_of_box(painted, shape.box) <= _COVERED
            ]
            labels = tuple(label for annotation in photo.annotations for label in annotation.labels)
            theirs = replace(own, shapes=(*stays, *own.shapes), labels=labels)
            picture = replace(picture, image=replace(image, annotations=[theirs]))
        added.append(picture)
    return added


def _painted(annotation: Annotation, facts: Facts) -> Mask:
    """Return the pixels of a picture that may have changed; InputError if the file of them is of another."""
    file = inside(annotation.file.parent, facts.mask)
    mask = load_mask(file)
    assert annotation.size is not None
    width, height = annotation.size
    if mask.shape != (height, width):
        raise InputError(f"{file}: a mask of another size than its picture; make it again")
    return mask


def add_made(
    folders: Sequence[MadeFolder],
    pictures: Sequence[MadePicture],
    made: Sequence[PreparedImage],
    conversion: Conversion,
    prepared: Sequence[Sequence[PreparedImage]],
    seed: int,
) -> None:
    """Add the units of made pictures to train, up to the recipe's share.

    Args:
        folders: All made pictures.
        pictures: Those of `of_training_photos`.
        made: The same, prepared.
        conversion: The real photos, split; gets the units, and counts what is left out.
        prepared: The real photos, prepared.
        seed: Of the choice.
    """
    # A crop that shows nothing of what was made is that of the photo itself.
    known = {unit.image for items in prepared for item in items for unit in item.units}
    alike = _like_held_out(made, conversion, prepared)
    found = []
    for index, (picture, item) in enumerate(zip(pictures, made, strict=True)):
        origin = _origin(picture.facts, conversion)
        units = tuple(
            replace(unit, origin=origin)
            for unit in item.units
            if unit.image not in known and _shows(unit, picture.boxes)
        )
        known.update(unit.image for unit in units)
        if index in alike:
            conversion.left_out["made pictures that look like a photo that is held out"] += 1
        elif not units:
            conversion.left_out["made pictures without a part that shows what was made"] += 1
        else:
            found.append(MadeUnits(picture, units))
            conversion.notes.extend(item.notes)
    train = conversion.units["train"]
    drawn = draw_made(found, train, conversion.recipe.synthetic.share, seed)
    if over := len(found) - len(drawn):
        conversion.left_out["made pictures beyond synthetic.share"] += over
    for entry in drawn:
        for unit in entry.units:
            assert unit.origin is not None
            train.append(unit)
            conversion.group_of[unit.image] = unit.origin.groups[0]
    for folder, used in zip(folders, _count_used(folders, conversion), strict=True):
        if not used:
            conversion.notes.append(
                f"{folder.root}: none of its {len(folder.pictures)} made pictures is used"
            )


def _origin(facts: Facts, conversion: Conversion) -> Origin:
    """Return what records tell of a picture; the first of its groups is that of the photo it was made on."""
    parents = tuple(dict.fromkeys(parent.sha256 for parent in facts.parents))
    groups = (group for parent in parents for group in conversion.groups_of_file[parent])
    return Origin(facts.method, facts.kind, parents, tuple(dict.fromkeys(groups)))


def _shows(unit: Unit, boxes: Sequence[Box]) -> bool:
    """Return whether a unit shows something of what was made; a whole new background is everywhere."""
    crop = unit.crop
    return crop is None or not boxes or any(intersection(crop, box) > 0 for box in boxes)


def _like_held_out(
    made: Sequence[PreparedImage], conversion: Conversion, prepared: Sequence[Sequence[PreparedImage]]
) -> set[int]:
    """Return the made pictures, by index, that are copies of a held-out photo by the recipe's rule: their
    facts name the wrong parents."""
    held = {item.file for item in held_out(conversion, prepared)[0]}
    real = [item for items in prepared for item in items]
    is_held = np.array([item.file in held for item in real], dtype=np.bool_)
    # All are compared: where many are alike (pieces in one fixture), what is usual tells what a copy is.
    fingerprints = [item.fingerprint for item in (*real, *made)]
    # A recipe that joins no copies still may not test on one.
    sides = np.concatenate([is_held, np.full(len(made), 2)])
    first, second, _ = find_twins(fingerprints, conversion.recipe.group.twins or 0, sides)
    across = (first < len(real)) & (second >= len(real))
    first, second = first[across], second[across]
    return set((second[is_held[first]] - len(real)).tolist())


def draw_made(found: Sequence[MadeUnits], real: Sequence[Unit], share: float, seed: int) -> list[MadeUnits]:
    """Draw pictures up to a share of all units of train, each time of the kind that train has least of.

    Args:
        found: All that may be trained on.
        real: The units of real photos in train.
        share: The most that made units may be of both, below 1.
        seed: Of the order within a kind.

    Returns:
        Those drawn, in the order of `found`.
    """
    room = math.floor(share / (1 - share) * len(real) + 1e-9)
    counts = Counter(kind for unit in real for kind in unit.kinds or [NONE])
    waiting: dict[str, list[int]] = {}
    for index, entry in enumerate(found):
        waiting.setdefault(entry.picture.kind, []).append(index)
    for kind, indices in waiting.items():
        random.Random(f"{seed}/synthetic/{kind}").shuffle(indices)
    drawn = []
    while waiting and room:
        kind = min(waiting, key=lambda name: (counts[name], name))
        index = waiting[kind].pop()
        if not waiting[kind]:
            del waiting[kind]
        if (size := len(found[index].units)) <= room:
            drawn.append(index)
            room -= size
            counts[kind] += size
    return [found[index] for index in sorted(drawn)]


# --- what is told ----------------------------------------------------------------------------------------


def made_facts(folders: Sequence[MadeFolder], conversion: Conversion) -> dict[str, Any] | None:
    """Return the manifest's entry on made pictures, None where no folder of them was named.

    `pictures` counts the units in train that were made, `share` is theirs of all.
    """
    if not folders:
        return None
    train = conversion.units["train"]
    origins = [unit.origin for unit in train if unit.origin]
    return {
        "folders": [
            {
                "folder": str(folder.root),
                "sha256": sha256(folder.root / SYNTHETIC_FILE),
                "pictures": len(folder.pictures),
                "used": used,
            }
            for folder, used in zip(folders, _count_used(folders, conversion), strict=True)
        ],
        "pictures": len(origins),
        "share": round(len(origins) / max(1, len(train)), 4),
        "methods": dict(sorted(Counter(origin.method for origin in origins).items())),
        "kinds": dict(sorted(Counter(origin.kind or NONE for origin in origins).items())),
    }


def _count_used(folders: Sequence[MadeFolder], conversion: Conversion) -> list[int]:
    """Return how many pictures of each folder are in train."""
    used = {unit.source for unit in conversion.units["train"] if unit.origin}
    return [sum(picture.image.key in used for picture in folder.pictures) for folder in folders]
