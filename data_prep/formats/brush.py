"""Unpack Label Studio's brush strokes: the alpha channel of an RGBA image, packed with @thi.ng/rle-pack.

That format (its README, "Encoding format"), most significant bit first: 32 bits, the number of words; 5 bits,
the word size less 1; four times 4 bits, the sizes of four classes of counts, each less 1. Then, until there
are enough words: 1 bit, is this a run?; 2 bits, the class of the count; the count less 1 in that class's
size; then the run's one word or, where it is no run, as many words as counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CHANNELS = 4
_SET = re.compile(rb"[^\0]+")


def brush_runs(data: bytes, pixels: int) -> Iterator[tuple[int, int]]:
    """Yield where the painted pixels of an image begin and end, in rows from the top left.

    `pixels` is how many the image has.
    ValueError with the reason if `data` is cut short or was made for another number of pixels.
    """
    bits = _BitReader(data)
    words, word_size = bits.read(32), bits.read(5) + 1
    if words != pixels * _CHANNELS or word_size != 8:
        raise ValueError(f"{words} words of {word_size} bits, expected {pixels * _CHANNELS} of 8")
    count_sizes = [bits.read(4) + 1 for _ in range(4)]
    position = 0  # in words
    while position < words:
        is_run = bits.read(1)
        count = bits.read(count_sizes[bits.read(2)]) + 1
        # Alpha is each pixel's fourth word. The first pixel whose alpha is among these words, and where:
        first, offset = position // _CHANNELS, (3 - position) % _CHANNELS
        if is_run:
            alphas = len(range(offset, count, _CHANNELS))
            if bits.read(8) and alphas:
                yield first, first + alphas
        else:
            for painted in _SET.finditer(bits.read_bytes(count)[offset::_CHANNELS]):
                yield first + painted.start(), first + painted.end()
        position += count
    if position > words:
        raise ValueError(f"{position} words, expected {words}")


class _BitReader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0  # in bits

    def read(self, count: int) -> int:
        end = self._position + count
        if end > len(self._data) * 8:
            raise ValueError("cut short")
        covering = self._data[self._position // 8 : (end + 7) // 8]
        self._position = end
        return (int.from_bytes(covering, "big") >> (-end % 8)) & ((1 << count) - 1)

    def read_bytes(self, count: int) -> bytes:
        return self.read(count * 8).to_bytes(count, "big")
