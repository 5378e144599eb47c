"""Finds copies of images by their fingerprints: re-encoded, noisy, scaled, turned and mirrored ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.images.fingerprint import FINGERPRINT_SIDE
from data_prep.splits.near_codes import Bits, CodeIndex, IntArray
from data_prep.union_find import UnionFind

HASH_SIDE = FINGERPRINT_SIDE // 2
HASH_BITS = HASH_SIDE * (HASH_SIDE - 1)
# Correlation of two fingerprints, and of what their cells differ from their neighbours. Copies have 0.99 and
# 0.95 and more; other pieces of one kind in one fixture have the first as well, but not the second.
_ALIKE, _ALIKE_IN_DETAIL = 0.95, 0.8
_BRIGHTER = 4 * 2  # grey levels of four cells, by which their sum exceeds its neighbour: else noise decides
_FLAT = 1.5  # grey levels of deviation, below which an image shows nothing
_CHUNK = 1 << 16  # pairs that are correlated at a time
# Where more images than so many hang together, they may be pieces in one fixture. Copies among these are
# those that are equal but for noise (grey levels), or much nearer than two of them mostly are.
_MANY, _EQUAL, _NEARER = 20, 1.5, 0.25
_FILM = 0.7  # of that, by which neighbours in order differ: then they are a film, and pieces do not
_SAMPLES = 500  # pairs, of which the usual difference is taken
Greys = NDArray[np.float32]
FloatArray = NDArray[np.floating]


def find_twins(fingerprints: Sequence[bytes], within: int) -> tuple[IntArray, IntArray, IntArray]:
    """Find the images that are copies of one another, in any of the eight ways to turn and mirror one.

    Candidates have hashes (dHash, N. Krawetz, "Kind of Like That", 2013; 240 bits here) that differ in at
    most `within` bits; a pair is one whose fingerprints correlate as well. Of many images with one hash (a
    film of a still scene), each is compared with the first and with the one before it. Images that show
    nothing, such as black frames, are not compared. Where many hang together and are no film, as pieces in
    one fixture do, only pairs that are much nearer than these usually are count.

    Args:
        fingerprints: Of the images, in the order of their names.
        within: The most bits in which the hashes of copies differ.

    Returns:
        The first and the second image of each pair, by index, and in how many bits their hashes differ.
    """
    none = np.empty(0, dtype=np.int64)
    if len(fingerprints) < 2:
        return none, none, none
    greys = np.frombuffer(b"".join(fingerprints), dtype=np.uint8)
    greys = greys.reshape(-1, FINGERPRINT_SIDE, FINGERPRINT_SIDE)
    shown = np.flatnonzero(_deviations(greys) >= _FLAT)
    greys = greys[shown]
    codes = _hashes(greys)
    rows, first_of = _unique(codes)
    index = CodeIndex(codes[rows])
    found = [_with_one_hash(greys, first_of)]
    for turn in range(8):
        turned = codes if turn == 0 else _hashes(_turned(greys, turn))
        queries = rows if turn == 0 else np.arange(len(greys))
        second, first, bits = index.near(turned[queries], within)
        first, second = rows[first], queries[second]
        later = first < second if turn == 0 else first != second
        first, second, bits = first[later], second[later], bits[later]
        alike, difference = _compare(greys, first, second, turn)
        low, high = np.minimum(first, second)[alike], np.maximum(first, second)[alike]
        found.append((low, high, bits[alike], difference[alike]))
    first, second, bits, difference = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # Once a pair, with the turn in which it is nearest.
    order = np.lexsort((difference, bits, second, first))
    new = np.ones(len(first), dtype=np.bool_)
    new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    kept = order[new]
    kept = kept[_stand_out(greys, first[kept], second[kept], difference[kept])]
    return shown[first[kept]], shown[second[kept]], bits[kept]


def _stand_out(
    greys: NDArray[np.uint8], first: IntArray, second: IntArray, difference: FloatArray
) -> NDArray[np.bool_]:
    """Tell of each pair whether it stands out among the images that hang together with it."""
    together = UnionFind(len(greys))
    for one, two in zip(first.tolist(), second.tolist(), strict=True):
        together.union(one, two)
    sets = np.array([together.find(index) for index in range(len(greys))], dtype=np.int64)
    order = np.argsort(sets, kind="stable")
    largest = np.full(len(greys), np.inf)  # difference of copies, by set
    random = np.random.default_rng(0)
    for members in np.split(order, np.flatnonzero(np.diff(sets[order])) + 1):
        if len(members) <= _MANY:
            continue
        drawn = random.choice(members, (_SAMPLES, 2))
        drawn = drawn[drawn[:, 0] != drawn[:, 1]]
        places = random.choice(len(members) - 1, min(_SAMPLES, len(members) - 1), replace=False)
        usual = _usual_difference(greys, drawn[:, 0], drawn[:, 1])
        if _usual_difference(greys, members[places], members[places + 1]) > _FILM * usual:
            largest[sets[members[0]]] = max(_EQUAL, _NEARER * usual)
    return difference <= largest[sets[first]]


def _usual_difference(greys: NDArray[np.uint8], first: IntArray, second: IntArray) -> float:
    return float(np.median(_compare(greys, first, second, 0)[1]))


def _deviations(greys: NDArray[np.uint8]) -> FloatArray:
    """Return the standard deviation of each image's greys."""
    parts = (greys[start : start + _CHUNK] for start in range(0, len(greys), _CHUNK))
    return np.concatenate([part.std(axis=(1, 2), dtype=np.float32) for part in parts])


def _hashes(greys: NDArray[np.uint8]) -> Bits:
    cells = greys.reshape(-1, HASH_SIDE, 2, HASH_SIDE, 2).sum(axis=(2, 4), dtype=np.uint16)
    return (cells[:, :, 1:] > cells[:, :, :-1] + _BRIGHTER).reshape(len(greys), HASH_BITS)


def _unique(codes: Bits) -> tuple[IntArray, IntArray]:
    """Return the first row of each different code, in order, and for each row the first with its code."""
    packed = np.packbits(codes, axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, rows, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.sort(rows), rows[inverse]


def _with_one_hash(
    greys: NDArray[np.uint8], first_of: IntArray
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Compare images of one hash: each with the first of them, and with the one before it."""
    order = np.argsort(first_of, kind="stable")
    same = first_of[order][1:] == first_of[order][:-1]
    second = np.concatenate([order[1:][same]] * 2)
    first = np.concatenate([first_of[order][1:][same], order[:-1][same]])
    alike, difference = _compare(greys, first, second, 0)
    return first[alike], second[alike], np.zeros(int(alike.sum()), dtype=np.int64), difference[alike]


def _turned(greys: NDArray, turn: int) -> NDArray:
    """Turn images by `turn` modulo 4 quarters; from 4 on they are mirrored first."""
    return np.rot90(greys[:, :, ::-1] if turn >= 4 else greys, turn % 4, axes=(1, 2))


def _compare(
    greys: NDArray[np.uint8], first: IntArray, second: IntArray, turn: int
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Tell for each pair whether the first image and the turned second one are alike, and by how many grey
    levels they differ (root mean square) where brightness and contrast are made the same."""
    alike, difference = np.zeros(len(first), dtype=np.bool_), np.zeros(len(first), dtype=np.float32)
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        one = greys[first[part]].astype(np.float32)
        two = np.ascontiguousarray(_turned(greys[second[part]], turn), dtype=np.float32)
        whole, detail = _correlation(one, two), _correlation(_detail(one), _detail(two))
        alike[part] = (whole >= _ALIKE) & (detail >= _ALIKE_IN_DETAIL)
        contrast = np.minimum(one.std(axis=(1, 2)), two.std(axis=(1, 2)))
        difference[part] = contrast * np.sqrt(np.maximum(0, 2 - 2 * whole))
    return alike, difference


def _detail(greys: Greys) -> Greys:
    """Return by how much each cell differs from the mean of the nine around it."""
    padded = np.pad(greys, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return greys - (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _correlation(first: Greys, second: Greys) -> FloatArray:
    """Return the normalised correlation of each two."""
    one = first - first.mean(axis=(1, 2), keepdims=True)
    two = second - second.mean(axis=(1, 2), keepdims=True)
    energy = np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", two, two)
    return np.einsum("nij,nij->n", one, two) / np.sqrt(np.maximum(energy, 1e-6))
