"""Joins images by what their names and clocks tell: versions of one photo, photos of one moment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from data_prep.photo_names import (
    copied_name,
    exported_photo,
    may_number_photos,
    original_name,
    time_in_name,
)
from data_prep.source_folder import SPLIT_NAMES
from data_prep.splits.member import GroupMember

Links = list[tuple[int, int]]
_MOST_COPIES = 3  # `tower12 (1)` to `(3)` beside `tower12`
# Folders that augmenting tools and exports put versions into, apart from the photo that they were made from.
_FOLDERS = re.compile(r"(images?|photos?|pictures?|originals?|aug(ment(ed|ation)?)?|outputs?)", re.IGNORECASE)


def find_versions(members: Sequence[GroupMember]) -> Links:
    """Return links between images that are versions of one photo by their names.

    Roboflow's names hold wherever they lie, others within a folder, of whatever split. Names without anything
    added are not joined, as every folder may begin anew with `001`.
    """
    plain: dict[tuple[int, str], int] = {}
    for index, member in enumerate(members):
        plain.setdefault((member.source, member.key), index)
    first_of: dict[tuple[str, ...], int] = {}
    untouched: dict[tuple[str, ...], list[int]] = {}
    copies: dict[int, list[int]] = {}
    unsure: dict[tuple[str, ...], list[int]] = {}
    links: Links = []
    for index, member in enumerate(members):
        path = PurePosixPath(member.key)
        name = original_name(path.name)
        copied = copied_name(path.name)
        if copied and (original := plain.get((member.source, str(path.with_name(copied))))) is not None:
            copies.setdefault(original, []).append(index)
        exported = exported_photo(path.name)
        place = () if exported else (str(member.source), *_folder(path), "")
        if name == path.name:
            untouched.setdefault((*place, name), []).append(index)
        elif not exported and may_number_photos(path.name):
            unsure.setdefault((*place, name), []).append(index)
        else:
            links.append((first_of.setdefault((*place, name), index), index))
            if exported:  # a version that went another way than through Roboflow
                own_place = (str(member.source), *_folder(path), "", name)
                links.append((first_of.setdefault(own_place, index), index))
    for photo, indices in unsure.items():
        if photo in untouched:
            links += [(first_of.setdefault(photo, indices[0]), index) for index in indices]
    for photo, indices in untouched.items():
        links += [(first_of[photo], index) for index in indices if photo in first_of]
    for original, indices in copies.items():
        # A browser saves many pictures from many pages as `images (7)`.
        if len(indices) <= _MOST_COPIES:
            links += [(original, index) for index in indices]
    return [(first, second) for first, second in links if first != second]


def _folder(path: PurePosixPath) -> tuple[str, ...]:
    return tuple(
        part
        for part in path.parts[:-1]
        if part.casefold() not in SPLIT_NAMES and not _FOLDERS.fullmatch(part)
    )


def find_moments(members: Sequence[GroupMember], gap: float) -> Links:
    """Return links between images that were taken at most `gap` seconds after one another."""
    timed = sorted(
        (time, index) for index, member in enumerate(members) if (time := taken(member)) is not None
    )
    return [(first[1], second[1]) for first, second in pairwise(timed) if second[0] - first[0] <= gap]


def taken(member: GroupMember) -> float | None:
    """Return when an image was taken, in seconds: by its name, else by its EXIF; None if neither tells."""
    in_name = time_in_name(PurePosixPath(member.key).name)
    return member.taken if in_name is None else in_name


def propose_gap(members: Sequence[GroupMember]) -> float | None:
    """Return a gap for `group.time`: the widest that leaves moments apart; None where fewer than half of the
    images tell a time, none was taken soon after another, or all in one go."""
    if 2 * sum(taken(member) is not None for member in members) < len(members):
        return None
    for gap in (10.0, 5.0, 2.0):
        lengths = _chain_lengths(find_moments(members, gap))
        if lengths and max(lengths) <= max(3, len(members) / 5):
            return gap
    return None


def _chain_lengths(links: Links) -> list[int]:
    """Return how many images each chain of links in a row holds."""
    lengths: list[int] = []
    last = -1
    for first, second in links:
        if first == last:
            lengths[-1] += 1
        else:
            lengths.append(2)
        last = second
    return lengths
