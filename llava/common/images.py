"""Opening a picture file whole and upright, as 8-bit RGB. Torch-free."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llava.common.errors import InputError, one_line

# The most pixels that a picture may state: 0.9 GB as RGB. Pillow's own guard warns at 89 million, and aerial
# mosaics are larger; ours looks at the header, before anything is decoded.
MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = None
# Greys deeper than 8 bits are stretched from these percentiles of their values to 0..255.
GREY_PERCENTILES = (0.5, 99.5)
# Pixels at a time in double precision: a whole aerial picture of them would take gigabytes.
_STRIP = 1 << 20

EXIF_ORIENTATION = 0x0112  # TIFF 6.0, tag 274
# How Pillow warns of a TIFF tag with more values than it can have: it takes the first.
_HARMLESS = "had too many entries"
_HEARING = threading.Lock()
# ISO/IEC 23008-12, the brands of HEIC and HEIF files.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class DecodedImage:
    """A decoded picture: upright RGB; the EXIF orientation (1..8) that it was stored in; `changes`, a phrase
    per thing that was done to its pixels beyond decoding, such as `16-bit grey rescaled to 8 bits`."""

    image: Image.Image
    orientation: int
    changes: tuple[str, ...]


def open_image(source: Path | str | BytesIO) -> Image.Image:
    """A picture file as a fully loaded RGB image, turned upright as its EXIF says.

    Greys deeper than 8 bits are rescaled (Pillow's own conversion clips them to white), see `_rescaled`;
    transparent pixels are laid on white. InputError naming the file if it is absent, no picture, damaged,
    cut short or of more than MAX_PIXELS; HEIC needs the library pillow-heif.
    """
    return read_image(source).image


def read_image(source: Path | str | BytesIO) -> DecodedImage:
    """`open_picture`, and what had to be done to the picture."""
    warned: list[str] = []
    with open_header(source, warned) as stored:
        return decode(stored, source, warned)


def decode(stored: Image.Image, source: Path | str | BytesIO, warned: list[str]) -> DecodedImage:
    """The rest of `read_picture` for a picture that is open: `stored` and `warned` are `open_header`'s, and
    this is to be called inside its `with` block."""
    # A JPEG is never read at a reduced scale (Pillow's `draft`): its pixels would not be the same.
    if stored.format == "HEIF":
        _check_whole(source)
    stored.load()
    changes = [f"read although Pillow warns: {text}" for text in warned]
    if stored.format in ("TIFF", "PNG", "WEBP", "GIF") and getattr(stored, "n_frames", 1) > 1:
        changes.append("first of several frames taken")
    stated = stored.getexif().get(EXIF_ORIENTATION, 1)
    orientation = stated if isinstance(stated, int) and 1 <= stated <= 8 else 1
    if orientation > 1:
        changes.append("turned upright as EXIF says")
        # In place: for a copy, EXIF would be read once more, and what is wrong with it told once more.
        ImageOps.exif_transpose(stored, in_place=True)
    return DecodedImage(_to_rgb(stored, changes), orientation, tuple(changes))


def upright_size(source: Path | str | BytesIO) -> tuple[int, int]:
    """The (height, width) that `open_picture` would give, without decoding where the format allows it."""
    with open_header(source) as stored:
        width, height = stored.size
        turned = stored.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


@contextmanager
def open_header(source: Path | str | BytesIO, warned: list[str] | None = None) -> Iterator[Image.Image]:
    """The picture opened by Pillow, not decoded yet. What is wrong with it becomes an InputError, inside the
    `with` block too. What Pillow only warns of (EXIF that is damaged) is added to `warned`; in a TIFF, whose
    tags say how its pixels are stored, a tag that cannot be read is an error as well."""
    warned = [] if warned is None else warned
    name = "the picture" if isinstance(source, BytesIO) else str(source)
    try:
        with _heard(warned):
            opened = _identify(source, name)
        with opened:
            with _heard(warned):
                if opened.format == "TIFF":
                    _ = getattr(opened, "n_frames", 1)  # reads the tags of all frames
                elif opened.format in ("JPEG", "MPO"):
                    opened.getexif()
            if opened.format == "TIFF" and (lost := [text for text in warned if _HARMLESS not in text]):
                raise ValueError(lost[0])
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{name}: states {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million; "
                    f"cut it into smaller pictures"
                )
            yield opened
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such picture") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder; name a picture file") from None
    except PermissionError:
        raise InputError(f"{name}: may not be read; look at its permissions") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture that Pillow can read") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; make it smaller") from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        reason = one_line(error)
        raise InputError(f"{name}: the picture is damaged or cut short ({reason})") from None


@contextmanager
def _heard(warned: list[str]) -> Iterator[None]:
    """Adds what Python warns of in this thread to `warned`, a line each and each once."""
    here = threading.get_ident()
    with _HEARING, warnings.catch_warnings():  # Python has one set of warning filters for all threads
        show = warnings.showwarning

        def hear(message: Warning | str, *more: Any, **others: Any) -> None:
            if threading.get_ident() != here:
                show(message, *more, **others)
            elif (text := " ".join(str(message).split())) not in warned:
                warned.append(text)

        warnings.simplefilter("always")
        warnings.showwarning = hear
        yield


def _identify(source: Path | str | BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        data = source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()
        if not (data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS):
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(f"{name}: a HEIC picture; to read it: pip install pillow-heif") from None
    register_heif_opener()
    return Image.open(source)


def _check_whole(source: Path | str | BytesIO) -> None:
    """EOFError if a HEIC file ends before its last box does: libheif fills what is absent with grey. A box is
    its size in 4 bytes, its type in 4, where the size is 1 the size in 8 more (ISO/IEC 14496-12, 4.2)."""
    data = source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size == 0:  # up to the end of the file
            return
        position += max(size, 8)
    if position > len(data):
        raise EOFError(f"{position - len(data)} bytes are absent")


def _to_rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _rescaled(image, changes).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        low, _ = clear.getchannel("A").getextrema()
        if isinstance(low, int) and low < 255:
            changes.append("transparent pixels laid on white")
            white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
            clear = Image.alpha_composite(white, clear)
        return clear.convert("RGB")
    if image.mode == "CMYK":
        changes.append("CMYK converted to RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _rescaled(image: Image.Image, changes: list[str]) -> Image.Image:
    """A grey of 16 or 32 bits as 8 bits.

    Floats within 0..1 are shares of white; whole numbers within 0..255 are 8-bit values already. Anything
    else (16-bit cameras, degrees of a thermal one) is stretched between GREY_PERCENTILES of its values; where
    those are one value, a 16-bit picture from 0..65535 and any other to black. Pixels that are no number
    become black.
    """
    values = np.asarray(image).reshape(-1)
    kind = "float" if values.dtype.kind == "f" else f"{values.dtype.itemsize * 8}-bit"
    if image.mode == "I" and values.min(initial=0) >= 0 and values.max(initial=0) <= 65535:
        kind = "16-bit"  # how older files and 16-bit TIFFs come out of Pillow
    finite = values
    if kind == "float" and not (known := np.isfinite(values)).all():
        finite = values[known]
        changes.append("pixels without a value made black")
    if not finite.size:
        return Image.new("L", image.size)
    least, most = float(finite.min()), float(finite.max())
    if kind == "float" and least >= 0 and most <= 1:
        low, high = 0.0, 1.0
    elif least >= 0 and most <= 255 and (kind != "float" or bool((finite == np.floor(finite)).all())):
        low, high = 0.0, 255.0
    else:
        # `nearest` picks a value that is there, the same on every machine.
        low, high = (float(value) for value in np.percentile(finite, GREY_PERCENTILES, method="nearest"))
        if low == high:
            low, high = (0.0, 65535.0) if kind == "16-bit" else (low, low + 1)
        changes.append(f"{kind} grey rescaled to 8 bits")
    levels = np.empty(values.size, np.uint8)
    for start in range(0, values.size, _STRIP):
        strip = np.nan_to_num(values[start : start + _STRIP].astype(np.float64), nan=low)
        levels[start : start + _STRIP] = ((np.clip(strip, low, high) - low) / (high - low) * 255).round()
    return Image.fromarray(levels.reshape(image.height, image.width))
