"""The checks for images that are not independent: what is looked for, what is found, and what is not looked
for, so that a report can say all three."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from data_prep.images.points import MOST_SIDE, may_be_crop
from data_prep.recipe.schema import Grouping
from data_prep.splits import objects
from data_prep.splits.joined import Joined
from data_prep.splits.member import GroupMember
from data_prep.splits.named import find_moments, find_versions, propose_gap, taken
from data_prep.splits.shifted import find_shifted
from data_prep.splits.twins import ALL_PAIRS, HASH_BITS, find_twins
from llava.common.environment import how_to_install

Pair = tuple[int, int, str]
"""Two images by index, the earlier one first, and how alike they are in words."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Check:
    """A reason for which images are akin.

    `name` is its key in manifest.json, `what` are those images in words. `pairs` are those found; of a chain
    only neighbours. `not_checked` says why it was not looked for, "" if it was. `by_looks` tells that pixels
    were compared. `some_pairs` tells that so many images hang together that only some of their pairs were
    looked for, enough to join them.
    """

    name: str
    what: str
    pairs: tuple[Pair, ...] = ()
    not_checked: str = ""
    by_looks: bool = True
    some_pairs: bool = False

    @property
    def images(self) -> int:
        """How many images are in a pair."""
        return len({index for first, second, _ in self.pairs for index in (first, second)})


# How a recipe leaves a check out, by name.
_WITHOUT = {
    "copies": "group.twins=null",
    "shifted": "group.shifted=false",
    "objects": "group.objects=false",
    "moments": "group.time=null",
}


def run_checks(members: Sequence[GroupMember], rule: Grouping, workers: int) -> tuple[Check, ...]:
    """Run the checks that a recipe wants and that the images allow."""
    copies = _check_copies(members, rule)
    return (
        copies,
        _check_shifted(members, rule, copies.pairs),
        _check_objects(members, rule, workers),
        _check_names(members),
        _check_moments(members, rule),
    )


def _check_copies(members: Sequence[GroupMember], rule: Grouping) -> Check:
    name, what = "copies", "copies (turned and mirrored ones too)"
    if rule.twins is None:
        return Check(name, what, not_checked="group.twins is null")
    first, second, bits = find_twins([member.fingerprint for member in members], rule.twins)
    words = [
        f"{bit} of {HASH_BITS} bits differ" for bit in range(HASH_BITS + 1)
    ]  # of many pairs the same ones
    pairs = _pairs(first, second, (words[bit] for bit in bits))
    return Check(name, what, pairs, some_pairs=_joined(len(members), pairs).largest > ALL_PAIRS)


def _check_shifted(members: Sequence[GroupMember], rule: Grouping, copies: Sequence[Pair]) -> Check:
    name, what = "shifted", "shifted crops of one picture"
    if not rule.shifted:
        return Check(name, what, not_checked="group.shifted is false")
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, member in enumerate(members):
        if may_be_crop(member.size):
            of_size.setdefault(member.size, []).append(index)
    chosen = [(size, indices) for size, indices in of_size.items() if len(indices) > 1]
    if not chosen:
        return Check(name, what, not_checked=f"no two pictures of one size up to {MOST_SIDE} pixels")
    together = _joined(len(members), copies)
    pairs: list[Pair] = []
    for size, indices in chosen:
        ours = [_file(members[index]) for index in indices]
        points = [members[index].points for index in indices]
        first, second, correlation = find_shifted(ours, points, size, together.find(np.array(indices)))
        words = (f"correlate at {value:.2f} where they overlap" for value in correlation)
        pairs += _pairs([indices[i] for i in first], [indices[i] for i in second], words)
    together = _joined(len(members), [*copies, *pairs])
    return Check(name, what, tuple(pairs), some_pairs=together.largest > ALL_PAIRS)


def _check_objects(members: Sequence[GroupMember], rule: Grouping, workers: int) -> Check:
    name, what = "objects", "crops of one object"
    crops = [(index, crop) for index, member in enumerate(members) for crop in member.crops]
    if not rule.objects:
        return Check(name, what, not_checked="group.objects is false")
    if not crops:
        return Check(name, what, not_checked="no crops around components are cut")
    if not objects.is_available():
        return Check(name, what, not_checked=f"needs OpenCV: {how_to_install('opencv')}")
    features = _of_each(objects.find_features, [crop for _, crop in crops], "objects", workers)
    first, second, inliers = objects.find_same_objects(features, [index for index, _ in crops])
    return Check(name, what, _pairs(first, second, (f"{count} features agree" for count in inliers)))


def _check_names(members: Sequence[GroupMember]) -> Check:
    links = find_versions(members)
    return Check("names", "versions of one photo by name", _named(links, "versions by name"), by_looks=False)


def _check_moments(members: Sequence[GroupMember], rule: Grouping) -> Check:
    known = sum(taken(member) is not None for member in members)
    if rule.time is not None and known:
        what = f"photos taken within {rule.time:g} s"
        links = find_moments(members, rule.time)
        return Check("moments", what, _named(links, "taken in one moment"), by_looks=False)
    reason = "no times in names or EXIF"
    if known:
        gap = propose_gap(members)
        reason = f"group.time is not set; {known:,} pictures tell when they were taken"
        reason += f", group.time={gap:g} joins bursts" if gap else ""
    return Check("moments", "bursts", not_checked=reason, by_looks=False)


def _joined(count: int, pairs: Sequence[Pair]) -> Joined:
    """Join `count` images by pairs."""
    together = Joined(count)
    together.union(
        np.array([pair[0] for pair in pairs], np.int64), np.array([pair[1] for pair in pairs], np.int64)
    )
    return together


def _pairs(first: Iterable[int], second: Iterable[int], words: Iterable[str]) -> tuple[Pair, ...]:
    return tuple((int(one), int(two), word) for one, two, word in zip(first, second, words, strict=True))


def _named(links: Iterable[tuple[int, int]], word: str) -> tuple[Pair, ...]:
    return tuple(sorted({(min(link), max(link), word) for link in links}))


def _file(member: GroupMember) -> Path:
    assert member.file is not None
    return member.file


def _of_each(find: Callable[[Path], Found], files: Sequence[Path], about: str, workers: int) -> list[Found]:
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(find, files)
        return list(track(results, about, len(files), console=Console(stderr=True), transient=True))


def checks_text(checks: Sequence[Check]) -> str:
    """Return a sentence on what was looked for and found, and what was not looked for."""
    done = [check for check in checks if not check.not_checked]
    found = [f"{check.what}: {check.images:,} pictures" for check in done if check.pairs]
    none = [check.what for check in done if not check.pairs]
    parts = [*found, *([f"no {', no '.join(none)} found"] if none else [])]
    parts += [f"{check.what} not checked ({check.not_checked})" for check in checks if check.not_checked]
    return "; ".join(parts)


def what_joins(checks: Sequence[Check]) -> str:
    """Return what joins most images, as the end of a sentence, and how to do without; "" if nothing does."""
    most = max(checks, key=lambda check: check.images)
    if not most.pairs:
        return ""
    how = f"; {_WITHOUT[most.name]} does not look for them" if most.name in _WITHOUT else ""
    return f". {most.images:,} pictures are joined as {most.what}{how}"
