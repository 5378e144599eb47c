"""When and where a photo was taken, by its EXIF (CIPA DC-008, EXIF 3.0; the GPS tags are in its table 15)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

_FORMATS = ("JPEG", "MPO", "TIFF", "HEIF", "WEBP")  # of others Pillow decodes the pixels to find EXIF
_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET_TIME_ORIGINAL = 0x9011
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


@dataclass(frozen=True)
class Taken:
    """When (ISO 8601, with a zone where EXIF has one) and where: degrees of WGS 84, metres above the sea."""

    time: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None


NOWHERE = Taken()
"""Of a photo that says nothing."""


def read_taken(stored: Image.Image) -> Taken:
    """Return what the EXIF of an opened image says; what is absent or makes no sense is None."""
    if stored.format not in _FORMATS and "exif" not in stored.info:
        return NOWHERE
    exif = stored.getexif()
    gps = exif.get_ifd(IFD.GPSInfo)
    latitude = _degrees(gps, GPS.GPSLatitude, GPS.GPSLatitudeRef, "NS", 90)
    longitude = _degrees(gps, GPS.GPSLongitude, GPS.GPSLongitudeRef, "EW", 180)
    time = _time(exif.get_ifd(IFD.Exif))
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):  # (0, 0): there was no fix
        return Taken(time)
    return Taken(time, latitude, longitude, _altitude(gps))


def _time(exif: Mapping[int, Any]) -> str | None:
    match = _TIME.match(str(exif.get(Base.DateTimeOriginal, "")))
    if match is None:
        return None
    year, month, day, hour, minute, second = match.groups()
    fraction = re.match(r"\d+", str(exif.get(Base.SubsecTimeOriginal, "")).strip())
    zone = _OFFSET.match(str(exif.get(_OFFSET_TIME_ORIGINAL, "")).strip())
    text = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    text += f".{fraction[0][:6]}" if fraction else ""
    text += zone[0] if zone else ""
    try:
        datetime.fromisoformat(text)
    except ValueError:  # 0000:00:00 00:00:00 of a camera whose clock was never set
        return None
    return text


def _degrees(gps: Mapping[int, Any], tag: int, reference: int, signs: str, limit: int) -> float | None:
    """Return the degrees, minutes and seconds of a tag as degrees, negative for the second of `signs`."""
    sign = _text(gps.get(reference)).upper()[:1]
    parts = gps.get(tag)
    if not sign or sign not in signs or not isinstance(parts, tuple) or len(parts) != 3:
        return None
    values = [_number(part) for part in parts]
    if any(value is None or value < 0 for value in values):
        return None
    degrees = sum(value / 60**power for power, value in enumerate(values) if value is not None)
    return round(-degrees if sign == signs[1] else degrees, 7) if degrees <= limit else None


def _altitude(gps: Mapping[int, Any]) -> float | None:
    metres = _number(gps.get(GPS.GPSAltitude))
    below = gps.get(GPS.GPSAltitudeRef) in (1, b"\x01")
    return None if metres is None else round(-metres if below else metres, 2)


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\x00 ")


def _number(value: Any) -> float | None:
    """Return a rational of EXIF; None for what is none, or has the denominator 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
