"""Store images by their content, and reuse those of an earlier conversion, so that none is made twice.

`cache.json` in the output holds for each source file, by the hash of its bytes, its size and fingerprint, and
the name of the image that each part of it became. The next conversion with the same image settings opens
only source files that it does not find there. The cache may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Annotated

import PIL
from PIL import features
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from data_prep.images.fingerprint import FINGERPRINT_SIDE
from data_prep.images.points import POINT
from data_prep.recipe.schema import ImageSettings
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import atomic_path, read_text, to_json

CACHE = "cache.json"
_SCHEMA = 3  # 1 had fingerprints of every pixel, 2 hashes in their place
# Checked, as they become paths and bytes: the cache is a file like any other, and may be damaged.
_Name = Annotated[str, Field(pattern=r"^images/[0-9a-f]{16}\.jpg$")]


def _whole_points(value: bytes) -> bytes:
    if len(value) % POINT.itemsize:
        raise ValueError("a point is cut short")
    return value


_LENGTH = FINGERPRINT_SIDE**2
_Fingerprint = Annotated[bytes, Field(min_length=_LENGTH, max_length=_LENGTH)]
_Points = Annotated[bytes, AfterValidator(_whole_points)]


class CachedImage(BaseModel):
    """What the cache holds of a source image.

    `size` is the upright (width, height), `orientation` the EXIF orientation it was stored in, `changes` what
    was done to its pixels, `fingerprint` and `points` as the modules of these names make them, `taken` when
    it was taken (seconds), `parts` the written image of each part (`x1 y1 x2 y2` in pixels).
    """

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    size: tuple[PositiveInt, PositiveInt]
    orientation: int = Field(ge=1, le=8)
    changes: tuple[str, ...] = ()
    fingerprint: _Fingerprint
    points: _Points = b""
    taken: float | None = None
    parts: dict[str, _Name] = Field(default_factory=dict)


class _Cache(BaseModel):
    made_with: dict[str, str | int]
    pictures: dict[str, CachedImage]  # the key of a file that exists


def part_name(box: Box) -> str:
    """Return the key of a part of an image in `CachedImage.parts`."""
    return " ".join(f"{value:g}" for value in box)


class ImageStore:
    """Writes images to `folder`/images.

    Images that `earlier`, the folder of an earlier conversion, already holds are linked from there (copied
    where the file system has no links), after their content was checked.

    Several processes may write to one folder. A pickled store opens the folder again, on a worker of a
    cluster: all of it but the cache, which only its own process writes.
    """

    def __init__(self, folder: Path, settings: ImageSettings, earlier: Path | None = None):
        self.folder, self.earlier, self.settings = folder, earlier, settings
        (folder / "images").mkdir(exist_ok=True)
        self._cached = _read(earlier / CACHE, settings) if earlier else {}
        self._entries: dict[str, CachedImage] = {}

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[object, ...]]:
        earlier = self.earlier and self.earlier.resolve()
        return _opened_elsewhere, (
            self.folder,
            self.settings.model_dump_json(),
            earlier,
            to_json(_made_with(self.settings)),
        )

    def find_cached(self, digest: str) -> CachedImage | None:
        """Return what an earlier conversion found of the source file with this SHA-256."""
        return self._cached.get(digest)

    def reuse(self, name: str) -> bool:
        """Reuse the image `name` of the earlier conversion. Return False if it is absent or changed."""
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
        """Write an image if it is not there yet, and return its name."""
        name = name_of(data)
        if not self.reuse(name):
            with _whole(self.folder / name) as partial:
                partial.write_bytes(data)
        return name

    def remove_partial(self) -> None:
        """Remove what processes left half-written that were killed. Nobody may be writing any more."""
        for path in (self.folder / "images").glob(".*"):
            path.unlink()

    def add_to_cache(self, entries: Iterable[tuple[str, CachedImage]]) -> None:
        """Add entries for source files, each with the file's SHA-256, to the cache in `folder`.

        Two images may be the same file, cut differently.
        """
        for digest, cached in entries:
            earlier = self._entries.setdefault(digest, cached)
            if earlier is not cached:
                earlier.parts.update(cached.parts)
        with (
            atomic_path(self.folder / CACHE) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            # A `_Cache`, entry by entry: the text of all is several times as large as what is held.
            file.write(f'{{"made_with": {to_json(_made_with(self.settings))}, "pictures": {{')
            for number, (digest, cached) in enumerate(sorted(self._entries.items())):
                file.write(f'{", " if number else ""}"{digest}": {to_json(cached)}')
            file.write("}}\n")


def name_of(data: bytes) -> str:
    return f"images/{hashlib.sha1(data).hexdigest()[:16]}.jpg"


def link(source: Path, target: Path) -> None:
    """Link `target` to the file `source`, or copy it with its time. Does nothing if it exists already."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        with _whole(target) as partial:
            shutil.copy2(source, partial)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Yield a new name beside `target` for a file that becomes `target` when the block succeeds.

    A process that is killed, here or on another machine, leaves no half of it under its name. Another one may
    write the same content at the same time.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@functools.lru_cache(maxsize=1)  # a worker opens it for each of its tasks, and the cache may be large
def _opened_elsewhere(folder: Path, settings: str, earlier: Path | None, made_with: str) -> ImageStore:
    """Open the store that another process writes to; InputError if images would not be the same here."""
    if not (folder / "images").is_dir():
        raise InputError(f"{folder.parent} is not shared with {gethostname()}, a machine of the cluster")
    opened = ImageStore(folder, ImageSettings.model_validate_json(settings), earlier)
    here = to_json(_made_with(opened.settings))
    if here != made_with:
        raise InputError(
            f"{gethostname()}, a machine of the cluster, would write other pictures ({here}, "
            f"here {made_with}); install the same Pillow on all"
        )
    return opened


def _read(path: Path, settings: ImageSettings) -> dict[str, CachedImage]:
    """Read a cache; it is empty if absent, damaged or made with other settings: images are then made anew."""
    try:
        cache = _Cache.model_validate_json(read_text(path))
    except (InputError, ValidationError):
        return {}
    return cache.pictures if cache.made_with == _made_with(settings) else {}


def _made_with(settings: ImageSettings) -> dict[str, str | int]:
    """Return all that the bytes of a written image depend on, beside its source."""
    libraries = {"pillow": PIL.__version__, "jpeg": features.version("jpg") or ""}
    return {"schema": _SCHEMA, **libraries, **settings.model_dump()}
