"""Groups of pictures that are not independent, and splits that never divide a group."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from data_prep.recipe.schema import Grouping, Shares
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.union_find import Unions

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """What grouping looks at in a picture. `source` tells apart pictures of several sources with one `key`
    (the path below the source, without suffix); `group` and `split` are what the source says, if it does."""

    key: str
    fingerprint: bytes
    source: int = 0
    group: str | None = None
    split: Split | None = None


def find_groups(members: Sequence[Member], rule: Grouping) -> list[str]:
    """The group's name of each picture, see `Grouping`. Fingerprints are perceptual hashes of one length.

    A group is named after its first member: what the source or the pattern or the folders say of that, else
    its key. Keys and folders are of one source each; what a source says or the pattern matches is the same
    in all: `tower12` is one tower.
    """
    together = Unions(len(members))
    names: list[str] = []
    first_of: dict[tuple[str, str], int] = {}
    for index, member in enumerate(members):
        said = _said_of(member, rule)
        names.append(next(iter(said.values()), _in_source(member.key, member)))
        for by, name in said.items():
            together.join(first_of.setdefault((by, name), index), index)
    for index, others in _twins(members, rule):
        for other in others:
            together.join(index, other)
    return [names[together.root(index)] for index in range(len(members))]


def _said_of(member: Member, rule: Grouping) -> dict[str, str]:
    """The groups that a picture's own facts put it in, by rule."""
    said: dict[str, str] = {}
    if member.group is not None:
        said["source"] = member.group
    if rule.pattern and (match := re.search(rule.pattern, member.key)) and match.group(1):
        said["pattern"] = match.group(1)
    if rule.folders and (folders := PurePosixPath(member.key).parts[:-1][: rule.folders]):
        said["folders"] = _in_source("/".join(folders), member)
    return said


def _in_source(name: str, member: Member) -> str:
    return f"test/{name}" if member.source else name


def _twins(members: Sequence[Member], rule: Grouping) -> Iterator[tuple[int, list[int]]]:
    """The near-twins of each member among the later ones, by index; none if the rule does not look."""
    if rule.twins is not None:
        for index, others, _ in near_twins([member.fingerprint for member in members], rule.twins):
            yield index, others.tolist()


def near_twins(fingerprints: Sequence[bytes], within: int) -> Iterator[tuple[int, IntArray, IntArray]]:
    """For each picture that has any: its index, the later pictures whose hashes differ from its own in at
    most `within` bits (indices), and in how many (bits). `fingerprints` are of one length.

    Every pair is looked at: 20,000 pictures took 3 seconds on one busy core, twice as many take four times
    that.
    """
    if not fingerprints:
        return
    hashes = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(len(fingerprints), -1)
    start = np.ascontiguousarray(hashes[:, 0])
    for index in range(len(hashes) - 1):
        # What differs in more bits within the first eight bytes alone need not be looked at further.
        likely = np.flatnonzero(np.bitwise_count(start[index + 1 :] ^ start[index]) <= within) + index + 1
        distances = np.bitwise_count(hashes[likely] ^ hashes[index]).sum(axis=1, dtype=np.int64)
        near = distances <= within
        if near.any():
            yield index, likely[near], distances[near]


@dataclass(frozen=True)
class Leaks:
    """How many pairs of pictures that are alike would lie in two splits.

    `twins` are pairs of near-twins (by `Grouping.twins`), `akin` pairs of one group for whatever reason.
    `random_*` is the number expected to lie in two splits if each picture were put into one by itself, at
    random by the shares; `given_*` the number that the source's own splits divide, None if it states none.
    """

    twins: int
    akin: int
    random_twins: float
    random_akin: float
    given_twins: int | None
    given_akin: int | None


def count_leaks(
    members: Sequence[Member], groups: Sequence[str], rule: Grouping, shares: Mapping[Split, float]
) -> Leaks:
    """What other ways to split pictures, whose groups are `groups`, would have leaked. Shares sum to 1."""
    apart = 1 - sum(share**2 for share in shares.values())
    given = any(member.split for member in members)
    twins = given_twins = 0
    for index, others in _twins(members, rule):
        twins += len(others)
        given_twins += sum(_divided(members[index].split, members[other].split) for other in others)
    akin = given_akin = 0
    for splits in _by_group((member.split for member in members), groups).values():
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


def _by_group(splits: Iterable[Split | None], groups: Sequence[str]) -> dict[str, Counter[Split | None]]:
    found: dict[str, Counter[Split | None]] = {}
    for split, group in zip(splits, groups, strict=True):
        found.setdefault(group, Counter())[split] += 1
    return found


def given_splits(given: Sequence[Split | None], groups: Sequence[str]) -> dict[str, Split]:
    """The split of each group of which a picture has a `given` one: the most held out of them, so that no
    picture leaves a given test set. Groups without are absent."""
    return {
        group: next(split for split in reversed(SPLITS) if split in splits)
        for group, splits in _by_group(given, groups).items()
        if any(splits.keys() - {None})
    }


def assign_splits(
    groups: Mapping[str, Sequence[str]], shares: Mapping[Split, float], seed: int
) -> dict[str, Split]:
    """A split for each group so that every label's share is as close as groups allow.

    `groups` holds the labels of each group's units; `shares` sum to 1. A group counts for the label of it
    that is rarest overall. Label by label, largest groups first, each goes where that label is most short of
    its target; what is left by rounding goes where units of all labels are. Deterministic in `seed`.
    """
    rarity = Counter(label for labels in groups.values() for label in labels)
    strata: dict[str, list[str]] = {}
    for name in sorted(groups):
        label = min(groups[name], key=lambda item: (rarity[item], item))
        strata.setdefault(label, []).append(name)

    used = [split for split, share in shares.items() if share > 0]
    short_overall = dict.fromkeys(used, 0.0)  # of the labels so far
    assigned: dict[str, Split] = {}
    for label in sorted(strata, key=lambda item: (-len(strata[item]), item)):
        members = strata[label]
        random.Random(f"{seed}/{label}").shuffle(members)
        members.sort(key=lambda name: -len(groups[name]))  # stable: keeps the shuffle among equals
        units = sum(len(groups[name]) for name in members)
        short_here = {split: shares[split] * units for split in used}
        for split in used:
            short_overall[split] += short_here[split]
        for name in members:
            split = max(used, key=lambda item: round(short_here[item], 6))
            if short_here[split] < 1:
                # Only fractions are left: whichever gets it, the label is within one of its target, so
                # the sums over labels decide. Else each label's rounding would favour the same split.
                open_splits = [item for item in used if short_here[item] > 1e-6] or used
                split = max(open_splits, key=lambda item: round(short_overall[item], 6))
            assigned[name] = split
            short_here[split] -= len(groups[name])
            short_overall[split] -= len(groups[name])
    return assigned


def scaled_shares(shares: Shares, without_test: bool) -> dict[Split, float]:
    """The shares, summing to 1; with a test source of its own, only train and val share."""
    values = {split: 0.0 if split == "test" and without_test else getattr(shares, split) for split in SPLITS}
    total = sum(values.values())
    return {split: value / total for split, value in values.items()}
