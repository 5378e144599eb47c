"""How scores are computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoringOptions:
    """Holds the number of resamples, their seed, and the miss rate that thresholds are chosen for."""

    resamples: int = 1000
    seed: int = 0
    miss_rate: float = 0.05
