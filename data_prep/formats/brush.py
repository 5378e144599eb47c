"""Label Studio's brush strokes: the alpha channel of an RGBA picture, packed with @thi.ng/rle-pack.

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
    """Where the painted pixels of a picture of so many `pixels` begin and end, in rows from the top left.

    ValueError saying why if `data` is cut short or was made for another number of pixels.
    """
    bits = _Bits(data)
    words, word_size = bits.take(32), bits.take(5) + 1
    if words != pixels * _CHANNELS or word_size != 8:
        raise ValueError(f"{words} words of {word_size} bits, expected {pixels * _CHANNELS} of 8")
    count_sizes = [bits.take(4) + 1 for _ in range(4)]
    place = 0
    while place < words:
        is_run = bits.take(1)
        count = bits.take(count_sizes[bits.take(2)]) + 1
        # Alpha is each pixel's fourth word. The first pixel whose alpha is among these words, and its place:
        first, skipped = place // _CHANNELS, (3 - place) % _CHANNELS
        if is_run:
            alphas = len(range(skipped, count, _CHANNELS))
            if bits.take(8) and alphas:
                yield first, first + alphas
        else:
            for found in _SET.finditer(bits.take_bytes(count)[skipped::_CHANNELS]):
                yield first + found.start(), first + found.end()
        place += count
    if place > words:
        raise ValueError(f"{place} words, expected {words}")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, count: int) -> int:
        end = self._place + count
        if end > len(self._data) * 8:
            raise ValueError("cut short")
        covering = self._data[self._place // 8 : (end + 7) // 8]
        self._place = end
        return (int.from_bytes(covering, "big") >> (-end % 8)) & ((1 << count) - 1)

    def take_bytes(self, count: int) -> bytes:
        return self.take(count * 8).to_bytes(count, "big")
