"""Photos as a drone leaves them, and findings to make registers of."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from eval.survey.findings import Finding, Findings
from tests.support.small_model import image


def exif(
    time: str | None = None, position: tuple[float, float] | None = None, altitude: float | None = None
) -> Image.Exif:
    """Return EXIF with a time (`2026:06:12 09:00:25`), and a position in degrees north and east."""
    made = Image.Exif()
    made[Base.Make] = "camera"  # Pillow takes EXIF without a tag of its own for none
    if time is not None:
        made.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = time
    if position is not None:
        gps = made.get_ifd(IFD.GPSInfo)
        latitude, longitude = position
        gps[GPS.GPSLatitudeRef], gps[GPS.GPSLatitude] = "S" if latitude < 0 else "N", _sexagesimal(latitude)
        gps[GPS.GPSLongitudeRef], gps[GPS.GPSLongitude] = (
            "W" if longitude < 0 else "E",
            _sexagesimal(longitude),
        )
        if altitude is not None:
            gps[GPS.GPSAltitudeRef] = b"\x01" if altitude < 0 else b"\x00"
            gps[GPS.GPSAltitude] = IFDRational(round(abs(altitude) * 100), 100)
    return made


def _sexagesimal(degrees: float) -> tuple[IFDRational, ...]:
    """Return degrees, minutes and seconds, the seconds to a ten-thousandth."""
    minutes, units = divmod(round(abs(degrees) * 36_000_000), 600_000)
    return IFDRational(minutes // 60), IFDRational(minutes % 60), IFDRational(units, 10_000)


def write_photo(
    path: Path, seed: int, size: tuple[int, int] = (96, 64), made: Image.Exif | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image(seed, size).save(
        path, exif=b"" if made is None else made.tobytes()
    )  # of Exif itself, TIFF loses parts
    return path


def jpeg(seed: int) -> bytes:
    content = BytesIO()
    image(seed, (64, 48)).save(content, "JPEG")
    return content.getvalue()


def register_of(findings: list[Finding], folder: str = "/photos") -> Findings:
    return Findings(
        survey="0123456789abcdef", model_id="tuned", recipe="insulator", photos_folder=folder,
        warnings=["Nothing is certified."], kinds=["missing disc", "flashover"], findings=findings,
    )  # fmt: skip
