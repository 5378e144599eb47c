"""Finds photos that may show the same: bursts and copies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from itertools import pairwise

import numpy as np

from data_prep.images.fingerprint import fingerprint
from data_prep.splits.twins import find_twins
from data_prep.union_find import UnionFind
from eval.survey.photos import PhotoFacts
from llava.common.images import open_image

SECONDS = 3.0  # at most between two photos of a burst
ALIKE = 0.6  # correlation of their fingerprints at least: a camera on a timer sees something else each time


def group_bursts(photos: Sequence[PhotoFacts], twins: int | None) -> list[int]:
    """Return a number for each photo, the same for those that may show the same.

    They lie in one folder, and were taken within SECONDS of each other and look alike, or are copies.

    Args:
        photos: What is known of each.
        twins: The most bits in which the hashes of copies differ, as `Grouping.twins`; None looks for none.
    """
    shown = [index for index, photo in enumerate(photos) if photo.thumbnail]
    prints = {index: fingerprint(open_image(BytesIO(photos[index].thumbnail))) for index in shown}
    together = UnionFind(len(photos))
    if twins is not None:
        assets: dict[str, int] = {}
        sides = [assets.setdefault(photos[index].asset, len(assets)) for index in shown]
        first, second, _ = find_twins([prints[index] for index in shown], twins, np.array(sides, np.int64))
        for one, two in zip(first.tolist(), second.tolist(), strict=True):
            if photos[shown[one]].asset == photos[shown[two]].asset:
                together.union(shown[one], shown[two])
    timed = [
        (photos[index].asset, _seconds(photos[index]), index) for index in shown if photos[index].taken.time
    ]
    for (folder, before, one), (other, after, two) in pairwise(sorted(timed)):
        if folder == other and after - before <= SECONDS and _correlation(prints[one], prints[two]) >= ALIKE:
            together.union(one, two)
    return [together.find(index) for index in range(len(photos))]


def _seconds(photo: PhotoFacts) -> float:
    """Return when a photo was taken; only what lies between two times counts, so that all are of one zone."""
    assert photo.taken.time is not None
    moment = datetime.fromisoformat(photo.taken.time).replace(tzinfo=None)
    return (moment - datetime(1970, 1, 1)).total_seconds()


def _correlation(first: bytes, second: bytes) -> float:
    one, two = (np.frombuffer(greys, np.uint8).astype(np.float64) for greys in (first, second))
    one, two = one - one.mean(), two - two.mean()
    energy = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / energy if energy else 0.0
