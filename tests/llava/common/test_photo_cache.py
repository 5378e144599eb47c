"""The photo cache: fetched once, again where it changed or is gone, and never larger than it may be."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava.common import photo_cache
from llava.common.errors import InputError
from llava.common.photo_cache import PhotoCache, photo_at
from llava.common.remote import FileFacts

ADDRESS = Path("s3://bucket/a.jpg")


class Bucket:
    """Files by address, which counts how often each was fetched."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.changed = 1

    def facts(self, path: Path) -> FileFacts:
        return FileFacts(len(self.files[photo_cache.address_of(path) or ""]), self.changed)

    def read_bytes(self, address: str) -> bytes:
        self.fetched.append(address)
        return self.files[address]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket()
    monkeypatch.setattr(photo_cache, "facts", made.facts)
    monkeypatch.setattr(photo_cache, "read_bytes", made.read_bytes)
    yield made


def kept(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_photo_is_fetched_once_until_it_changes(bucket: Bucket, tmp_path: Path) -> None:
    bucket.files["s3://bucket/a.jpg"] = b"one"
    cache = PhotoCache(tmp_path, 1)
    assert [cache.read(ADDRESS).getvalue() for _ in range(2)] == [b"one"] * 2
    assert len(bucket.fetched) == 1 and str(cache.read(ADDRESS)) == "s3://bucket/a.jpg"
    bucket.files["s3://bucket/a.jpg"], bucket.changed = b"two", 2
    assert PhotoCache(tmp_path, 1).read(ADDRESS).getvalue() == b"two"
    kept(tmp_path)[0].write_bytes(b"t")  # cut short
    kept(tmp_path)[1].unlink()
    assert PhotoCache(tmp_path, 1).read(ADDRESS).getvalue() == b"two"
    with pytest.raises(ValueError, match="is a file here"):
        cache.read(tmp_path / "a.jpg")
    assert photo_at(tmp_path / "a.jpg") == tmp_path / "a.jpg"


def test_what_was_read_longest_ago_goes_first(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(30):
        bucket.files[f"s3://bucket/{number}"] = bytes(100)
    cache = PhotoCache(tmp_path, 1000e-9)
    cache.read(Path("s3://bucket/0"))
    os.utime(kept(tmp_path)[0], (1, 1))
    (tmp_path / ".left by a kill").write_bytes(bytes(5000))
    os.utime(tmp_path / ".left by a kill", (1, 1))
    for number in range(1, 30):
        cache.read(Path("s3://bucket/1"))  # in use all the time
        cache.read(Path(f"s3://bucket/{number}"))
        assert sum(file.stat().st_size for file in kept(tmp_path)) <= 1000
        for file in kept(tmp_path):  # as if a second went by
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 1))
    assert len(kept(tmp_path)) == 9
    assert bucket.fetched.count("s3://bucket/1") == 1
    bucket.fetched.clear()
    cache.read(Path("s3://bucket/29"))
    cache.read(Path("s3://bucket/0"))
    assert bucket.fetched == ["s3://bucket/0"]
    PhotoCache(tmp_path, 400e-9).read(Path("s3://bucket/0"))
    assert len(kept(tmp_path)) == 3 and bucket.fetched == ["s3://bucket/0"]
    PhotoCache(tmp_path, 0).read(Path("s3://bucket/0"))
    assert not kept(tmp_path) and bucket.fetched == ["s3://bucket/0"] * 2


def test_what_cannot_be_kept_is_read_all_the_same(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.files["s3://bucket/a.jpg"] = bytes(100)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    for cache in (PhotoCache(blocked, 1), PhotoCache(tmp_path / "none", 0), PhotoCache(tmp_path, 50e-9)):
        assert cache.read(ADDRESS).getvalue() == bytes(100)
    monkeypatch.setattr(photo_cache, "facts", lambda path: FileFacts(99, 1))  # it grew meanwhile
    assert len(PhotoCache(tmp_path, 1).read(ADDRESS).getvalue()) == 100
    assert kept(tmp_path) == [blocked]

    def refuse(path: Path) -> FileFacts:
        raise InputError("s3://bucket/a.jpg: no such file or folder")

    monkeypatch.setattr(photo_cache, "facts", refuse)
    with pytest.raises(InputError, match="no such file"):
        PhotoCache(tmp_path, 1).read(ADDRESS)


def test_threads_and_caches_of_one_folder_do_not_disturb_each_other(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(20):
        bucket.files[f"s3://bucket/{number}"] = bytes([number]) * 100
    wrong = list[int]()

    def read(start: int) -> None:
        cache = PhotoCache(tmp_path, 500e-9)  # as another process has one
        for step in range(200):
            number = (start + step * 7) % 20
            if cache.read(Path(f"s3://bucket/{number}")).getvalue() != bytes([number]) * 100:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not [file for file in kept(tmp_path) if file.name.startswith(".")]
    assert len(kept(tmp_path)) <= 5 + 4
