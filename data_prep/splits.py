"""Groups of pictures that are not independent, and splits that never divide a group."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.annotations import SPLITS, Split
from data_prep.recipe import Grouping, Shares

IntArray = NDArray[np.int64]


def find_groups(keys: Sequence[str], fingerprints: Sequence[bytes], rule: Grouping) -> list[str]:
    """The group's name of each picture, see `Grouping`. `fingerprints` are perceptual hashes of one length.

    A group is named after its first member in the order of `keys` (or what `pattern` matched in that).
    """
    names = [_own_group(key, rule.pattern) for key in keys]
    parent = list(range(len(keys)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(first: int, second: int) -> None:
        low, high = sorted((root(first), root(second)))
        parent[high] = low

    first_of: dict[str, int] = {}
    for index, name in enumerate(names):
        join(first_of.setdefault(name, index), index)
    if rule.twins is not None:
        for index, others, _ in near_twins(fingerprints, rule.twins):
            for other in others:
                join(index, int(other))
    return [names[root(index)] for index in range(len(keys))]


def near_twins(fingerprints: Sequence[bytes], within: int) -> Iterator[tuple[int, IntArray, IntArray]]:
    """For each picture that has any: its index, the later pictures whose hashes differ from its own in at
    most `within` bits (indices), and in how many (bits). `fingerprints` are of one length."""
    if not fingerprints:
        return
    hashes = np.frombuffer(b"".join(fingerprints), dtype=np.uint64).reshape(len(fingerprints), -1)
    for index in range(len(hashes) - 1):
        distances = np.bitwise_count(hashes[index + 1 :] ^ hashes[index]).sum(axis=1)
        near = np.flatnonzero(distances <= within)
        if len(near):
            yield index, near + index + 1, distances[near].astype(np.int64)


def _own_group(key: str, pattern: str | None) -> str:
    match = re.search(pattern, key) if pattern else None
    return match.group(1) if match and match.group(1) else key


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
