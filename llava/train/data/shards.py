"""Records and images in WebDataset shards: tar files whose members of one sample have one key.

    000017.json   a record as in train.json, or a list of records; `image` and `id` may be left out
    000017.jpg    its image, or several as 000017.left.jpg and so on, which `image` then names

A member's key is its name up to the first dot of its last part, and the members of a key follow one another
(github.com/webdataset/webdataset, README). Images are read where they lie in the shard, here or at an
address; nothing is unpacked. An image's name is `SHARD.tar/MEMBER`.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from llava.common.errors import InputError, one_line
from llava.common.remote import address_of, facts, is_folder, list_files, open_file, shown

SUFFIX = ".tar"
_SAMPLED = 1 << 20  # bytes of each end of a shard that are hashed


class Place(NamedTuple):
    """Where an image lies in its file: its first byte and how many there are."""

    offset: int
    length: int

    @property
    def in_shard(self) -> bool:
        """Whether the file is a shard: there a header of 512 bytes stands before each member."""
        return self.offset > 0


def shards_of(path: Path) -> list[Path]:
    """Return the shards that a path names: itself, those in the folder, or none."""
    if path.suffix.lower() == SUFFIX:
        return [path]
    if not is_folder(path):
        return []
    names = list_files(path) if address_of(path) else [file.name for file in path.iterdir()]
    return [path / name for name in sorted(names) if "/" not in name and name.lower().endswith(SUFFIX)]


def shard_of(name: str) -> str:
    """Return the name of the shard that an image with this name is in."""
    return name.partition(f"{SUFFIX}/")[0] + SUFFIX


def read_shard(shard: Path, places: dict[str, Place]) -> Iterator[dict[str, Any]]:
    """Yield the records of a shard, and note in `places` where its images lie, by their names.

    Raises:
        InputError: The shard, or a record in it, cannot be read; the message names it.
    """
    with open_file(shard) as opened:
        try:
            with tarfile.open(fileobj=opened, mode="r:") as archive:
                files = (member for member in archive if member.isfile())
                for key, group in groupby(files, key=lambda member: _key(member.name)):
                    sample = {member.name: member for member in group}
                    yield from _records_of(shard, key, sample, archive, places)
        except tarfile.TarError as error:
            raise InputError(f"{shown(shard)}: no tar file, or a damaged one ({one_line(error)})") from None


def _key(member: str) -> str:
    folder, name = posixpath.split(member)
    return posixpath.join(folder, name.partition(".")[0])


def _records_of(
    shard: Path,
    key: str,
    sample: dict[str, tarfile.TarInfo],
    archive: tarfile.TarFile,
    places: dict[str, Place],
) -> Iterator[dict[str, Any]]:
    texts = [name for name in sample if name.endswith(".json")]
    if len(texts) != 1:
        raise InputError(f"{shown(shard)}: sample {key!r} has {len(texts)} files of JSON, not one")
    images: dict[str, str] = {}
    for name, member in sample.items():
        if name != texts[0]:
            full = f"{shard.name}/{name}"
            places[full] = Place(member.offset_data, member.size)
            images |= {name: full, posixpath.basename(name): full}
    file = archive.extractfile(sample[texts[0]])
    try:
        value = json.loads(file.read()) if file else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown(shard)}, {texts[0]}: not valid JSON ({one_line(error)})") from None
    for number, record in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(record, dict):
            raise InputError(f"{shown(shard)}, {texts[0]}: expected a record or a list of records")
        name = key if not isinstance(value, list) else f"{key}-{number}"
        yield {"id": name} | record | _image_of(record, images, f"{shown(shard)}, {texts[0]}")


def _image_of(record: dict[str, Any], images: dict[str, str], place: str) -> dict[str, Any]:
    """Return the record's `image` by the names that images in shards have."""
    named = record.get("image")
    if named is None:
        full = sorted(set(images.values()))
        return {"image": full[0] if len(full) == 1 else full} if full else {}
    names = [named] if isinstance(named, str) else named
    if absent := [name for name in names if name not in images]:
        raise InputError(f"{place}: its sample has no picture {absent[0]!r}")
    found = [images[name] for name in names]
    return {"image": found[0] if isinstance(named, str) else found}


def shards_hash(shards: Sequence[Path]) -> str:
    """Return a SHA-256 that changes with the shards: of each its name, its size, and its first and last
    MiB, since they may be terabytes."""
    digest = hashlib.sha256()
    for shard in shards:
        size = facts(shard).size
        digest.update(f"{shard.name} {size}\n".encode())
        with open_file(shard) as file:
            digest.update(file.read(_SAMPLED))
            file.seek(max(size - _SAMPLED, 0))
            digest.update(file.read(_SAMPLED))
    return digest.hexdigest()
