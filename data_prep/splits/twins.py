"""Finds copies of images by their fingerprints: re-encoded, noisy, scaled, turned and mirrored ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.images.fingerprint import FINGERPRINT_SIDE
from data_prep.splits.joined import Joined
from data_prep.splits.near_codes import Bits, CodeIndex, IntArray, Words, pack

HASH_SIDE = FINGERPRINT_SIDE // 2
HASH_BITS = HASH_SIDE * (HASH_SIDE - 1)
ALL_PAIRS = 50
"""Of sets that hang together with more images than so many, not all pairs are looked for."""
# Correlation of two fingerprints, and of what their cells differ from their neighbours. Copies have 0.99 and
# 0.95 and more; other pieces of one kind in one fixture have the first as well, but not the second.
_ALIKE, _ALIKE_IN_DETAIL = 0.95, 0.8
_BRIGHTER = 4 * 2  # grey levels of four cells, by which their sum exceeds its neighbour: else noise decides
_FLAT = 1.5  # grey levels of deviation, below which an image shows nothing
_HASHED, _COMPARED = (
    1 << 12,
    1 << 9,
)  # images, and pairs, at a time: so that a cache holds what is made of them
# With how many of its candidates an image is compared, the nearest first. After each round those that are
# joined by then are left out, where many are.
_ROUNDS = (2, 14, 48)
# Where more images than so many hang together, they may be pieces in one fixture. Copies among these are
# those that are equal but for noise (grey levels), or much nearer than two of them mostly are.
_MANY, _EQUAL, _NEARER = 20, 1.5, 0.25
_FILM = 0.7  # of that, by which neighbours in order differ: then they are a film, and pieces do not
_SAMPLES = 500  # pairs, of which the usual difference is taken
GreyBytes = NDArray[np.uint8]
"""Images as their fingerprints are: (images, rows, columns)."""
Greys = NDArray[np.float32]
FloatArray = NDArray[np.floating]


class _Pairs(NamedTuple):
    """Images, by index, the earlier one first; in how many bits their hashes differ, and by how many grey
    levels they do."""

    first: IntArray
    second: IntArray
    bits: IntArray
    difference: FloatArray

    def chosen(self, which: NDArray) -> _Pairs:
        return _Pairs(*(column[which] for column in self))


def find_twins(
    fingerprints: Sequence[bytes], within: int, sides: IntArray | None = None
) -> tuple[IntArray, IntArray, IntArray]:
    """Find the images that are copies of one another, in any of the eight ways to turn and mirror one.

    Candidates have hashes (dHash, N. Krawetz, "Kind of Like That", 2013; 240 bits here) that differ in at
    most `within` bits; a pair is one whose fingerprints correlate as well. Of many images with one hash (a
    film of a still scene), each is compared with the first and with the one before it; where more than
    `ALL_PAIRS` hang together, only as many pairs are looked for as join them. Images that show nothing, such
    as black frames, are not compared. Where many hang together and are no film, as pieces in one fixture do,
    only pairs that are much nearer than these usually are count.

    Time and memory (some 0.4 KB an image) grow with the number of images, however many are alike.

    Args:
        fingerprints: Of the images, in the order of their names.
        within: The most bits in which the hashes of copies differ.
        sides: A number for each image. Pairs on two sides are all looked for, for those who ask which images
            of one have a copy on the other.

    Returns:
        The first and the second image of each pair, by index, and in how many bits their hashes differ.
    """
    if sides is None:
        sides = np.zeros(len(fingerprints), dtype=np.int64)
    images, words = _shown_hashes(fingerprints)
    found = _Search(fingerprints, within, sides, images, words).run()
    # Copies among pieces in one fixture: in each set of them, by its number in `most`.
    sets, most = _sets_of_pieces(fingerprints, images, found)
    kept = [found.chosen(found.difference <= np.append(most, np.inf)[sets[found.first]])]
    for number in np.flatnonzero(np.bincount(sets[images], minlength=len(most))[: len(most)] > ALL_PAIRS):
        # Not all of its pairs are found. Alone, its images have hashes that tell them from each other.
        members = sets[images] == number
        kept[0] = kept[0].chosen(sets[kept[0].first] != number)
        kept.append(_Search(fingerprints, within, sides, images[members], words[members], most[number]).run())
    first, second, bits, _ = _together(kept)
    return first, second, bits


class _Search:
    """Searches copies among some images.

    Args:
        fingerprints: Of all images.
        within: The most bits in which the hashes of copies differ.
        sides: Of all images.
        images: Those that are compared, in order.
        words: Their hashes.
        most: The most grey levels by which copies differ.
    """

    def __init__(
        self,
        fingerprints: Sequence[bytes],
        within: int,
        sides: IntArray,
        images: IntArray,
        words: Words,
        most: float = np.inf,
    ) -> None:
        self._fingerprints, self._within, self._most = fingerprints, within, most
        self._images, self._words, self._sides = images, words, sides[images]
        self._joined = Joined(len(images))  # what lies on one side
        self._found: list[_Pairs] = []

    def run(self) -> _Pairs:
        """Return the pairs of images, in order, each once, as it is nearest."""
        if not len(self._images):
            return _together([])
        rows, first_of = _unique(self._words)
        first, second = _of_one_hash(first_of)
        self._compare(first, second, np.zeros(len(first), dtype=np.int64), 0)
        words = self._words[rows]
        index = CodeIndex(words, HASH_BITS)
        near = index.near(words, self._within, wanted=lambda one, two: self._is_open(rows[one], rows[two]))
        for one, two, bits in near:
            self._compare_nearest(rows[one], rows[two], bits, 0)
        place = np.searchsorted(rows, first_of)  # in the index, of each image's hash
        for start in range(0, len(self._images), _HASHED):
            part = np.arange(start, min(start + _HASHED, len(self._images)))
            greys = _greys(self._fingerprints, self._images[part])
            for turn in range(1, 8):
                self._compare_turned(
                    index, rows, part, pack(_hashes(_turned(greys, turn))), place[part], turn
                )
        return _together(self._found)

    def _compare_turned(
        self, index: CodeIndex, rows: IntArray, part: IntArray, turned: Words, place: IntArray, turn: int
    ) -> None:
        """Compare turned images, by their places `part`, with those of the index, whose places are `rows`."""

        def wanted(one: IntArray, two: IntArray) -> NDArray[np.bool_]:
            return (part[one] != rows[two]) & self._is_open(part[one], rows[two])

        for one, two, bits in index.near(turned, self._within, place, wanted):
            self._compare_nearest(part[one], rows[two], bits, turn)

    def _is_open(self, first: IntArray, second: IntArray) -> NDArray[np.bool_]:
        """Tell which pairs, by their places, would tell something new if they are copies."""
        sets = self._joined.find(first)
        known = (sets == self._joined.find(second)) & (self._joined.sizes(sets) > ALL_PAIRS)
        return ~known | (self._sides[first] != self._sides[second])

    def _compare_nearest(self, queries: IntArray, others: IntArray, bits: IntArray, turn: int) -> None:
        """Compare turned images, in order, with their candidates, those of fewest bits first."""
        order = np.lexsort((others, bits, queries))
        queries, others, bits = queries[order], others[order], bits[order]
        for count in _ROUNDS:
            still = self._is_open(queries, others)
            queries, others, bits = queries[still], others[still], bits[still]
            if not len(queries):
                return
            first = np.searchsorted(queries, queries)  # candidate of each query
            now = np.arange(len(queries)) - first < count
            # The turned image is the second one.
            self._compare(others[now], queries[now], bits[now], turn)
            queries, others, bits = queries[~now], others[~now], bits[~now]

    def _compare(self, first: IntArray, second: IntArray, bits: IntArray, turn: int) -> None:
        copies, difference = _compare(
            self._fingerprints, self._images[first], self._images[second], turn, self._most
        )
        first, second = first[copies], second[copies]
        low, high = self._images[np.minimum(first, second)], self._images[np.maximum(first, second)]
        self._found.append(_Pairs(low, high, bits[copies], difference[copies]))
        one_side = self._sides[first] == self._sides[second]
        self._joined.union(first[one_side], second[one_side])


def _together(parts: Sequence[_Pairs]) -> _Pairs:
    """Return pairs in order, each once, with the turn in which it is nearest."""
    none = np.empty(0, dtype=np.int64)
    parts = [_Pairs(none, none, none, np.empty(0, dtype=np.float32)), *parts]
    pairs = _Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.lexsort((pairs.difference, pairs.bits, pairs.second, pairs.first))
    pairs = pairs.chosen(order)
    new = np.ones(len(pairs.first), dtype=np.bool_)
    new[1:] = (np.diff(pairs.first) != 0) | (np.diff(pairs.second) != 0)
    return pairs.chosen(new)


def _sets_of_pieces(
    fingerprints: Sequence[bytes], images: IntArray, found: _Pairs
) -> tuple[IntArray, FloatArray]:
    """Find the sets of many images that hang together and are no film.

    Returns:
        For each of all images the number of its set, how many sets there are for none; and for each set the
        most grey levels by which copies in it differ.
    """
    together = Joined(len(fingerprints))
    together.union(found.first, found.second)
    names = together.find(images)
    order = np.argsort(names, kind="stable")
    starts = np.flatnonzero(np.diff(names[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    random = np.random.default_rng(0)
    pieces: list[IntArray] = []
    most: list[float] = []
    for place in np.flatnonzero(ends - starts > _MANY):
        members = images[order[starts[place] : ends[place]]]
        drawn = random.choice(members, (_SAMPLES, 2))
        drawn = drawn[drawn[:, 0] != drawn[:, 1]]
        places = random.choice(len(members) - 1, min(_SAMPLES, len(members) - 1), replace=False)
        usual = _usual_difference(fingerprints, drawn[:, 0], drawn[:, 1])
        if _usual_difference(fingerprints, members[places], members[places + 1]) > _FILM * usual:
            pieces.append(members)
            most.append(max(_EQUAL, _NEARER * usual))
    sets = np.full(len(fingerprints), len(pieces), dtype=np.int64)
    for number, members in enumerate(pieces):
        sets[members] = number
    return sets, np.array(most)


def _usual_difference(fingerprints: Sequence[bytes], first: IntArray, second: IntArray) -> float:
    return float(np.median(_compare(fingerprints, first, second, 0)[1]))


def _greys(fingerprints: Sequence[bytes], images: IntArray) -> GreyBytes:
    greys = np.frombuffer(b"".join([fingerprints[image] for image in images.tolist()]), dtype=np.uint8)
    return greys.reshape(-1, FINGERPRINT_SIDE, FINGERPRINT_SIDE)


def _shown_hashes(fingerprints: Sequence[bytes]) -> tuple[IntArray, Words]:
    """Return the images that show something, and their hashes."""
    shown, words = [np.empty(0, dtype=np.int64)], [pack(np.empty((0, HASH_BITS), dtype=np.bool_))]
    for start in range(0, len(fingerprints), _HASHED):
        part = np.arange(start, min(start + _HASHED, len(fingerprints)))
        greys = _greys(fingerprints, part)
        seen = greys.std(axis=(1, 2), dtype=np.float32) >= _FLAT
        shown.append(part[seen])
        words.append(pack(_hashes(greys[seen])))
    return np.concatenate(shown), np.concatenate(words)


def _hashes(greys: GreyBytes) -> Bits:
    cells = greys.reshape(-1, HASH_SIDE, 2, HASH_SIDE, 2).sum(axis=(2, 4), dtype=np.uint16)
    return (cells[:, :, 1:] > cells[:, :, :-1] + _BRIGHTER).reshape(len(greys), HASH_BITS)


def _unique(words: Words) -> tuple[IntArray, IntArray]:
    """Return the first row of each different code, in order, and for each row the first with its code."""
    keys = np.ascontiguousarray(words).view(np.dtype((np.void, words.shape[1] * words.itemsize))).ravel()
    _, rows, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.sort(rows), rows[inverse]


def _of_one_hash(first_of: IntArray) -> tuple[IntArray, IntArray]:
    """Return pairs of images of one hash: each with the first of them, and with the one before it."""
    order = np.argsort(first_of, kind="stable")
    same = first_of[order][1:] == first_of[order][:-1]
    return (
        np.concatenate([first_of[order][1:][same], order[:-1][same]]),
        np.concatenate([order[1:][same]] * 2),
    )


def _turned(greys: NDArray, turn: int) -> NDArray:
    """Turn images by `turn` modulo 4 quarters; from 4 on they are mirrored first."""
    return np.rot90(greys[:, :, ::-1] if turn >= 4 else greys, turn % 4, axes=(1, 2))


def _compare(
    fingerprints: Sequence[bytes], first: IntArray, second: IntArray, turn: int, most: float = np.inf
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Tell for each pair whether the first image and the turned second one are alike and differ by at most
    `most` grey levels; and by how many they differ (root mean square) where brightness and contrast are made
    the same."""
    alike, difference = np.zeros(len(first), dtype=np.bool_), np.zeros(len(first), dtype=np.float32)
    for start in range(0, len(first), _COMPARED):
        part = slice(start, start + _COMPARED)
        one = _greys(fingerprints, first[part]).astype(np.float32)
        two = np.ascontiguousarray(_turned(_greys(fingerprints, second[part]), turn), dtype=np.float32)
        whole, contrast = _correlation(one, two)
        difference[part] = contrast * np.sqrt(np.maximum(0, 2 - 2 * whole))
        near = np.flatnonzero((whole >= _ALIKE) & (difference[part] <= most))
        detail, _ = _correlation(_detail(one[near]), _detail(two[near]))
        alike[start + near[detail >= _ALIKE_IN_DETAIL]] = True
    return alike, difference


def _detail(greys: Greys) -> Greys:
    """Return by how much each cell differs from the mean of the nine around it."""
    padded = np.pad(greys, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return greys - (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _correlation(first: Greys, second: Greys) -> tuple[FloatArray, FloatArray]:
    """Return the normalised correlation of each two, and the smaller of their standard deviations."""
    one = first - first.mean(axis=(1, 2), keepdims=True)
    two = second - second.mean(axis=(1, 2), keepdims=True)
    energies = np.einsum("nij,nij->n", one, one), np.einsum("nij,nij->n", two, two)
    correlation = np.einsum("nij,nij->n", one, two) / np.sqrt(np.maximum(energies[0] * energies[1], 1e-6))
    return correlation, np.sqrt(np.minimum(*energies) / FINGERPRINT_SIDE**2)
