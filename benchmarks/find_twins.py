"""Measures how long the search for copies takes, and how many planted ones it finds, by the number of images.

    python -m benchmarks.find_twins 20000 100000 1000000
    python -m benchmarks.find_twins 20000 100000 --scene film

Images are noise of few cells, so that their hashes are as uneven as those of photos; a hundredth is black.
One in ten has a copy: with noise, brighter, turned or mirrored. Prints a line for each number: seconds, the
most memory that the process held, planted pairs that were found, pairs that were not planted.

Other scenes are of images that are all alike, and have no planted pairs: `still` is a film in which nothing
happens, with the noise of a sensor; `film` moves slowly along a wall; `pieces` lie in one fixture, and are
alike but no copies. Their lines count pairs and groups.
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
from data_prep.splits.joined import Joined
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


def make_alike(scene: str, count: int, seed: int) -> NDArray[np.uint8]:
    """Return greys of images that are all alike."""
    random = np.random.default_rng(seed)
    noise = {"still": 0.5, "film": 0.5, "pieces": 3.0}[scene]
    wall = random.normal(128, 40, (_CELLS, _CELLS + 2 + count // 1000)).repeat(4, 0).repeat(4, 1)
    for axis in (0, 1):
        wall = (np.roll(wall, 1, axis) + wall + np.roll(wall, -1, axis)) / 3
    greys = np.empty((count, FINGERPRINT_SIDE, FINGERPRINT_SIDE), dtype=np.uint8)
    for number in range(count):
        left, part = divmod(number / 250 if scene == "film" else 0.0, 1)
        shown = wall[:, int(left) : int(left) + FINGERPRINT_SIDE + 1]
        grey = shown[:, :-1] * (1 - part) + shown[:, 1:] * part
        greys[number] = np.clip(grey + random.normal(0, noise, grey.shape), 0, 255)
    return greys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="+", type=int, help="numbers of images")
    parser.add_argument("--scene", choices=("many", "still", "film", "pieces"), default="many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    within = Grouping().twins or 0
    for count in args.counts:
        planted: set[tuple[int, int]] = set()
        if args.scene == "many":
            greys, planted = make_fingerprints(count, args.seed)
        else:
            greys = make_alike(args.scene, count, args.seed)
        fingerprints = [grey.tobytes() for grey in greys]
        del greys
        started = time.perf_counter()
        first, second, _ = find_twins(fingerprints, within)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        line = f"{count:>9,} images: {seconds:7.1f} s, {peak:4.1f} GB; "
        if args.scene == "many":
            found = set(zip(first.tolist(), second.tolist(), strict=True))
            line += f"{len(found & planted):,} of {len(planted):,} planted pairs found, "
            line += f"{len(found - planted):,} others"
        else:
            joined = Joined(count)
            joined.union(first, second)
            groups = np.unique(joined.find(np.arange(count)))
            line += f"{len(first):,} pairs, {len(groups):,} groups"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
