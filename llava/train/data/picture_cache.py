"""Keep decoded images in a file that all processes of a node, their workers and later runs share.

The system holds what is read of the file in memory that it takes back where that is needed for other things.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CHECK = 4  # bytes of a CRC-32


class PictureCache:
    """Holds RGB images by number, each at its own place in the file, as many of the first as find room.

    Beside the pixels is a file with the CRC-32 of each image's: one that was not written to its end, or is
    being written by another process, is as if it were not there.
    """

    def __init__(self, folder: Path, sizes: NDArray[np.int64], room: float) -> None:
        """Open the cache in `folder`, which must exist.

        Args:
            folder: Where its files are.
            sizes: (images, 2) the height and width of each image.
            room: The bytes that it may take.
        """
        ends = np.cumsum(3 * sizes[:, 0] * sizes[:, 1], dtype=np.int64)
        held = int(np.searchsorted(ends, room, side="right"))
        self._sizes, self._ends = sizes[:held], ends[:held]
        self._pixels, self._checks = folder / "pixels.bin", folder / "pixels.crc32"
        for path in (self._pixels, self._checks):
            path.touch()

    @property
    def room(self) -> int:
        """The bytes that it takes when it is full."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def find(self, number: int) -> Image.Image | None:
        """Return image `number`, None where it is not held."""
        if number >= len(self._sizes):
            return None
        height, width = self._sizes[number].tolist()
        size = 3 * height * width
        try:
            check = _read(self._checks, _CHECK * number, _CHECK)
            if check in (b"", bytes(_CHECK)):
                return None
            pixels = _read(self._pixels, int(self._ends[number]) - size, size)
        except OSError:  # somebody has removed it
            return None
        if len(pixels) < size or _check_of(pixels) != check:
            return None
        return Image.frombytes("RGB", (width, height), pixels)

    def keep(self, number: int, image: Image.Image) -> None:
        """Hold an image from now on; nothing happens where there is no room for it."""
        if number >= len(self._sizes) or (image.height, image.width) != tuple(self._sizes[number].tolist()):
            return
        pixels = image.tobytes()
        try:
            _write(self._pixels, int(self._ends[number]) - len(pixels), pixels)
            _write(self._checks, _CHECK * number, _check_of(pixels))
        except OSError:  # the disk is full, or the file is gone: it is decoded again next time
            self._sizes = self._sizes[:0]


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _write(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def _check_of(pixels: bytes) -> bytes:
    """Return the CRC-32 as four bytes, never all zero: that stands for nothing written."""
    return (zlib.crc32(pixels) or 1).to_bytes(_CHECK, "little")
