"""Decoding images in many threads, within a bound on the pixels that are in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llava.common.images import MAX_PIXELS, DecodedImage, decode, open_header


class PixelBudget:
    """Room for `most` pixels, shared by threads: who wants some waits until they are free."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels; more than there are at all means all of them, alone."""
        wanted = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


# However many threads there are, they decode no more pixels at a time than the largest picture may have.
_IN_MEMORY = PixelBudget(MAX_PIXELS)


@contextmanager
def decoded(file: Path) -> Iterator[DecodedImage]:
    """`read_image` for work in threads: waits until what other threads decode leaves room for it. The
    picture is to be let go at the end of the block, which must not open another. InputError as there."""
    warned: list[str] = []
    with ExitStack() as held:
        with open_header(file, warned) as stored:
            held.enter_context(_IN_MEMORY.taken(stored.width * stored.height))
            opened = decode(stored, file, warned)
        yield opened
