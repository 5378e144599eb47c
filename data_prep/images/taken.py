"""When a photo was taken, by its EXIF."""

from __future__ import annotations

import re
from pathlib import Path

from PIL.ExifTags import IFD, Base

from data_prep.photo_names import as_seconds
from llava.common.images import open_header

_FORMATS = ("JPEG", "MPO", "TIFF", "HEIF", "WEBP")  # of others Pillow decodes the pixels to find EXIF
_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def time_taken(file: Path) -> float | None:
    """Return DateTimeOriginal with its fraction (EXIF 2.32, tags 0x9003 and 0x9291) in seconds, None if there
    is none. Raises an InputError as `open_header` does."""
    with open_header(file) as stored:
        if stored.format not in _FORMATS:
            return None
        exif = stored.getexif().get_ifd(IFD.Exif)
        match = _TIME.match(str(exif.get(Base.DateTimeOriginal, "")))
        seconds = match and as_seconds(match.groups())
        if seconds is None:
            return None
        fraction = re.match(r"\d+", str(exif.get(Base.SubsecTimeOriginal, "")).strip())
        return seconds + (float(f"0.{fraction[0]}") if fraction else 0)
