"""Finds groups of images that are not independent, and counts what a split that divides them would leak."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data_prep.recipe.schema import Grouping
from data_prep.source_folder import Split
from data_prep.splits.checks import Check, run_checks
from data_prep.splits.member import GroupMember
from data_prep.union_find import UnionFind


@dataclass(frozen=True)
class Groups:
    """The name of each image's group, and the checks that joined images."""

    names: list[str]
    checks: tuple[Check, ...]


def find_groups(members: Sequence[GroupMember], rule: Grouping, workers: int = 1) -> Groups:
    """Group images by the rules of `Grouping`.

    A group is named after its first member: by what the source states of it, the pattern matches or its
    folders are, else by its key. Keys and folders are of one source each; what a source states or the pattern
    matches is the same in all: `tower12` is one tower.

    Args:
        members: The images; the fingerprints of all are made alike.
        rule: The recipe's rules.
        workers: Threads that open images.
    """
    together = UnionFind(len(members))
    names: list[str] = []
    first_of: dict[tuple[str, str], int] = {}
    for index, member in enumerate(members):
        stated = _stated_groups(member, rule)
        names.append(next(iter(stated.values()), _in_source(member.key, member)))
        for rule_name, name in stated.items():
            together.union(first_of.setdefault((rule_name, name), index), index)
    checks = run_checks(members, rule, workers)
    for check in checks:
        for first, second, _ in check.pairs:
            together.union(first, second)
    return Groups([names[together.find(index)] for index in range(len(members))], checks)


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


@dataclass(frozen=True)
class Leaks:
    """How many pairs of images that are alike would be in two splits. The names are manifest.json's.

    `twins` counts pairs that look alike (`Check.by_looks`), those that were found where one has `some_pairs`;
    `akin` counts pairs of one group for any reason.
    `random_*` is the number expected in two splits if each image were put into one by itself, at random by
    the shares; `given_*` the number that the source's own splits divide, None if it states none.
    """

    twins: int
    akin: int
    random_twins: float
    random_akin: float
    given_twins: int | None
    given_akin: int | None


def count_leaks(members: Sequence[GroupMember], groups: Groups, shares: Mapping[Split, float]) -> Leaks:
    """Count what splitting the images by themselves, or as the source does, would leak. Shares sum to 1."""
    apart = 1 - sum(share**2 for share in shares.values())
    given = any(member.split for member in members)
    by_looks = [check.pairs for check in groups.checks if check.by_looks]
    pairs = np.array([first * len(members) + second for found in by_looks for first, second, _ in found])
    pairs = np.unique(pairs.astype(np.int64))  # 8 bytes a pair, of which there may be more than images
    given_twins = sum(
        _divided(members[first].split, members[second].split)
        for first, second in (divmod(pair, len(members)) for pair in pairs.tolist())
    )
    akin = given_akin = 0
    for splits in count_splits((member.split for member in members), groups.names).values():
        akin += splits.total() * (splits.total() - 1) // 2
        known = [count for split, count in splits.items() if split]
        given_akin += (sum(known) ** 2 - sum(count**2 for count in known)) // 2
    return Leaks(
        len(pairs),
        akin,
        round(len(pairs) * apart, 1),
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
