"""The file of decoded pictures: what was kept comes back, what was not kept whole does not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.train.data import picture_cache
from llava.train.data.picture_cache import PictureCache

SIZES = np.array([(4, 6), (5, 3), (8, 8)])


def picture(number: int) -> Image.Image:
    height, width = SIZES[number].tolist()
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_what_one_process_keeps_another_finds(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, SIZES, 1e6)
    assert cache.find(1) is None
    cache.keep(1, picture(1))
    other: PictureCache = pickle.loads(pickle.dumps(cache))
    for one in (cache, other, PictureCache(tmp_path, SIZES, 1e6)):
        found = one.find(1)
        assert found is not None and found.tobytes() == picture(1).tobytes() and found.size == (3, 5)
        assert one.find(0) is None and one.find(2) is None


def test_only_the_first_find_room(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, SIZES, 3 * (4 * 6 + 5 * 3) + 10)
    for number in range(3):
        cache.keep(number, picture(number))
    assert cache.room == 3 * (4 * 6 + 5 * 3)
    assert [cache.find(number) is None for number in range(3)] == [False, False, True]
    assert PictureCache(tmp_path, SIZES, 0).room == 0


def test_a_picture_that_was_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, SIZES, 1e6)
    cache.keep(2, picture(2))
    pixels = bytearray((tmp_path / "pixels.bin").read_bytes())
    pixels[-1] ^= 1
    (tmp_path / "pixels.bin").write_bytes(bytes(pixels))
    assert cache.find(2) is None
    cache.keep(2, picture(2))
    assert cache.find(2) is not None
    os.truncate(tmp_path / "pixels.bin", 100)
    assert cache.find(2) is None


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PictureCache(tmp_path, SIZES, 1e6)
    cache.keep(0, picture(0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_cache, "_write", full)
    cache.keep(1, picture(1))
    assert cache.find(1) is None
