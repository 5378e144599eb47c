"""Finds groups of images that are not independent, and counts what a split that divides them would leak."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from data_prep.recipe.schema import Grouping
from data_prep.source_folder import Split
from data_prep.union_find import UnionFind

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GroupMember:
    """What grouping needs to know of an image. `source` tells apart images of several sources with one `key`
    (the path below the source, without suffix); `group` and `split` are stated by the source, or None."""

    key: str
    fingerprint: bytes
    source: int = 0
    group: str | None = None
    split: Split | None = None


def find_groups(members: Sequence[GroupMember], rule: Grouping) -> list[str]:
    """Return the name of each image's group by the rules of `Grouping`. Fingerprints are perceptual hashes of
    one length.

    A group is named after its first member: by what the source states of it, the pattern matches or its
    folders are, else by its key. Keys and folders are of one source each; what a source states or the pattern
    matches is the same in all: `tower12` is one tower.
    """
    together = UnionFind(len(members))
    names: list[str] = []
    first_of: dict[tuple[str, str], int] = {}
    for index, member in enumerate(members):
        stated = _stated_groups(member, rule)
        names.append(next(iter(stated.values()), _in_source(member.key, member)))
        for rule_name, name in stated.items():
            together.union(first_of.setdefault((rule_name, name), index), index)
    for index, others in _near_duplicates(members, rule):
        for other in others:
            together.union(index, other)
    return [names[together.find(index)] for index in range(len(members))]


def _stated_groups(member: GroupMember, rule: Grouping) -> dict[str, str]:
    """Return the groups that an image is in by its own facts, by rule."""
    stated: dict[str, str] = {}
    if member.group is not None:
        stated["source"] = member.group
    if rule.pattern and (match := re.search(rule.pattern, member.key)) and match.group(1):
        stated["pattern"] = match.group(1)
    if rule.folders and (folders := PurePosixPath(member.key).parts[:-1][: rule.folders]):
        stated["folders"] = _in_source("/".join(folders), member)
    return stated


def _in_source(name: str, member: GroupMember) -> str:
    return f"test/{name}" if member.source else name


def _near_duplicates(members: Sequence[GroupMember], rule: Grouping) -> Iterator[tuple[int, list[int]]]:
    """Yield each member's near-duplicates among the later ones, by index; nothing if the rule is off."""
    if rule.twins is not None:
        for index, others, _ in find_near_duplicates([member.fingerprint for member in members], rule.twins):
            yield index, others.tolist()


def find_near_duplicates(
    fingerprints: Sequence[bytes], within: int
) -> Iterator[tuple[int, IntArray, IntArray]]:
    """Find the images whose perceptual hashes differ in at most `within` bits.

    Every pair is compared: 20,000 images took 3 seconds on one busy core, twice as many take four times that.

    Args:
        fingerprints: The hashes, of one length.
        within: The most bits in which near-duplicates differ.

    Yields:
        For each image that has any: its index, the indices of its later near-duplicates, and in how many bits
        they differ.
    """
    if not fingerprints:
        return
    hashes = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(len(fingerprints), -1)
    start = np.ascontiguousarray(hashes[:, 0])
    for index in range(len(hashes) - 1):
        # What differs in more bits within the first eight bytes alone cannot be near.
        likely = np.flatnonzero(np.bitwise_count(start[index + 1 :] ^ start[index]) <= within) + index + 1
        distances = np.bitwise_count(hashes[likely] ^ hashes[index]).sum(axis=1, dtype=np.int64)
        near = distances <= within
        if near.any():
            yield index, likely[near], distances[near]


@dataclass(frozen=True)
class Leaks:
    """How many pairs of images that are alike would be in two splits. The names are manifest.json's.

    `twins` counts pairs of near-duplicates (by `Grouping.twins`), `akin` pairs of one group for any reason.
    `random_*` is the number expected in two splits if each image were put into one by itself, at random by
    the shares; `given_*` the number that the source's own splits divide, None if it states none.
    """

    twins: int
    akin: int
    random_twins: float
    random_akin: float
    given_twins: int | None
    given_akin: int | None


def count_leaks(
    members: Sequence[GroupMember], groups: Sequence[str], rule: Grouping, shares: Mapping[Split, float]
) -> Leaks:
    """Count what splitting the images by themselves, or as the source does, would leak. Shares sum to 1."""
    apart = 1 - sum(share**2 for share in shares.values())
    given = any(member.split for member in members)
    twins = given_twins = 0
    for index, others in _near_duplicates(members, rule):
        twins += len(others)
        given_twins += sum(_divided(members[index].split, members[other].split) for other in others)
    akin = given_akin = 0
    for splits in count_splits((member.split for member in members), groups).values():
        akin += splits.total() * (splits.total() - 1) // 2
        known = [count for split, count in splits.items() if split]
        given_akin += (sum(known) ** 2 - sum(count**2 for count in known)) // 2
    return Leaks(
        twins,
        akin,
        round(twins * apart, 1),
        round(akin * apart, 1),
        given_twins if given else None,
        given_akin if given else None,
    )


def _divided(first: Split | None, second: Split | None) -> bool:
    return first is not None and second is not None and first != second


def count_splits(splits: Iterable[Split | None], groups: Sequence[str]) -> dict[str, Counter[Split | None]]:
    """Count the images of each group by their split."""
    counts: dict[str, Counter[Split | None]] = {}
    for split, group in zip(splits, groups, strict=True):
        counts.setdefault(group, Counter())[split] += 1
    return counts
