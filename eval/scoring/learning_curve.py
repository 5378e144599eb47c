"""Learning curves: what a model that is trained on more photos would score, with an interval.

The error (one minus the score) is taken to fall with the number of photos n as an inverse power law,

    error(n) = c + a (n / N)^-b,  with a, b, c >= 0 and N the largest number measured

(Figueroa et al. 2012, doi 10.1186/1472-6947-12-8; Hestness et al. 2017, arXiv 1712.00409). A handful of
points does not tell b and c apart: so not the best curve is taken but all, each with the weight that the
points give it. b and c go over a grid, as does how far training runs differ among themselves; for given b and
c the curve is linear in a, which is integrated in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import erf, sqrt
from statistics import NormalDist

import numpy as np

from eval.scoring.answers import AnswerFile
from eval.scoring.columns import read_columns
from eval.scoring.comparison import SMALL
from eval.scoring.families import ClosedFamily, family_of
from eval.scoring.intervals import bootstrap
from eval.scoring.metrics import Array, GroupSums, class_counts
from llava.common.records import Truth

LEVEL = 0.9
EXPONENTS = np.geomspace(0.1, 2.0, 24)
_FLOORS = 48  # values of c
TRAINING_NOISE = (0.01, 0.03, 0.06)
"""Standard deviations that the scores of two runs on as many other photos may differ by, alike likely."""
_DRAWS = 4000
_LEAST_POINTS = 3
_BAND = 13  # sizes
_cdf = np.vectorize(lambda z: 0.5 * (1 + erf(z / sqrt(2))), otypes=[float])


@dataclass(frozen=True)
class ScoredParts:
    """The scores of models that were trained on more and more photos, on the same test questions.

    `values` (parts,); `draws` (resamples, parts) are those of resampled test groups, the same for all parts.
    `groups` are the test groups that the score is about.
    """

    name: str
    metric: str
    groups: int
    values: Array
    draws: Array


@dataclass(frozen=True)
class Range:
    """A score and its 90% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """How a score rose with the number of photos, and where it would go.

    `measured` is a range for each part. `expected` is what twice the largest part would score, and `band` the
    same at the sizes of `band_sizes`; both are absent where `why_not` says why nothing can be said.
    """

    name: str
    metric: str
    groups: int
    measured: tuple[Range, ...]
    expected: Range | None = None
    band: tuple[Range, ...] = ()
    why_not: str = ""


def score_parts(
    task: str, truths: Sequence[Truth], files: Sequence[AnswerFile], resamples: int
) -> list[ScoredParts]:
    """Score a task for each part, and of closed answers each class that has at least 20 test groups.

    Args:
        task: Name of the task.
        truths: Its questions' truths.
        files: The answers of the model of each part.
        resamples: How often the test groups are drawn anew.

    Returns:
        The task's headline metric, then the recall of classes (named `task: class`).
    """
    family = family_of(task, truths)
    columns = read_columns(truths)
    sums = [
        family.evaluate(map(file.text, columns.ids)).rows.group_sums(columns.groups, len(columns.group_names))
        for file in files
    ]
    whole = np.stack([part.total() for part in sums])
    parts = bootstrap([partial(_resample, part) for part in sums], sums[0].groups, resamples, [0])
    drawn = np.stack([part["sums"] for part in parts], axis=1)  # (resamples, files, columns)

    def headline(rows: Array) -> Array:
        return np.asarray(family.metrics(rows)[family.headline], dtype=np.float64)

    scored = [ScoredParts(task, family.headline, sums[0].groups, headline(whole), headline(drawn))]
    if not isinstance(family, ClosedFamily):
        return scored
    classes = len(family.classes)

    def recalls(rows: Array) -> Array:
        return class_counts(rows.reshape(*rows.shape[:-1], classes, classes + 1)).recall

    support = family.trials(sums[0])
    return scored + [
        ScoredParts(
            f"{task}: {name}", "recall", int(support[k]), recalls(whole)[:, k], recalls(drawn)[..., k]
        )
        for k, name in enumerate(family.classes)
        if support[k] >= SMALL
    ]


def _resample(sums: GroupSums, drawn: Array) -> dict[str, Array]:
    return {"sums": sums.resample(drawn)}


def band_sizes(sizes: Sequence[int]) -> list[float]:
    """Return the numbers of photos that a curve is drawn at: from the smallest part to twice the largest."""
    return [float(size) for size in np.geomspace(sizes[0], 2 * sizes[-1], _BAND)]


def make_curve(sizes: Sequence[int], scored: ScoredParts) -> LearningCurve:
    """Return the learning curve through the scores of parts with `sizes` photos, in ascending order."""
    measured = _ranges(scored.draws, scored.values)
    why_not = _why_not(sizes, scored)
    if why_not:
        return LearningCurve(scored.name, scored.metric, scored.groups, measured, why_not=why_not)
    covariance = np.cov(_known(scored.draws), rowvar=False)
    # A score of 0 or 1 is the same in all resamples, which proves no certainty: the variance is a quarter, at
    # least, of that of a proportion with two successes and two failures more (Agresti and Coull, 1998).
    proportion = (scored.values * scored.groups + 2) / (scored.groups + 4)
    least = 0.25 * proportion * (1 - proportion) / (scored.groups + 4)
    covariance[np.diag_indices(len(sizes))] = np.maximum(covariance.diagonal(), least)
    at = np.array(band_sizes(sizes))
    errors = draw_errors(np.array(sizes, dtype=np.float64), 1 - scored.values, covariance, at)
    band = _ranges(1 - errors)
    return LearningCurve(scored.name, scored.metric, scored.groups, measured, band[-1], band)


def _why_not(sizes: Sequence[int], scored: ScoredParts) -> str:
    """Return in words why the curve tells nothing of more photos, "" where it does."""
    if len(sizes) < _LEAST_POINTS:
        return f"{len(sizes)} sizes are no curve: more training photos are needed"
    if scored.groups < SMALL:
        return f"only {scored.groups} independent test photos are about it; {SMALL} are needed"
    draws = _known(scored.draws)
    if np.quantile(draws[:, -1] - draws[:, 0], (1 - LEVEL) / 2) > 0:
        return ""
    first, last = f"{scored.values[0]:.2f}", f"{scored.values[-1]:.2f}"
    return (
        f"{first} with {sizes[0]:,} photos, {last} with {sizes[-1]:,}: no rise beyond chance that could go on"
    )


def _known(draws: Array) -> Array:
    """Return the resamples that hold all of what the score is about."""
    return draws[~np.isnan(draws).any(axis=1)]


def _ranges(draws: Array, values: Array | None = None) -> tuple[Range, ...]:
    """Return the middle 90% of draws (d, m), around their medians or around `values` (m,)."""
    low, middle, high = np.quantile(_known(draws), [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    shown = middle if values is None else values
    rounded = (np.round(ends, 4).tolist() for ends in (shown, low, high))
    return tuple(Range(*ends) for ends in zip(*rounded, strict=True))


def draw_errors(sizes: Array, errors: Array, covariance: Array, at: Array, seed: int = 0) -> Array:
    """Draw errors at other sizes from the inverse power laws that agree with the measured errors.

    Args:
        sizes: Numbers of photos (k,), the largest last.
        errors: The errors measured (k,), in 0..1.
        covariance: Their sampling covariance (k, k); the test photos are the same for all.
        at: Numbers of photos to predict for (m,).
        seed: Of the draws.

    Returns:
        Draws (d, m), in 0..1. Each holds what one more training run would differ from the curve by, and what
        the test would measure differently for it alone (not what it measures wrongly for all, which the
        curves that agree hold already).
    """
    variance = covariance.diagonal()
    common = (covariance.sum() - variance.sum()) / (len(sizes) * (len(sizes) - 1))
    own = max(0.0, float(variance.mean() - common))
    floors = np.linspace(0, min(1.0, float(errors.max() + 2 * np.sqrt(variance.max()))), _FLOORS)
    curves = (sizes / sizes[-1]) ** -EXPONENTS[:, None]  # (b, k): what a is multiplied by
    weights, middles, scales = [], [], []
    for deviation in TRAINING_NOISE:
        precision = np.linalg.inv(covariance + deviation**2 * np.eye(len(sizes)))
        rest = errors - floors[:, None]  # (c, k)
        information = np.einsum("bk,kl,bl->b", curves, precision, curves)[:, None]  # on a, (b, 1)
        middle = np.einsum("bk,kl,cl->bc", curves, precision, rest) / information
        misfit = np.einsum("ck,kl,cl->c", rest, precision, rest)[None] - information * middle**2
        scale = np.broadcast_to(1 / np.sqrt(information), middle.shape)
        # a is alike likely from 0 to where the error is 1; the integral over it is a part of a normal curve
        inside = _cdf((1 - floors - middle) / scale) - _cdf(-middle / scale)
        _, log_precision = np.linalg.slogdet(precision)
        weights.append(np.log(np.maximum(inside, 1e-300) * scale) - misfit / 2 + log_precision / 2)
        middles.append(middle)
        scales.append(scale)
    weight = np.exp(np.stack(weights) - np.max(weights))
    generator = np.random.default_rng(seed)
    cells = generator.choice(weight.size, size=_DRAWS, p=(weight / weight.sum()).ravel())
    noise_of, b_of, c_of = np.unravel_index(cells, weight.shape)
    floor = floors[c_of]
    a = _draw_truncated(
        np.stack(middles)[noise_of, b_of, c_of], np.stack(scales)[noise_of, b_of, c_of], 1 - floor, generator
    )
    powers = (at[None] / sizes[-1]) ** -EXPONENTS[b_of][:, None]
    noise = np.sqrt(np.array(TRAINING_NOISE)[noise_of] ** 2 + own)[:, None]
    of_a_run = noise * generator.standard_normal((_DRAWS, len(at)))
    return np.clip(floor[:, None] + a[:, None] * powers + of_a_run, 0, 1)


def _draw_truncated(middle: Array, scale: Array, highest: Array, generator: np.random.Generator) -> Array:
    """Draw from normal distributions (d,) that are cut off below 0 and above `highest` (d,)."""
    low, high = _cdf(-middle / scale), _cdf((highest - middle) / scale)
    share = np.clip(low + generator.random(len(middle)) * (high - low), 1e-15, 1 - 1e-15)
    quantile = np.vectorize(NormalDist().inv_cdf, otypes=[float])
    return np.clip(middle + scale * quantile(share), 0, highest)
