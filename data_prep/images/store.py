"""Pictures named by their content, and what an earlier conversion knows of them, so that none is made twice.

`cache.json` in the output says of each source file, by the hash of its bytes: its size and hash of looks, and
the name of the picture that each part of it became. The next conversion with the same settings of pictures
opens only source files that it does not find there. The cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import PIL
from PIL import features
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from data_prep.recipe.schema import ImageSettings
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_text, to_json, write_text

CACHE = "cache.json"
_SCHEMA = 2  # 1 had fingerprints made of every pixel
# Checked, as they become paths and bytes: the cache is a file like any other, and may be damaged.
_Name = Annotated[str, Field(pattern=r"^images/[0-9a-f]{16}\.jpg$")]
_Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Known(BaseModel):
    """What was found when a source picture was decoded: upright size (width, height), the EXIF orientation it
    was stored in, what was changed, its perceptual hash, and the written picture of each part (`x1 y1 x2 y2`
    in pixels)."""

    size: tuple[PositiveInt, PositiveInt]
    orientation: int = Field(ge=1, le=8)
    changes: tuple[str, ...] = ()
    fingerprint: _Fingerprint
    parts: dict[str, _Name] = Field(default_factory=dict)


class _Cache(BaseModel):
    made_with: dict[str, str | int]
    pictures: dict[str, Known]  # the key of a file that exists


def part_name(box: Box) -> str:
    return " ".join(f"{value:g}" for value in box)


class ImageStore:
    """Pictures in `folder`/images. Those that `earlier`, a folder of an earlier conversion, already holds are
    linked from there (copied where the disk knows no links), after a look at their content."""

    def __init__(self, folder: Path, settings: ImageSettings, earlier: Path | None = None):
        self.folder, self.earlier, self.settings = folder, earlier, settings
        (folder / "images").mkdir(exist_ok=True)
        self._known = _read(earlier / CACHE, settings) if earlier else {}
        self._remembered: dict[str, Known] = {}

    def known(self, digest: str) -> Known | None:
        """What an earlier conversion knows of the source file with this SHA-256."""
        return self._known.get(digest)

    def keep(self, name: str) -> bool:
        """Take over the picture `name` from the earlier conversion; False if it is not there, or changed."""
        if (self.folder / name).exists():
            return True
        if self.earlier is None:
            return False
        try:
            if name_of((self.earlier / name).read_bytes()) != name:
                return False
        except OSError:
            return False
        link(self.earlier / name, self.folder / name)
        return True

    def write(self, data: bytes) -> str:
        """The name of the picture with these bytes, which is written if it is not there yet."""
        name = name_of(data)
        if not self.keep(name):
            try:
                with (self.folder / name).open("xb") as file:
                    file.write(data)
            except FileExistsError:  # another thread's, of the same content
                pass
        return name

    def remember(self, found: Iterable[tuple[str, Known]]) -> None:
        """Add what is known of source files, each with the SHA-256 of it, to the cache in `folder`. Two
        pictures may be one file, cut differently."""
        for digest, known in found:
            earlier = self._remembered.setdefault(digest, known)
            if earlier is not known:
                earlier.parts.update(known.parts)
        cache = _Cache(made_with=_made_with(self.settings), pictures=dict(sorted(self._remembered.items())))
        write_text(self.folder / CACHE, to_json(cache) + "\n")


def name_of(data: bytes) -> str:
    return f"images/{hashlib.sha1(data).hexdigest()[:16]}.jpg"


def link(source: Path, target: Path) -> None:
    """`target` becomes the file `source`, or a copy of it with its time; nothing if it is there already."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        shutil.copy2(source, target)


def _read(path: Path, settings: ImageSettings) -> dict[str, Known]:
    """Empty for a cache that is absent, damaged or made with other settings: pictures are then made anew."""
    try:
        cache = _Cache.model_validate_json(read_text(path))
    except (InputError, ValidationError):
        return {}
    return cache.pictures if cache.made_with == _made_with(settings) else {}


def _made_with(settings: ImageSettings) -> dict[str, str | int]:
    """All that the bytes of a written picture depend on, beside its source."""
    libraries = {"pillow": PIL.__version__, "jpeg": features.version("jpg") or ""}
    return {"schema": _SCHEMA, **libraries, **settings.model_dump()}
