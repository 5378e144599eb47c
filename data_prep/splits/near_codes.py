"""Finds codes of bits that differ in few bits, among a million of them, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Bits = NDArray[np.bool_]
"""Codes as rows of bits: (codes, bits)."""
Words = NDArray[np.uint64]
"""Codes as `pack` makes them: (codes, words of 64 bits)."""

TABLES = 24
_SPARE_BITS = 5  # of a key beyond those that number the codes: so random codes rarely share one
_FEWEST_BITS, _MOST_BITS = 10, 32  # of a key
_SHARE_OF_BITS = 1 / 3  # of those that differ between the codes, which a key holds at most
_MOST_IN_A_BUCKET = 32  # codes on either side that a query is compared with, of those that share its key
_CHUNK = 1 << 12  # codes that are looked for at a time
_LOW = np.uint64(32)  # bits of an entry of a table that hold the code's row; those above hold its key
_ROW = np.uint64((1 << 32) - 1)


def pack(codes: Bits) -> Words:
    """Return codes in words of 64 bits: an eighth of the memory."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 64) * 64), dtype=np.bool_)
    padded[:, : codes.shape[1]] = codes
    return np.packbits(padded, axis=1).view(np.uint64)


class CodeIndex:
    """Finds the codes of an index that are near to others, by bit sampling (Indyk and Motwani, "Approximate
    Nearest Neighbors", 1998).

    Codes that agree in a random choice of bits, a key, are compared, and that for several such choices. Of a
    million codes of 240 bits, a pair that differs in 12 is missed once in 3,000 times, one that differs in 20
    once in 15 times; of fewer codes keys are shorter, and fewer pairs are missed. Keys of disjoint parts of
    the code, one of which must agree (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with
    Multi-Index Hashing", CVPR 2012), would miss none, but of 240 bits and 20 that differ they are 11 bits
    long: of a million codes, 500 and more would share each.

    Time and memory grow with the number of codes: a query is compared with no more than `_MOST_IN_A_BUCKET`
    codes on either side of it that share a key, in order of their rows, so that of a bucket of any size all
    are linked in a chain. An index holds 8 bytes for a code and table.
    """

    def __init__(self, words: Words, width: int, tables: int = TABLES) -> None:
        """Index codes of `width` bits each."""
        count = len(words)
        self._words, self._width = words, width
        length = int(np.ceil(np.log2(max(count, 2)))) + _SPARE_BITS
        share = sum((part.sum(axis=1) for _, part in self._columns(words)), np.zeros(width)) / max(count, 1)
        # Bits that are the same in nearly all codes would make long buckets.
        weights = share * (1 - share) + 1e-3
        # Where few bits differ, as in frames of a still film, keys of all of these would part what is near.
        differing = weights.sum() ** 2 / np.square(weights).sum()
        length = min(max(length, _FEWEST_BITS), _MOST_BITS, int(np.ceil(_SHARE_OF_BITS * differing)))
        random = np.random.default_rng(0)
        self._choices = [
            random.choice(width, length, replace=False, p=weights / weights.sum()) for _ in range(tables)
        ]
        self._tables = np.empty((tables, count), dtype=np.uint64)
        for start, columns in self._columns(words):
            rows = np.arange(start, start + columns.shape[1], dtype=np.uint64)
            for table, choice in zip(self._tables, self._choices, strict=True):
                table[start : start + len(rows)] = _keys(columns, choice) << _LOW | rows
        self._tables.sort(axis=1)

    def near(
        self,
        words: Words,
        within: int,
        rows: IntArray | None = None,
        wanted: Callable[[IntArray, IntArray], Bits] | None = None,
    ) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
        """Find the pairs of a given code and one of the index that differ in at most `within` bits.

        Args:
            words: The given codes.
            within: The most bits in which codes of a pair differ.
            rows: Of each given code, the row in the index near which it belongs where many share a key.
                None: the given codes are those of the index, and each pair is found once, from its earlier
                code.
            wanted: Tells for rows of given codes and of the index which pairs are wanted, before their codes
                are compared.

        Yields:
            Of some thousand given codes at a time, in order: the rows of the given codes, the rows in the
            index, and in how many bits they differ; each pair once, in order.
        """
        count = max(1, len(self._words))
        for start, columns in self._columns(words):
            given = np.arange(start, start + columns.shape[1])
            places = (given if rows is None else rows[given]).astype(np.uint64)
            found = [np.empty(0, dtype=np.int64)]
            for table, choice in zip(self._tables, self._choices, strict=True):
                entries = _keys(columns, choice) << _LOW | places
                order = np.argsort(entries)  # neighbours are looked up one after another: faster
                for queries, others in _in_bucket(table, entries[order], both_sides=rows is not None):
                    one = given[order[queries]]
                    if wanted is not None:
                        keep = wanted(one, others)
                        one, others = one[keep], others[keep]
                    near = _distances(words, one, self._words, others) <= within
                    found.append(one[near] * count + others[near])
            one, others = np.divmod(_without_repeats(np.concatenate(found)), count)
            yield one, others, _distances(words, one, self._words, others)

    def _columns(self, words: Words) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the first row of some codes, and their bits: (bits, codes)."""
        for start in range(0, len(words), _CHUNK):
            packed = np.ascontiguousarray(words[start : start + _CHUNK]).view(np.uint8)
            yield start, np.ascontiguousarray(np.unpackbits(packed, axis=1, count=self._width).T)


def _keys(columns: NDArray[np.uint8], choice: IntArray) -> NDArray[np.uint64]:
    keys = np.zeros(columns.shape[1], dtype=np.uint64)
    for bit in choice:
        keys = (keys << np.uint64(1)) | columns[bit]
    return keys


def _in_bucket(
    table: NDArray[np.uint64], entries: NDArray[np.uint64], both_sides: bool
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield queries, by their place in `entries`, and rows that share their keys: those right behind each
    query in the order of the table, and those before it as well if `both_sides`."""
    begin = np.searchsorted(table, entries, side="left" if both_sides else "right")
    for step, first in ((1, begin), (-1, begin - 1)) if both_sides else ((1, begin),):
        queries, place = np.arange(len(entries)), first
        for _ in range(_MOST_IN_A_BUCKET):
            inside = (place >= 0) & (place < len(table))
            queries, place = queries[inside], place[inside]
            others = table[place]
            same = (others ^ entries[queries]) >> _LOW == 0
            if not same.any():
                break
            queries, place, others = queries[same], place[same], others[same]
            yield queries, (others & _ROW).astype(np.int64)
            place = place + step


def _without_repeats(values: IntArray) -> IntArray:
    values.sort()  # np.unique hashes, which takes several times as long
    return values[np.diff(values, prepend=-1) != 0]


def _distances(first: Words, rows: IntArray, second: Words, others: IntArray) -> IntArray:
    distances = np.zeros(len(rows), dtype=np.int64)
    for word in range(first.shape[1]):
        distances += np.bitwise_count(first[rows, word] ^ second[others, word])
    return distances
