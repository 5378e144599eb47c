"""Images as they come from cameras and tools: opened whole, upright and 8-bit, or refused in one line."""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.common.errors import InputError
from llava.common.images import MAX_PIXELS, open_image, read_image


def stored(image: Image.Image, format: str, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer


def grey(values: Any, dtype: Any) -> Image.Image:
    return Image.fromarray(np.asarray(values, dtype))


def levels(source: io.BytesIO) -> np.ndarray:
    return np.asarray(open_image(source))[..., 0]


def test_a_thermal_grey_fills_the_range_whatever_a_few_hot_pixels_say() -> None:
    values = np.linspace(7000, 7900, 10_000).reshape(100, 100).astype(np.uint16)
    values[0, 0], values[0, 1] = 65535, 0  # a hot pixel and a dead one
    opened = read_image(stored(grey(values, np.uint16), "PNG"))
    assert opened.changes == ("16-bit grey rescaled to 8 bits",)
    found = np.asarray(opened.image)[..., 0]
    assert opened.image.mode == "RGB" and found[0, 0] == 255 and found[0, 1] == 0
    assert found[50, 0] == pytest.approx(128, abs=2)
    assert (np.diff(found[1:, 0].astype(int)) >= 0).all()
    # The middle 99% of the values use the whole range.
    assert (found[1:-1] > 250).any() and (found[1:] < 5).any()
    # A TIFF of the same values is the same image, in either byte order.
    for order, dtype in (("I;16", "<u2"), ("I;16B", ">u2")):
        image = Image.frombytes(order, (100, 100), values.astype(dtype).tobytes())
        assert (levels(stored(image, "TIFF")) == found).all(), order


def test_eight_bits_in_a_deeper_file_stay_as_they_are() -> None:
    ramp = np.arange(200).reshape(10, 20) + 20
    for dtype, format in ((np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")):
        opened = read_image(stored(grey(ramp, dtype), format))
        assert opened.changes == ()
        assert (np.asarray(opened.image)[..., 0] == ramp).all(), dtype


def test_floats_are_shares_of_white_or_degrees() -> None:
    shares = np.linspace(0, 1, 100).reshape(10, 10)
    assert (levels(stored(grey(shares, np.float32), "TIFF")) == np.round(shares * 255)).all()
    degrees = np.linspace(-12.5, 43.25, 100).reshape(10, 10)
    degrees[0, 0] = np.nan
    opened = read_image(stored(grey(degrees, np.float32), "TIFF"))
    assert opened.changes == ("pixels without a value made black", "float grey rescaled to 8 bits")
    found = np.asarray(opened.image)[..., 0]
    assert found[0, 0] == 0 and found[-1, -1] == 255
    assert open_image(stored(grey(np.full((3, 3), np.nan), np.float32), "TIFF")).getpixel((1, 1)) == (
        0,
        0,
        0,
    )


def test_cmyk_photos_keep_their_colours() -> None:
    """Adobe writes CMYK JPEGs inverted; Pillow writes and reads them so, and the colour must survive."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):
        data = stored(red, format)
        assert format == "TIFF" or b"Adobe" in data.getvalue()
        opened = read_image(data)
        assert opened.changes == ("CMYK converted to RGB",)
        pixel = opened.image.getpixel((8, 8))
        assert isinstance(pixel, tuple)
        r, g, b = pixel
        assert r > 240 and g < 20 and b < 20


def test_hidden_colours_stay_hidden() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    opened = read_image(stored(clear, "PNG"))
    assert opened.image.getpixel((0, 0)) == (255, 255, 255)
    assert opened.changes == ("transparent pixels laid on white",)
    assert read_image(stored(Image.new("RGBA", (4, 4), (1, 2, 3, 255)), "PNG")).changes == ()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert open_image(stored(palette, "PNG")).getpixel((0, 0)) == (10, 200, 30)
    assert open_image(stored(palette, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_come_upright(orientation: int) -> None:
    """TIFF 6.0, tag 274: where the stored image's first row and column are on the upright one."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # white top left quarter
    back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(back(upright)))
    opened = read_image(stored(image, "JPEG", exif=exif, quality=95))
    assert opened.orientation == orientation and bool(opened.changes) == (orientation > 1)
    assert opened.image.size == (32, 16)
    found = np.asarray(opened.image).astype(int)
    assert found[2, 2].min() > 200 and found[12, 2].max() < 60 and found[2, 28].max() < 60


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 8


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(200_000, 200_000))
    with pytest.raises(InputError, match=r"bomb\.png: states 200000x200000 pixels.*300 million.*smaller"):
        open_image(tmp_path / "bomb.png")
    side = int(MAX_PIXELS**0.5)
    with pytest.raises(InputError, match="damaged or cut short"):  # allowed, but its pixels are absent
        open_image(io.BytesIO(png_header(side, 4)))


def test_heic(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = next((shared_data / "large").glob("*.heic"))
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "pillow_heif", None)
        context.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
        context.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
        with pytest.raises(InputError, match=r"\.heic: a HEIC picture; to read it: .*heic"):
            open_image(photo)
    pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
    opened = read_image(photo)
    assert opened.image.size == (2352, 3136) and opened.orientation == 1
    assert np.asarray(opened.image).std() > 10
    for kept in (100_000, photo.stat().st_size - 1):  # libheif itself makes an image of both
        with pytest.raises(InputError, match=r"cut short .* bytes are absent"):
            open_image(io.BytesIO(photo.read_bytes()[:kept]))


GOOD = [
    stored(Image.effect_noise((40, 30), 60).convert(mode), format, **options).getvalue()
    for mode, format, options in (
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("I", "TIFF", {}),
        ("F", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {}),
    )
]


@settings(max_examples=150)
@given(st.sampled_from(GOOD), st.data())
def test_damaged_bytes_are_read_or_refused(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=8)):
        if damaged:
            damaged[place] = data.draw(st.integers(0, 255))
    try:
        assert open_image(io.BytesIO(bytes(damaged))).mode == "RGB"
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.filterwarnings("error")
def test_what_pillow_warns_of_is_refused_or_noted_and_nothing_else_is_told() -> None:
    image = Image.effect_noise((40, 30), 50).convert("RGB")
    tiff = bytearray(stored(image, "TIFF", compression="tiff_lzw").getvalue())
    assert read_image(io.BytesIO(tiff)).changes == ()
    at = tiff.index(struct.pack("<HHI", 259, 3, 1))  # the tag that says how pixels are packed, a number
    tiff[at + 4 : at + 8] = struct.pack("<I", 1 << 30)
    with pytest.raises(InputError, match=r"damaged or cut short .*tag 259|not a picture"):  # Pillow 13, 12
        read_image(io.BytesIO(tiff))
    exif = Image.Exif()
    exif[271], exif[274] = "Maker of cameras", 6
    jpeg = bytearray(stored(image, "JPEG", exif=exif).getvalue())
    at = jpeg.index(struct.pack(">HHI", 271, 2, 17))
    jpeg[at + 4] = 255
    opened = read_image(io.BytesIO(jpeg))
    # Pillow 13 skips the damaged tag and turns the picture; Pillow 12 has no EXIF then. Both are told.
    skipped = any("Skipping tag 271" in change for change in opened.changes)
    assert skipped or any("Truncated File Read" in change for change in opened.changes)
    assert opened.image.size == ((30, 40) if skipped else (40, 30))
