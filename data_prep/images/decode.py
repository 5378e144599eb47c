"""Decode images in many threads, with a limit on the pixels that are in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llava.common.images import MAX_PIXELS, DecodedImage, decode, open_header
from llava.common.remote import RemoteFile


class PixelBudget:
    """A budget of `limit` pixels that threads share: a thread that needs some waits until they are free."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Reserve so many pixels for the block; more than the limit reserves all, for one thread alone."""
        reserved = min(pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= reserved)
            self._free -= reserved
        try:
            yield
        finally:
            with self._changed:
                self._free += reserved
                self._changed.notify_all()


# However many threads there are, they decode no more pixels at a time than the largest image may have.
_IN_MEMORY = PixelBudget(MAX_PIXELS)


@contextmanager
def decoded(file: Path | RemoteFile) -> Iterator[DecodedImage]:
    """Decode an image in a thread, after waiting until what other threads decode leaves room for it.

    The block must not keep the image after its end, nor decode another one. Raises an InputError as
    `llava.common.images.read_image` does.
    """
    warned: list[str] = []
    with ExitStack() as held:
        with open_header(file, warned) as stored:
            held.enter_context(_IN_MEMORY.reserve(stored.width * stored.height))
            opened = decode(stored, file, warned)
        yield opened
