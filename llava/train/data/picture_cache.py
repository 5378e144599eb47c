"""Keep decoded images in a file that all processes of a node, their workers and later runs share.

The system holds what is read of the file in memory that it takes back where that is needed for other things.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
        self._folder = folder
        self._open()

    @property
    def room(self) -> int:
        """The bytes that it takes when it is full."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT
        self._pixels = os.open(self._folder / "pixels.bin", flags, 0o644)
        self._checks = os.open(self._folder / "pixels.crc32", flags, 0o644)

    def __del__(self) -> None:
        for descriptor in (self.__dict__.get("_pixels"), self.__dict__.get("_checks")):
            if descriptor is not None:
                os.close(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_sizes": self._sizes, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # another process has descriptors of its own

    def find(self, number: int) -> Image.Image | None:
        """Return image `number`, None where it is not held."""
        if number >= len(self._sizes):
            return None
        height, width = self._sizes[number].tolist()
        size = 3 * height * width
        check = os.pread(self._checks, 4, 4 * number)
        if check in (b"", b"\0\0\0\0"):
            return None
        pixels = os.pread(self._pixels, size, int(self._ends[number]) - size)
        if len(pixels) < size or _check_of(pixels) != check:
            return None
        return Image.frombytes("RGB", (width, height), pixels)

    def keep(self, number: int, image: Image.Image) -> None:
        """Hold an image from now on; nothing happens where there is no room for it."""
        if number >= len(self._sizes) or (image.height, image.width) != tuple(self._sizes[number].tolist()):
            return
        pixels = image.tobytes()
        try:
            os.pwrite(self._pixels, pixels, int(self._ends[number]) - len(pixels))
            os.pwrite(self._checks, _check_of(pixels), 4 * number)
        except OSError:  # the disk is full: it is decoded again next time
            self._sizes = self._sizes[:0]


def _check_of(pixels: bytes) -> bytes:
    """Return the CRC-32 as four bytes, never all zero: that stands for nothing written."""
    return (zlib.crc32(pixels) or 1).to_bytes(4, "little")
