"""How unusual a picture's distance is among those of sound calibration pictures, as a p-value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEVER_SEEN = 0.01
"""The p-value up to which a picture is called never seen."""


def group_weights(groups: Sequence[str]) -> NDArray[np.float64]:
    """Return a weight per picture, such that every group weighs 1."""
    _, index, counts = np.unique(np.array(groups, dtype=str), return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1.0 / counts[index]
    return weights


class PValues:
    """P-values of distances, calibrated on pictures whose groups are independent of each other.

    A picture of a new group has p <= a with a probability of at most a, where it is drawn as the calibration
    groups were, and the picture from its group at random. With a picture a group, p is (1 + how many
    calibration distances are at least as large) / (n + 1), the conformal p-value; with several, each counts
    one by its group's size (Lee, Barber and Willett 2023, arXiv 2306.06342).
    """

    def __init__(self, distances: Sequence[float], groups: Sequence[str]) -> None:
        order = np.argsort(np.asarray(distances, dtype=np.float64), kind="stable")
        self._distances = np.asarray(distances, dtype=np.float64)[order]
        weights = group_weights(groups)[order]
        self.groups = len(set(groups))
        # weight of the calibration pictures from each position on
        self._from = np.append(np.cumsum(weights[::-1])[::-1], 0.0)

    def __call__(self, distance: float) -> float:
        """Return the p-value of a distance: small where few calibration pictures are as far away."""
        at_least = self._from[np.searchsorted(self._distances, distance, side="left")]
        return float((1.0 + at_least) / (self.groups + 1.0))

    @property
    def typical_distance(self) -> float:
        """The median of the distances."""
        return float(np.median(self._distances))

    @property
    def smallest(self) -> float:
        """The smallest p-value there can be."""
        return 1.0 / (self.groups + 1.0)
