"""Exact binomial bounds, and how many thresholds of an ordered family they let through.

A threshold is tested by the groups that it gets wrong: were the true rate above the allowed one, so few would
be wrong with a probability of at most 1 - confidence. The thresholds are tested from the safest on until one
fails (fixed-sequence testing), and so no correction for their number is needed: learn then test (A. N.
Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan and L. Lei, 2021, arXiv 2110.01052). Conformal risk control
(Angelopoulos et al., 2022, arXiv 2208.02814) bounds the same loss on average over calibrations, which is less
than is promised here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import takewhile


def binomial_tail(wrong: int, groups: int, rate: float) -> float:
    """Return the probability of at most `wrong` in `groups` independent trials, each wrong at `rate`."""
    if wrong >= groups:
        return 1.0
    return math.fsum(_probability(number, groups, rate) for number in range(wrong + 1))


def _probability(wrong: int, groups: int, rate: float) -> float:
    ways = math.lgamma(groups + 1) - math.lgamma(wrong + 1) - math.lgamma(groups - wrong + 1)
    return math.exp(ways + wrong * math.log(rate) + (groups - wrong) * math.log1p(-rate))


def upper_bound(wrong: int, groups: int, confidence: float) -> float:
    """Return the rate that the true one is not above, with `confidence`, if `wrong` of `groups` were wrong
    (C. J. Clopper and E. S. Pearson, 1934, one side)."""
    if wrong >= groups:
        return 1.0
    low, high = wrong / groups, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if binomial_tail(wrong, groups, middle) <= 1 - confidence else (middle, high)
        )
    return high


def exact_interval(wrong: int, groups: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a rate of which `wrong` of `groups` trials, one or more, are
    known."""
    one_side = (1 + confidence) / 2
    return 1 - upper_bound(groups - wrong, groups, one_side), upper_bound(wrong, groups, one_side)


def allowed_wrong(groups: int, rate: float, confidence: float) -> int:
    """Return how many of `groups` may be wrong for a rate of at most `rate` to be certified; -1 where the
    groups are too few even if none is."""
    wrong, tail = -1, 0.0
    while wrong + 1 < groups:
        tail += _probability(wrong + 1, groups, rate)
        if tail > 1 - confidence:
            break
        wrong += 1
    return wrong


def groups_needed(rate: float, confidence: float) -> int:
    """Return how many groups certify `rate` if none of them is wrong: 59 for 5% at 95%."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate) - 1e-9)


def fixed_sequence(wrong: Iterable[int], groups: int, rate: float, confidence: float) -> int:
    """Test the thresholds of a family in their order, until one fails.

    Args:
        wrong: The number of groups that each threshold gets wrong.
        groups: The number of groups.
        rate: The share of wrong groups that is allowed.
        confidence: The probability with which no threshold that passes has a true rate above it.

    Returns:
        How many pass.
    """
    allowed = allowed_wrong(groups, rate, confidence)
    return sum(1 for _ in takewhile(lambda number: number <= allowed, wrong))
