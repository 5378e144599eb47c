"""Finds crops that show the same object: one string of insulators pasted on many backgrounds, one thing seen
twice. By local features of OpenCV, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.splits.near_codes import CodeIndex, IntArray, pack

_SIDE = 384  # pixels of a crop's longer side, to which a larger one is scaled down
_FEATURES = 400  # in a crop
_CODE_WITHIN = 16  # bits of 128, in which the codes of one feature differ at most
_VOTES = 5  # features that look alike, from which two crops are compared
_RATIO = 0.75  # of the distances to the best and the second best match (D. Lowe, 2004, section 7.1)
_WITHIN_PIXELS = 3.0  # of the place that the affine map says
_INLIERS = 25  # matches that one affine map explains; crops of two objects have some 10
_MOST_PAIRS = 200_000  # that are compared


@dataclass(frozen=True)
class Features:
    """SIFT features of a crop: their (x, y) and descriptors."""

    places: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


def is_available() -> bool:
    """Tell whether OpenCV is installed."""
    return find_spec("cv2") is not None


def _opencv() -> Any:
    return import_module("cv2")  # its own stubs lack SIFT


def find_features(file: Path) -> Features:
    """Find the features of a written crop."""
    cv2 = _opencv()
    grey = cv2.imdecode(np.fromfile(file, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    scale = _SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points, descriptors = cv2.SIFT_create(nfeatures=_FEATURES).detectAndCompute(grey, None)
    if descriptors is None:
        return Features(np.empty((0, 2), dtype=np.float32), np.empty((0, 128), dtype=np.uint8))
    return Features(np.array([point.pt for point in points], dtype=np.float32), descriptors.astype(np.uint8))


def find_same_objects(
    features: Sequence[Features], owners: Sequence[int]
) -> tuple[IntArray, IntArray, IntArray]:
    """Find the crops that show the same object.

    Args:
        features: Of each crop.
        owners: The image that each is cut from; crops of one image are not compared.

    Returns:
        The owners of the first and the second crop of each pair, and how many features agree.
    """
    best: dict[tuple[int, int], int] = {}
    for first, second in _candidates(features, owners):
        if (inliers := _inliers(features[first], features[second])) >= _INLIERS:
            pair = (min(owners[first], owners[second]), max(owners[first], owners[second]))
            best[pair] = max(inliers, best.get(pair, 0))
    columns = np.array([(*pair, inliers) for pair, inliers in sorted(best.items())], dtype=np.int64)
    columns = columns.reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def _candidates(features: Sequence[Features], owners: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of crops that have `_VOTES` features alike, those with most first."""
    crops = np.repeat(np.arange(len(features)), [len(item.places) for item in features])
    if not len(crops):
        return []
    descriptors = np.concatenate([item.descriptors for item in features])
    words = pack(descriptors > np.median(descriptors, axis=0))
    image = np.asarray(owners)[crops]
    near = CodeIndex(words, descriptors.shape[1]).near(
        words, _CODE_WITHIN, wanted=lambda rows, others: image[rows] != image[others]
    )
    alike = [crops[rows] * len(features) + crops[others] for rows, others, _ in near]
    pairs, votes = np.unique(np.concatenate(alike), return_counts=True)
    chosen = np.argsort(-votes, kind="stable")[: min(_MOST_PAIRS, int((votes >= _VOTES).sum()))]
    return [divmod(int(pair), len(features)) for pair in pairs[chosen]]


def _inliers(one: Features, two: Features) -> int:
    """Return how many features of two crops one affine map explains."""
    rows, columns = _matches(one.descriptors, two.descriptors)
    if len(rows) < _INLIERS:
        return 0
    first, second = one.places[rows], two.places[columns]
    _, inside = _opencv().estimateAffine2D(first, second, ransacReprojThreshold=_WITHIN_PIXELS)
    return 0 if inside is None else int(inside.sum())


def _matches(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> tuple[IntArray, IntArray]:
    """Return the descriptors of the first that have a match in the second clearly better than the next best
    one, and these matches."""
    none = np.empty(0, dtype=np.int64)
    if not len(one) or len(two) < 2:
        return none, none
    first, second = one.astype(np.float32), two.astype(np.float32)
    # Squares of distances, without those of the first, which are the same for all matches; all are whole
    # numbers that float32 holds.
    apart = np.square(second).sum(axis=1) - 2 * (first @ second.T)
    rows, best = np.arange(len(one)), apart.argmin(axis=1)
    nearest = apart[rows, best]
    apart[rows, best] = np.inf
    own = np.square(first).sum(axis=1)
    clear = nearest + own < _RATIO**2 * (apart.min(axis=1) + own)
    return rows[clear], best[clear]
