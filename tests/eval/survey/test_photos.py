"""What photos say of themselves: time, place, size; and what broken ones do."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from eval.survey.exif import NOWHERE, Taken
from eval.survey.photos import SIDE, PhotoFacts, read_photos
from tests.support.small_model import image
from tests.support.surveyed import exif, write_photo


def read(path: Path) -> PhotoFacts:
    (facts,) = read_photos({"line/" + path.name: path})
    return facts


@pytest.mark.parametrize(
    ("position", "altitude"),
    [((-33.8567844, 151.2152967), 81.25), ((51.4778, -0.0014), -2.5), ((-22.951911, -43.2104872), None)],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_position_in_any_hemisphere(
    tmp_path: Path, position: tuple[float, float], altitude: float | None, suffix: str
) -> None:
    made = exif("2026:06:12 09:00:25", position, altitude)
    taken = read(write_photo(tmp_path / f"a.{suffix}", 1, made=made)).taken
    assert (taken.latitude, taken.longitude) == pytest.approx(position, abs=1e-6)
    assert taken.altitude == altitude and taken.time == "2026-06-12T09:00:25"


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    made = exif("2026:06:12 09:00:25", (-33.5, 151.25))
    pillow_heif.from_pillow(image(1, (96, 64))).save(tmp_path / "a.heic", exif=made.tobytes())
    facts = read(tmp_path / "a.heic")
    assert facts.taken == Taken("2026-06-12T09:00:25", -33.5, 151.25) and facts.size == (96, 64)


def test_a_time_has_its_fraction_and_zone_where_exif_has_them(tmp_path: Path) -> None:
    made = exif("2026:06:12 09:00:25")
    made.get_ifd(IFD.Exif)[Base.SubsecTimeOriginal] = "250"
    made.get_ifd(IFD.Exif)[0x9011] = "+09:00"
    assert read(write_photo(tmp_path / "a.jpg", 1, made=made)).taken.time == "2026-06-12T09:00:25.250+09:00"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (GPS.GPSLatitude, (IFDRational(91), IFDRational(0), IFDRational(0))),
        (GPS.GPSLatitude, (IFDRational(33), IFDRational(1, 0), IFDRational(0))),
        (GPS.GPSLatitude, (IFDRational(33), IFDRational(30))),
        (GPS.GPSLatitudeRef, ""),
        (GPS.GPSLongitudeRef, "?"),
        (GPS.GPSLongitude, None),
    ],
)
def test_a_position_that_makes_no_sense_is_none(tmp_path: Path, tag: int, value: Any) -> None:
    made = exif("0000:00:00 00:00:00", (33.5, 10.0), 5.0)
    gps = made.get_ifd(IFD.GPSInfo)
    if value is None:
        del gps[tag]
    else:
        gps[tag] = value
    assert read(write_photo(tmp_path / "a.jpg", 1, made=made)).taken == NOWHERE


def test_zero_degrees_twice_is_a_camera_without_a_fix(tmp_path: Path) -> None:
    assert read(write_photo(tmp_path / "a.jpg", 1, made=exif(position=(0.0, 0.0)))).taken == NOWHERE


def test_exif_of_rubbish_is_none(tmp_path: Path) -> None:
    image(1, (96, 64)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f rubbish")
    facts = read(tmp_path / "a.jpg")
    assert facts.taken == NOWHERE and facts.size == (96, 64) and not facts.problem


def test_size_and_picture_are_upright_and_the_hash_is_the_file_s(tmp_path: Path) -> None:
    made = exif()
    made[Base.Orientation] = 6
    path = write_photo(tmp_path / "a.jpg", 1, (2000, 1000), made)
    facts = read(path)
    assert facts.size == (1000, 2000) and facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Image.open(BytesIO(facts.thumbnail)).size == (SIDE // 2, SIDE)
    assert (facts.name, facts.asset) == ("line/a.jpg", "line")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    whole = write_photo(tmp_path / "whole.jpg", 1, (400, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no photo")
    names = ("cut.jpg", "text.jpg", "gone.jpg", "whole.jpg")
    facts = read_photos({name: tmp_path / name for name in names})
    assert [photo.name for photo in facts] == list(names)
    cut, text, gone, good = facts
    assert "cut short" in cut.problem and "not a picture" in text.problem and "No such file" in gone.problem
    assert cut.sha256 and not cut.thumbnail and not good.problem
