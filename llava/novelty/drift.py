"""Whether a survey's pictures, as a whole, look like those that a model was calibrated on.

Pictures are compared by their projections (bank.py). The statistic is the energy distance (Szekely and Rizzo
2013), 2 E|X-Y| - E|X-X'| - E|Y-Y'|: zero only where both are distributed alike. Its p-value comes from
permuting whole groups, since pictures of one group are not independent; every group weighs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llava.common.errors import InputError
from llava.novelty.pvalue import group_weights

Array = NDArray[np.float64]

PERMUTATIONS = 999
MAX_PICTURES = 2000
"""Of each side that are compared; of more, whole groups are drawn at random."""
MIN_GROUPS = 5
"""Of each side; with fewer no permutation could show much."""
USUAL = 0.95
"""The share of the calibration that counts as the usual range."""
LEVEL = 0.01
"""A p-value up to this is called a difference."""
SLIGHT, STRONG = 0.10, 0.30
"""Shares of pictures outside the usual range, where 0.05 is expected, up to which a difference is called
slight and from which it is called strong."""


@dataclass(frozen=True)
class Drift:
    """The outcome: `p_value` of the permutation test, and `outside`, the share of the survey's pictures that
    are farther from the calibration's centre than 95% of the calibration's own pictures are."""

    p_value: float
    outside: float
    energy_distance: float
    survey_groups: int
    calibration_groups: int

    @property
    def differs(self) -> bool:
        """Whether the test shows a difference."""
        return self.p_value <= LEVEL

    @property
    def message(self) -> str:
        """The outcome in plain words."""
        compared = f"{self.survey_groups} groups here, {self.calibration_groups} there"
        if not self.differs:
            return (
                "no difference is seen between these pictures and those of the calibration "
                f"(p = {self.p_value:.2g}; {compared})"
            )
        clearly = "strongly" if self.outside >= STRONG else "clearly"
        how = "slightly" if self.outside <= SLIGHT else clearly
        return (
            f"these pictures differ {how} from those of the calibration (p = {self.p_value:.2g}; "
            f"{compared}): {self.outside:.0%} of them lie outside the calibration's usual range, where "
            f"{1 - USUAL:.0%} would if they were alike; what was certified there need not hold here"
        )


def drift_test(
    survey: Array,
    survey_groups: Sequence[str],
    calibration: Array,
    calibration_groups: Sequence[str],
    seed: int = 0,
) -> Drift:
    """Test whether the survey's pictures are distributed as the calibration's.

    The p-value is exact where groups of both sides are drawn alike, their sizes included.

    Args:
        survey: (n, components) projections of the survey's pictures.
        survey_groups: The group of each: pictures that are not independent (a burst, a pole) share one.
        calibration: The same of the calibration's.
        calibration_groups: Their groups.
        seed: Of the permutations.

    Raises:
        InputError: There are fewer than MIN_GROUPS groups on a side.
    """
    generator = np.random.default_rng(seed)
    for name, groups in (("survey", survey_groups), ("calibration", calibration_groups)):
        if (count := len(set(groups))) < MIN_GROUPS:
            raise InputError(
                f"the drift check needs {MIN_GROUPS} groups of pictures or more, the {name} has {count}"
            )
    survey, survey_groups = _at_most(survey, survey_groups, generator)
    calibration, calibration_groups = _at_most(calibration, calibration_groups, generator)
    here, there = _index(survey_groups), _index(calibration_groups)
    between = _mean_distances(np.concatenate([survey, calibration]), np.append(here, there + here.max() + 1))
    is_here = np.arange(len(between)) <= here.max()
    observed = _energy_distances(between, is_here[:, None])[0]
    permuted = _energy_distances(between, generator.permuted(np.tile(is_here, (PERMUTATIONS, 1)), axis=1).T)
    as_far = int((permuted >= observed - 1e-12 * abs(observed)).sum())
    return Drift(
        p_value=(1 + as_far) / (PERMUTATIONS + 1),
        outside=_outside(survey, survey_groups, calibration, calibration_groups),
        energy_distance=float(observed),
        survey_groups=int(here.max()) + 1,
        calibration_groups=int(there.max()) + 1,
    )


def _index(groups: Sequence[str]) -> NDArray[np.int64]:
    index: NDArray[np.int64] = np.unique(np.array(groups, dtype=str), return_inverse=True)[1]
    return index


def _at_most(
    pictures: Array, groups: Sequence[str], generator: np.random.Generator
) -> tuple[Array, list[str]]:
    """Return whole groups with at most MAX_PICTURES pictures together, or the first drawn alone."""
    pictures = np.asarray(pictures, dtype=np.float64)
    if len(pictures) <= MAX_PICTURES:
        return pictures, list(groups)
    index = _index(groups)
    order = generator.permutation(index.max() + 1)
    kept_groups = order[np.cumsum(np.bincount(index)[order]) <= MAX_PICTURES]
    kept = np.flatnonzero(
        np.isin(index, kept_groups if len(kept_groups) >= MIN_GROUPS else order[:MIN_GROUPS])
    )
    return pictures[kept], [groups[int(at)] for at in kept]


def _mean_distances(pictures: Array, groups: NDArray[np.int64]) -> Array:
    """Return the mean distance between the pictures of each two groups, (groups, groups)."""
    membership = np.zeros((groups.max() + 1, len(pictures)))
    membership[groups, np.arange(len(pictures))] = 1.0
    membership /= membership.sum(axis=1, keepdims=True)
    squares = (pictures**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * pictures @ pictures.T, 0))
    result: Array = membership @ distances @ membership.T
    return result


def _energy_distances(between: Array, is_here: NDArray[np.bool_]) -> Array:
    """Return the energy distance for each column of `is_here` (groups, divisions)."""
    weights = is_here / is_here.sum(axis=0) - ~is_here / (~is_here).sum(axis=0)
    distances: Array = -np.einsum("gd,gd->d", weights, between @ weights)
    return distances


def _outside(
    survey: Array, survey_groups: Sequence[str], calibration: Array, calibration_groups: Sequence[str]
) -> float:
    """Return the share of the survey (by groups) that lies farther out than USUAL of the calibration does.

    Distances are Euclidean after scaling each component by the calibration's standard deviation.
    """
    there, here = group_weights(calibration_groups), group_weights(survey_groups)
    centre = np.average(calibration, axis=0, weights=there)
    scale = np.sqrt(np.average((calibration - centre) ** 2, axis=0, weights=there)) + 1e-12
    radii = np.linalg.norm((calibration - centre) / scale, axis=1)
    order = np.argsort(radii)
    limit = radii[order][np.searchsorted(np.cumsum(there[order]), USUAL * there.sum() * (1 - 1e-12))]
    beyond = np.linalg.norm((survey - centre) / scale, axis=1) > limit
    return float(np.average(beyond, weights=here))
