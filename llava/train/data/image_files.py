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
from llava.train.data.shards import Place, split_name


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

    def file_facts(self, name: str) -> FileFacts:
        """Return the size and time of an image's file; InputError if it is absent."""
        file = (split_name(name) or (name,))[0]
        if self._listed is None:
            return facts(self.folder / file)
        found = self._listed.get(file)
        if found is None:
            raise InputError(f"{shown(self.folder / file)}: no such picture")
        return found

    def check(self, name: str) -> ImageFacts:
        """Look at an image; InputError if it is absent, no image or cut short."""
        path, place = file_of(self.folder, name), self._places.get(name)
        if place is None:
            height, width = look_at_image(path)
            found = self.file_facts(name)
            return ImageFacts(*found, height, width, 0, found.size)
        height, width = look_at_bytes(read_part(path, *place), shown(self.folder / name))
        return ImageFacts(*self.file_facts(name), height, width, *place)


def file_of(folder: Path, name: str) -> Path:
    """Return the file that an image is in; InputError if it is outside the folder."""
    parts = split_name(name)
    return inside(folder, name if parts is None else parts[0])


def load_image(folder: Path, name: str, place: Place) -> Image.Image:
    """Load an image as `open_image` does, from its file or from its place in a shard."""
    path = file_of(folder, name)
    if split_name(name) is None:
        return open_image_at(path)
    return open_image_bytes(read_part(path, *place), shown(folder / name))
