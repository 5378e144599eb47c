"""The mean of differences that were measured in pairs, one for each seed, and how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def mean_with_interval(differences: NDArray[np.float64]) -> dict[str, Any]:
    """Return the mean of the differences (seeds,), with Student's 95% interval if they are several."""
    mean, seeds = float(differences.mean()), len(differences)
    half = None
    if seeds > 1:
        half = float(stats.t.ppf(0.975, seeds - 1) * differences.std(ddof=1) / np.sqrt(seeds))
    return {
        "mean": round(mean, 4),
        "low": None if half is None else round(mean - half, 4),
        "high": None if half is None else round(mean + half, 4),
        "seeds": [round(float(difference), 4) for difference in differences],
    }


def shown(difference: dict[str, Any]) -> str:
    """Return what `mean_with_interval` returned as text: "+0.120 [+0.050, +0.190]"."""
    low, high = difference["low"], difference["high"]
    interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    return f"{difference['mean']:+.3f}{interval}"
