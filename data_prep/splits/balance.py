"""A local search for the split of each group, so that every label's shares come near the wanted ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.source_folder import Split

FloatArray = NDArray[np.float64]

_STEPS = 4000  # groups that are tried in all beginnings together; each begins with another assignment
_MOST_STARTS = 30
_ROUNDS = 20  # over all groups of a beginning, at most; mostly a few are enough
_FEW = 2000  # groups, up to which exchanges are tried, and so many rounds
_GAIN = 1e-9
# A split that is off by more than so many units and such a share of a label is worth a line.
_FEW_UNITS, _FAR = 2, 0.05
_ALL = ""  # the label of all units, in counts


def improve_shares(
    groups: Mapping[str, Sequence[str]], shares: Sequence[float], assigned: Mapping[str, int], seed: int
) -> dict[str, int]:
    """Move groups to other splits, and exchange two, as long as that brings the labels' shares nearer to the
    wanted ones; then begin anew with a random assignment, and keep the best.

    What is made smaller is how far each label's share in each split is from the wanted one, in sum; all units
    count as one more label. Where no label is a unit off, nothing is changed.

    Args:
        groups: The labels of each group's units.
        shares: The wanted share of each split, above 0, in sum 1.
        assigned: The number of the split that each group is in at first.
        seed: Of the order in which groups are tried.
    """
    names = sorted(groups)
    counts = _label_counts([groups[name] for name in names])
    wanted = np.asarray(shares)
    start = np.array([assigned[name] for name in names])
    search = _Search(counts / counts.sum(axis=0), wanted)
    filled = len(set(start.tolist())) == min(len(names), len(shares))
    if filled and np.all(np.abs(search.deviation(start)) * counts.sum(axis=0) < 1):
        return dict(assigned)
    best = search.descend(start, random.Random(f"{seed}/0"))
    for number in range(1, min(_MOST_STARTS, _STEPS // len(names))):
        order = random.Random(f"{seed}/{number}")
        drawn = np.array(order.choices(range(len(wanted)), shares, k=len(names)))
        best = min(best, search.descend(drawn, order), key=lambda found: found[0])
    return dict(zip(names, best[1].tolist(), strict=True))


def unmet_shares(
    groups: Mapping[str, Sequence[str]], shares: Mapping[Split, float], splits: Mapping[str, Split]
) -> list[str]:
    """Return a line on all units, and one for each label, whose shares are far from the wanted ones, in words
    for people: groups cannot be divided.

    Args:
        groups: The labels of each group's units.
        shares: The wanted share of each split.
        splits: The split of each group.
    """
    used = [split for split, share in shares.items() if share > 0]
    held: dict[str, Counter[str]] = {}
    largest: dict[str, Counter[str]] = {}
    for name, labels in groups.items():
        for label, count in (Counter(labels) + Counter({_ALL: len(labels)})).items():
            held.setdefault(label, Counter())[splits[name]] += count
            largest.setdefault(label, Counter())[name] = count
    lines = []
    for label in sorted(held):
        total = held[label].total()
        off = max(abs(held[label][split] - shares[split] * total) for split in used)
        if off <= max(_FEW_UNITS, _FAR * total):
            continue
        (name, count), *_ = largest[label].most_common(1)
        counts = "/".join(f"{held[label][split]:,}" for split in used)
        wanted = "/".join(f"{shares[split] * total:,.0f}" for split in used)
        what = "all pictures" if label == _ALL else f"those that show {label}"
        lines.append(
            f"the shares of {'/'.join(used)} cannot be met: {counts} of {what}, not {wanted}; pictures that "
            f"belong together are not divided, these are in {len(largest[label]):,} group(s), and the "
            f"largest ({name}) holds {count:,}"
        )
    return lines


def _label_counts(groups: Sequence[Sequence[str]]) -> FloatArray:
    """Count the units of each label, and of all, in each group: (groups, labels + 1)."""
    names = sorted({label for each in groups for label in each})
    labels = {label: column for column, label in enumerate(names)}
    counts = np.zeros((len(groups), len(names) + 1))
    for row, each in enumerate(groups):
        for label, count in Counter(each).items():
            counts[row, labels[label]] = count
        counts[row, -1] = len(each)
    return counts


class _Search:
    """`weights` are the share of each label's units in each group: (groups, labels)."""

    def __init__(self, weights: FloatArray, shares: FloatArray) -> None:
        self._weights, self._shares = weights, shares

    def deviation(self, splits: NDArray[np.int64]) -> FloatArray:
        """Return how far each label's share is above the wanted one: (splits, labels)."""
        held = np.zeros((len(self._shares), self._weights.shape[1]))
        np.add.at(held, splits, self._weights)
        return held - self._shares[:, None]

    def descend(self, splits: NDArray[np.int64], order: random.Random) -> tuple[float, NDArray[np.int64]]:
        """Change an assignment until no move and no exchange makes it better; return its cost too."""
        splits = splits.copy()
        self._fill(splits)
        deviation = self.deviation(splits)
        held = np.bincount(splits, minlength=len(self._shares))  # groups
        few = len(splits) <= _FEW
        for _ in range(_ROUNDS if few else 2):
            changed = False
            for group in order.sample(range(len(splits)), len(splits)):
                changed |= self._move(group, splits, deviation, held)
                if few:
                    changed |= self._exchange(group, splits, deviation)
            if not changed:
                break
        return float(np.abs(deviation).sum()), splits

    def _fill(self, splits: NDArray[np.int64]) -> None:
        """Move a group to each empty split, as long as others have two: the one that fits best."""
        for empty in range(len(self._shares)):
            held = np.bincount(splits, minlength=len(self._shares))
            movable = np.flatnonzero(held[splits] > 1)
            if held[empty] or not len(movable):
                continue
            weights, deviation = self._weights[movable], self.deviation(splits)
            sources = deviation[splits[movable]]
            costs = np.abs(sources - weights).sum(axis=1) - np.abs(sources).sum(axis=1)
            costs += np.abs(deviation[empty] + weights).sum(axis=1)
            splits[movable[int(costs.argmin())]] = empty

    def _move(
        self, group: int, splits: NDArray[np.int64], deviation: FloatArray, held: NDArray[np.int64]
    ) -> bool:
        """Move a group to the split where it fits best, unless it is the only one of its split."""
        weight, source = self._weights[group], splits[group]
        if held[source] == 1:
            return False
        without = deviation[source] - weight
        # What each split's cost becomes if the group goes there, against what it is.
        costs = np.abs(deviation + weight).sum(axis=1) - np.abs(deviation).sum(axis=1)
        costs += np.abs(without).sum() - np.abs(deviation[source]).sum()
        costs[source] = 0
        target = int(costs.argmin())
        if costs[target] > -_GAIN:
            return False
        deviation[source] = without
        deviation[target] += weight
        splits[group] = target
        held[source] -= 1
        held[target] += 1
        return True

    def _exchange(self, group: int, splits: NDArray[np.int64], deviation: FloatArray) -> bool:
        """Exchange a group with the one of another split with which that helps most."""
        source = splits[group]
        change = self._weights - self._weights[group]
        costs = np.abs(deviation[source] + change).sum(axis=1) - np.abs(deviation[source]).sum()
        costs += np.abs(deviation[splits] - change).sum(axis=1) - np.abs(deviation).sum(axis=1)[splits]
        costs[splits == source] = 0
        other = int(costs.argmin())
        if costs[other] > -_GAIN:
            return False
        deviation[source] += change[other]
        deviation[splits[other]] -= change[other]
        splits[group], splits[other] = splits[other], source
        return True
