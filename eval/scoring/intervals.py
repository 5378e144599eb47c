"""95% intervals: bootstrap over groups of images, Wilson's for proportions, and paired differences.

The questions about one image, or about near-duplicates, are not independent. The bootstrap therefore draws
groups with replacement, as a matrix of counts: (resamples, groups) @ (groups, columns). A percentile interval
says nothing where all resamples agree; there Wilson's interval is used, with groups for trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from eval.scoring.metrics import Array, Ints, Metrics
from eval.scoring.schema import Estimate

Z95 = 1.959963984540054
Intervals = Mapping[str, tuple[float, float]]
"""Lower and upper ends by the name of the metric."""
Statistic = Callable[[Array], Metrics]
"""Maps how often every group is drawn (r, groups) to metrics (r,)."""

# --- bootstrap ---------------------------------------------------------------------------------------


def number_groups(groups: Sequence[str]) -> tuple[Ints, list[str]]:
    """Return the number of each question's group (n,), and the sorted groups, whose places these are."""
    names = sorted(set(groups))
    numbers = {name: number for number, name in enumerate(names)}
    return np.fromiter((numbers[group] for group in groups), np.int64, len(groups)), names


def group_draws(groups: int, resamples: int, seed: Sequence[int], limit: int = 4_000_000) -> Iterator[Array]:
    """Yield how often each group is drawn, when as many groups are drawn with replacement as there are.

    Args:
        groups: Number of groups.
        resamples: How often that is repeated.
        seed: Seed of the generator.
        limit: How many numbers one chunk holds at most; the draws do not depend on it.

    Yields:
        Chunks of shape (resamples, groups).
    """
    generator = np.random.default_rng(list(seed))
    chunk = max(1, limit // groups)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=size)
        yield drawn.astype(np.float64)


def bootstrap(
    statistics: Sequence[Statistic], groups: int, resamples: int, seed: Sequence[int]
) -> list[Metrics]:
    """Return every statistic's metrics of each resample (resamples,): the same groups are drawn for all.

    Args:
        statistics: Each maps how often every group is drawn (r, groups) to metrics (r,).
        groups: Number of groups, as many of which are drawn with replacement.
        resamples: How often that is repeated.
        seed: Seed of the draws.
    """
    chunks = [
        [statistic(drawn) for statistic in statistics] for drawn in group_draws(groups, resamples, seed)
    ]
    return [
        {name: np.concatenate([metrics[name] for metrics in parts]) for name in parts[0]}
        for parts in zip(*chunks, strict=True)
    ]


def bootstrap_sums(sums: Array, resamples: int, seed: Sequence[int]) -> Array:
    """Draw groups (g, columns) g times with replacement and add them up, `resamples` times over.

    Returns (resamples, columns). Columns drawn together stay together: hand two systems' columns side by
    side and every resample holds the same groups for both.
    """
    return np.concatenate([drawn @ sums for drawn in group_draws(len(sums), resamples, seed)])


def percentile_interval(draws: Array) -> tuple[float, float] | None:
    """Return the middle 95% of the draws that are not NaN; None where they are all alike.

    A model that is always right scores 1.0 in every resample, which is no proof that it always will.
    """
    known = draws[~np.isnan(draws)]
    if len(known) == 0 or np.ptp(known) < 1e-9:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


# --- closed forms ------------------------------------------------------------------------------------


def wilson_interval(proportion: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95% score interval of a proportion in n independent trials (E. B. Wilson, 1927)."""
    centre = (proportion + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(proportion * (1 - proportion) / n + Z95**2 / (4 * n**2))
    return max(0.0, min(proportion, centre - half)), min(1.0, max(proportion, centre + half))


def combined_interval(
    first: float, first_interval: tuple[float, float], second: float, second_interval: tuple[float, float]
) -> tuple[float, float]:
    """Return an interval of `first - second` from the interval of each.

    Method: MOVER (R. G. Newcombe, 1998, method 10), for two values that are independent of each other.

    Args:
        first: The value that is subtracted from.
        first_interval: Its lower and upper ends.
        second: The value that is subtracted.
        second_interval: Its lower and upper ends.
    """
    (low_1, high_1), (low_2, high_2) = first_interval, second_interval
    difference = first - second
    return (
        difference - math.hypot(first - low_1, high_2 - second),
        difference + math.hypot(high_1 - first, second - low_2),
    )


# --- estimates: rounded values with their intervals --------------------------------------------------


def make_estimate(value: float, interval: tuple[float, float] | None) -> Estimate:
    """Return a rounded estimate; a value outside its own percentiles (a skewed bootstrap) widens them."""
    if interval is None:
        return Estimate(value=round(value, 6))
    low, high = interval
    return Estimate(value=round(value, 6), low=round(min(low, value), 6), high=round(max(high, value), 6))


def wilson_estimate(proportion: float, trials: int) -> Estimate | None:
    """Return a proportion, or a mean of numbers in 0..1, with Wilson's interval; None for NaN."""
    if math.isnan(proportion):
        return None
    return make_estimate(float(proportion), wilson_interval(float(proportion), trials))


def rounded_or_none(value: float) -> float | None:
    """Return the value to six places; None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def rounded_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values that are not NaN, to six places."""
    return {name: round(value, 6) for name, value in values.items() if not math.isnan(value)}


def defined_values(values: Metrics) -> dict[str, float]:
    """Return the values that are not NaN."""
    return {name: float(value) for name, value in values.items() if not math.isnan(float(value))}


def bootstrap_estimates(
    values: Mapping[str, float], draws: Metrics, closed_form: Intervals
) -> dict[str, Estimate]:
    """Return values with bootstrap intervals, those of `closed_form` where all resamples are alike."""
    return {
        name: make_estimate(value, percentile_interval(draws[name]) or closed_form.get(name))
        for name, value in values.items()
    }


def paired_differences(
    pair: Sequence[Mapping[str, Estimate]], draws: Sequence[Metrics], same: bool
) -> dict[str, Estimate]:
    """Return tuned minus base for every metric that both have.

    Args:
        pair: The estimates of tuned and of base.
        draws: The same metrics of both in every resample; one resample holds the same groups for both.
        same: Whether both systems' answers are alike, question by question; then the difference is exactly 0.

    Returns:
        Differences with intervals from the paired resamples; where these are all alike, from the interval of
        each system (`combined_interval`), and without an interval where one of them has none.
    """
    differences = {}
    for name, first in pair[0].items():
        second = pair[1].get(name)
        if second is None:
            continue
        interval = (0.0, 0.0) if same else percentile_interval(draws[0][name] - draws[1][name])
        if interval is None:
            ends = (first.low, first.high, second.low, second.high)
            low_1, high_1, low_2, high_2 = (end if end is not None else math.nan for end in ends)
            combined = combined_interval(first.value, (low_1, high_1), second.value, (low_2, high_2))
            interval = None if any(map(math.isnan, combined)) else combined
        differences[name] = make_estimate(first.value - second.value, interval)
    return differences
