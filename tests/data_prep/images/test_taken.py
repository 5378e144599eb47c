"""The time that a camera wrote into EXIF is read, and only that."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from data_prep.images.taken import time_taken


def written(file: Path, original: str | None, fraction: str | None = None) -> Path:
    exif = Image.Exif()
    exif[Base.DateTime] = "2026:01:01 00:00:00"  # when it was edited last
    tags = exif.get_ifd(IFD.Exif)
    if original:
        tags[Base.DateTimeOriginal] = original
    if fraction:
        tags[Base.SubsecTimeOriginal] = fraction
    Image.new("RGB", (8, 8)).save(file, exif=exif)
    return file


def test_time_taken(tmp_path: Path) -> None:
    first = time_taken(written(tmp_path / "a.jpg", "2023:06:05 16:48:03"))
    second = time_taken(written(tmp_path / "b.jpg", "2023:06:05 16:49:03", "250"))
    assert first is not None and second is not None and second - first == 60.25


@pytest.mark.parametrize("original", [None, "0000:00:00 00:00:00", "2023:13:05 16:48:03", "yesterday"])
def test_no_time(tmp_path: Path, original: str | None) -> None:
    assert time_taken(written(tmp_path / "a.jpg", original)) is None
