"""What grouping needs to know of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.source_folder import Split


@dataclass(frozen=True)
class GroupMember:
    """What grouping needs to know of an image.

    `key` is its path below the source, without suffix; `fingerprint` as `data_prep.images.fingerprint` makes
    it. `source` tells apart images of several sources with one `key`. `group` and `split` are stated by the
    source, or None; `taken` is when EXIF says that it was taken, in seconds. `file` is the image, `size` its
    (width, height) and `points` are what `data_prep.images.points` finds in it; `crops` are the written crops
    of its components.
    """

    key: str
    fingerprint: bytes
    source: int = 0
    group: str | None = None
    split: Split | None = None
    taken: float | None = None
    file: Path | None = None
    size: tuple[int, int] = (0, 0)
    points: bytes = b""
    crops: tuple[Path, ...] = ()
