"""Reads what a register says of each photo besides the answers: hash, size, time, place, a small picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track

from eval.survey.exif import NOWHERE, Taken, read_taken
from llava.common.errors import InputError
from llava.common.files import sha256
from llava.common.images import decode, open_header, upright_size
from llava.common.photo_cache import photo_at
from llava.common.remote import RemoteFile, shown

SIDE, QUALITY = 320, 75  # of the small picture
READER_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class PhotoFacts:
    """A photo by its name below the survey's folder. `size` is the (width, height) of the upright photo,
    `thumbnail` a JPEG of it; of one that cannot be read, `problem` says why."""

    name: str
    path: Path
    sha256: str | None = None
    size: tuple[int, int] = (0, 0)
    taken: Taken = NOWHERE
    thumbnail: bytes = b""
    problem: str = ""

    @property
    def asset(self) -> str:
        """The photo's folder below the survey's."""
        return self.name.rpartition("/")[0]


def read_photos(photos: Mapping[str, Path]) -> list[PhotoFacts]:
    """Read every photo, in threads; a name -> path becomes what is known of it."""
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with ThreadPoolExecutor(READER_THREADS) as pool:
        found = pool.map(_read_photo, photos, photos.values())
        return list(track(found, "photos", len(photos), console=console, transient=True, disable=quiet))


def _read_photo(name: str, path: Path) -> PhotoFacts:
    digest: str | None = None
    try:
        source = photo_at(path)
        digest = sha256(source)
        height, width = upright_size(source)
        with open_header(source) as stored:
            taken = read_taken(stored)
            thumbnail = _thumbnail(stored, source)
    except InputError as error:
        return PhotoFacts(name, path, digest, problem=str(error).removeprefix(f"{shown(path)}: "))
    except OSError as error:
        return PhotoFacts(name, path, digest, problem=f"cannot be read ({error.strerror})")
    return PhotoFacts(name, path, digest, (width, height), taken, thumbnail)


def _thumbnail(stored: Image.Image, source: Path | RemoteFile) -> bytes:
    """Return a small JPEG of an opened photo."""
    if stored.format in ("JPEG", "MPO"):  # decoded at a fraction of the size, it is many times faster
        stored.draft("RGB", (2 * SIDE, 2 * SIDE))
    small = decode(stored, source, []).image
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    content = BytesIO()
    small.save(content, "JPEG", quality=QUALITY, comment=b"")
    return content.getvalue()
