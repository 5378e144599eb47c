"""Values with their 95% intervals, and differences in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eval.scoring import metrics as m
from eval.scoring.schema import Estimate

Spread = Mapping[str, tuple[float, float]]


def estimate(value: float, interval: tuple[float, float] | None) -> Estimate:
    """A rounded estimate. A skewed bootstrap may leave the value outside its percentiles: it is kept in."""
    if interval is None:
        return Estimate(value=round(value, 6))
    low, high = interval
    return Estimate(value=round(value, 6), low=round(min(low, value), 6), high=round(max(high, value), 6))


def share(value: float, trials: int) -> Estimate | None:
    """A share, or a mean of numbers in 0..1, with Wilson's interval; None for NaN."""
    return None if math.isnan(value) else estimate(float(value), m.wilson(float(value), trials))


def maybe(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items() if not math.isnan(value)}


def points(values: m.Metrics) -> dict[str, float]:
    """Those of the values that exist."""
    return {name: float(value) for name, value in values.items() if not math.isnan(float(value))}


def estimates(values: Mapping[str, float], draws: m.Metrics, spread: Spread) -> dict[str, Estimate]:
    """Values with bootstrap intervals, or those of `spread` where every resample gives the same value."""
    return {
        name: estimate(value, m.percentile_interval(draws[name]) or spread.get(name))
        for name, value in values.items()
    }


def differences(
    pair: Sequence[Mapping[str, Estimate]], draws: Sequence[m.Metrics], same: bool
) -> dict[str, Estimate]:
    """Tuned minus base for every metric that both have; intervals from the paired resamples, where these are
    all alike from the interval of each."""
    found = {}
    for name, first in pair[0].items():
        second = pair[1].get(name)
        if second is None:
            continue
        interval = (0.0, 0.0) if same else m.percentile_interval(draws[0][name] - draws[1][name])
        if interval is None:
            sides = (first.low, first.high, second.low, second.high)
            low_1, high_1, low_2, high_2 = (side if side is not None else math.nan for side in sides)
            combined = m.combined_interval(first.value, (low_1, high_1), second.value, (low_2, high_2))
            interval = None if any(map(math.isnan, combined)) else combined
        found[name] = estimate(first.value - second.value, interval)
    return found
