"""Measures how long the search for copies takes, and how many planted ones it finds, by the number of images.

    python -m benchmarks.find_twins 20000 100000 1000000

Images are noise of few cells, so that their hashes are as uneven as those of photos; a hundredth is black.
One in ten has a copy: with noise, brighter, turned or mirrored. Prints a line for each number: seconds, the
most memory that the process held, planted pairs that were found, pairs that were not planted.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray

from data_prep.images.fingerprint import FINGERPRINT_SIDE
from data_prep.recipe.schema import Grouping
from data_prep.splits.twins import find_twins

_CELLS = 8  # along a side of an image, blurred


def make_fingerprints(count: int, seed: int) -> tuple[NDArray[np.uint8], set[tuple[int, int]]]:
    """Return greys of `count` images and the pairs that are copies."""
    random = np.random.default_rng(seed)
    greys = np.empty((count, FINGERPRINT_SIDE, FINGERPRINT_SIDE), dtype=np.uint8)
    scale = FINGERPRINT_SIDE // _CELLS
    for start in range(0, count, 10_000):
        rows = min(10_000, count - start)
        cells = random.normal(128, 40, (rows, _CELLS, _CELLS)).repeat(scale, 1).repeat(scale, 2)
        for axis in (1, 2):
            cells = (np.roll(cells, 1, axis) + cells + np.roll(cells, -1, axis)) / 3
        cells += random.normal(0, 6, cells.shape)
        greys[start : start + rows] = np.clip(cells, 0, 255)
    greys[random.random(count) < 0.01] = 0
    planted = set()
    chosen = random.permutation(count)[: count // 5]
    for one, two in zip(chosen[::2].tolist(), chosen[1::2].tolist(), strict=False):
        if not greys[one].any():
            continue
        turn = int(random.integers(0, 16))  # half of the copies are upright
        copy = greys[one].astype(np.float32)
        copy = np.rot90(copy[:, ::-1] if turn & 4 else copy, turn % 4) if turn < 8 else copy
        copy = copy * random.uniform(0.8, 1.1) + random.normal(0, random.uniform(0, 3), copy.shape)
        greys[two] = np.clip(copy, 0, 255)
        planted.add((min(one, two), max(one, two)))
    return greys, planted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="+", type=int, help="numbers of images")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    within = Grouping().twins or 0
    for count in args.counts:
        greys, planted = make_fingerprints(count, args.seed)
        fingerprints = [grey.tobytes() for grey in greys]
        del greys
        started = time.perf_counter()
        first, second, _ = find_twins(fingerprints, within)
        seconds = time.perf_counter() - started
        found = set(zip(first.tolist(), second.tolist(), strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        print(
            f"{count:>9,} images: {seconds:7.1f} s, {peak:4.1f} GB; {len(found & planted):,} of "
            f"{len(planted):,} planted pairs found, {len(found - planted):,} others",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
