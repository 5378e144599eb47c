"""The files of an image folder, here or at an address, each an image or a shard of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from llava.common.errors import InputError
from llava.common.files import inside
from llava.common.images import look_at_bytes, look_at_image, open_image_at, open_image_bytes
from llava.common.remote import FileFacts, address_of, facts, list_files, read_part, shown
from llava.train.data.shards import Place, shard_of


class ImageFacts(NamedTuple):
    """Of an image: the bytes and time of change (ns) of its file, its upright height and width in pixels, and
    where in the file it lies."""

    size: int
    changed: int
    height: int
    width: int
    offset: int
    length: int


class ImageFiles:
    """Looks at the images of a folder. One at an address is listed once; of what is in shards `places` says
    where it lies."""

    def __init__(self, folder: Path, places: Mapping[str, Place]) -> None:
        self.folder = folder
        self._places = places
        self._listed = None if address_of(folder) is None else list_files(folder)

    def file_facts(self, name: str, *, in_shard: bool) -> FileFacts:
        """Return the size and time of an image's file; InputError if it is absent."""
        file = shard_of(name) if in_shard else name
        if self._listed is None:
            return facts(self.folder / file)
        found = self._listed.get(file)
        if found is None:
            raise InputError(f"{shown(self.folder / file)}: no such picture")
        return found

    def check(self, name: str) -> ImageFacts:
        """Look at an image; InputError if it is absent, no image or cut short."""
        place = self._places.get(name)
        if place is None:
            height, width = look_at_image(inside(self.folder, name))
            found = self.file_facts(name, in_shard=False)
            return ImageFacts(*found, height, width, 0, found.size)
        data = read_part(inside(self.folder, shard_of(name)), *place)
        height, width = look_at_bytes(data, shown(self.folder / name))
        return ImageFacts(*self.file_facts(name, in_shard=True), height, width, *place)


def load_image(folder: Path, name: str, place: Place) -> Image.Image:
    """Load an image as `open_image` does, from its file or from its place in a shard; InputError if it is
    outside the folder."""
    if not place.in_shard:
        return open_image_at(inside(folder, name))
    return open_image_bytes(read_part(inside(folder, shard_of(name)), *place), shown(folder / name))
