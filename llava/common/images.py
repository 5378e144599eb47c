"""Open image files completely, upright and as 8-bit RGB. Torch-free."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.remote import RemoteFile, address_of, file_at, read_bytes

# The limit on the pixels that a header may state: 0.9 GB as RGB. Pillow's own limit warns at 89 million, and
# aerial mosaics are larger; ours is checked before anything is decoded.
MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = None
# Greys deeper than 8 bits are stretched from these percentiles of their values to 0..255.
GREY_PERCENTILES = (0.5, 99.5)
# Pixels that are rescaled at a time, in double precision: a whole aerial image would take gigabytes.
_STRIP = 1 << 20

EXIF_ORIENTATION = 0x0112  # TIFF 6.0, tag 274
# Part of Pillow's warning for a TIFF tag with more values than it may have; it takes the first.
_HARMLESS_WARNING = "had too many entries"
_WARNINGS_LOCK = threading.Lock()
_NAMELESS = "the picture"  # what an image is called that comes from no file
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_HEAD, _TAIL = 1 << 16, 64  # bytes with most headers, and with the mark of a file's end
# ISO/IEC 23008-12, the brands of HEIC and HEIF files.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, and how it was stored.

    `orientation` is the EXIF orientation (1..8) of the file; `changes` has a phrase for each thing that was
    done to the pixels besides decoding, such as `16-bit grey rescaled to 8 bits`.
    """

    image: Image.Image
    orientation: int
    changes: tuple[str, ...]


def open_image(source: Path | str | BytesIO) -> Image.Image:
    """Load an image file completely as RGB, turned upright as its EXIF says.

    Greys deeper than 8 bits are rescaled (Pillow's own conversion clips them to white), see `_rescaled`;
    transparent pixels are laid on white. HEIC needs the library pillow-heif.

    Raises:
        InputError: with the file's name; it is absent, no image, damaged, cut short or has more than
            MAX_PIXELS.
    """
    return read_image(source).image


def read_image(source: Path | str | BytesIO) -> DecodedImage:
    """Load an image as `open_image` does, and return also how it was stored and changed."""
    warned: list[str] = []
    with open_header(source, warned) as stored:
        return decode(stored, source, warned)


def decode(stored: Image.Image, source: Path | str | BytesIO, warned: list[str]) -> DecodedImage:
    """Decode an image that `open_header` has opened; to be called inside its `with` block.

    Args:
        stored: What `open_header` yielded.
        source: What it opened.
        warned: What it collected.
    """
    # A JPEG is never read at a reduced scale (Pillow's `draft`): its pixels would not be the same.
    if stored.format == "HEIF":
        _check_complete(source)
    stored.load()
    changes = [f"read although Pillow warns: {text}" for text in warned]
    if stored.format in ("TIFF", "PNG", "WEBP", "GIF") and getattr(stored, "n_frames", 1) > 1:
        changes.append("first of several frames taken")
    orientation = orientation_of(stored)
    if orientation > 1:
        changes.append("turned upright as EXIF says")
        # In place: for a copy, EXIF would be read again, and Pillow would warn of it again.
        ImageOps.exif_transpose(stored, in_place=True)
    return DecodedImage(_to_rgb(stored, changes), orientation, tuple(changes))


def orientation_of(stored: Image.Image) -> int:
    """Return the EXIF orientation (1..8) of an image that is not turned upright yet; 1 where none is
    stated."""
    stated = stored.getexif().get(EXIF_ORIENTATION, 1)
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def upright_size(source: Path | str | BytesIO) -> tuple[int, int]:
    """Return the (height, width) of `open_image`'s result, without decoding where the format allows it."""
    with open_header(source) as stored:
        width, height = stored.size
        return (width, height) if orientation_of(stored) >= 5 else (height, width)


def open_image_at(path: Path) -> Image.Image:
    """Load an image as `open_image` does, also from an address (`llava.common.remote`)."""
    return open_image(file_at(path))


def open_image_bytes(data: bytes, name: str) -> Image.Image:
    """Load an image as `open_image` does, from what its file holds; `name` is what errors call it."""
    return open_image(RemoteFile(name, data))


def look_at_image(path: Path) -> tuple[int, int]:
    """Return an image's upright (height, width) after a look at the beginning and the end of its file; one
    that may be cut short is decoded. `path` may be an address; only what is looked at is fetched then.

    Raises:
        InputError: with the file's name; it is absent, no image, damaged or cut short.
    """
    address = address_of(path)
    if address is None:
        size = upright_size(path)
        with path.open("rb") as file:
            start = file.read(len(_PNG))
            file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            if _may_be_cut_short(start, file.read()):
                open_image(path)
        return size
    start, tail = read_bytes(address, 0, _HEAD), read_bytes(address, -_TAIL)
    if not _may_be_cut_short(start, tail) and (found := _size_in_head(start)):
        return found
    image = open_image_at(path)
    return image.height, image.width


def upright_size_at(path: Path) -> tuple[int, int]:
    """Return what `upright_size` does, also of an image at an address, of which the head is fetched where
    that has the size."""
    address = address_of(path)
    if address is None:
        return upright_size(path)
    return _size_in_head(read_bytes(address, 0, _HEAD)) or upright_size(file_at(path))


def _size_in_head(start: bytes) -> tuple[int, int] | None:
    """Return the upright (height, width) that the first bytes of a file state; None if they are too few."""
    with suppress(InputError):
        return upright_size(BytesIO(start))
    return None


def look_at_bytes(data: bytes, name: str) -> tuple[int, int]:
    """Do what `look_at_image` does with what an image's file holds; `name` is what errors call it."""
    size = upright_size(RemoteFile(name, data))
    if _may_be_cut_short(data, data[-_TAIL:]):
        open_image_bytes(data, name)
    return size


def _may_be_cut_short(start: bytes, tail: bytes) -> bool:
    """Tell, from the first and last bytes of an image's file, whether its end may be missing.

    False means that a JPEG or PNG ends as it should (ITU-T T.81, B.1.1.3: EOI; PNG specification, 11.2.5:
    IEND). True is no proof: a camera may have added to the file, and of other formats it is not known.
    """
    if start.startswith(_JPEG):
        return b"\xff\xd9" not in tail
    return not start.startswith(_PNG) or b"IEND" not in tail


def _name_of(source: Path | str | BytesIO) -> str:
    has_none = isinstance(source, BytesIO) and not isinstance(source, RemoteFile)
    return _NAMELESS if has_none else str(source)


@contextmanager
def open_header(source: Path | str | BytesIO, warned: list[str] | None = None) -> Iterator[Image.Image]:
    """Yield the image as Pillow opens it, not decoded yet.

    What Pillow only warns of (damaged EXIF) is added to `warned`. In a TIFF, whose tags say how its pixels
    are stored, a tag that cannot be read is an error.

    Raises:
        InputError: with the file's name; it cannot be opened, or decoding it inside the block fails.
    """
    warned = [] if warned is None else warned
    name = _name_of(source)
    try:
        with _collect_warnings(warned):
            opened = _identify(source, name)
        with opened:
            with _collect_warnings(warned):
                if opened.format == "TIFF":
                    _ = getattr(opened, "n_frames", 1)  # reads the tags of all frames
                elif opened.format in ("JPEG", "MPO"):
                    opened.getexif()
            if opened.format == "TIFF" and (
                lost := [text for text in warned if _HARMLESS_WARNING not in text]
            ):
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
def _collect_warnings(warned: list[str]) -> Iterator[None]:
    """Add the warnings of this thread inside the block to `warned`, each on one line and once."""
    thread = threading.get_ident()
    with _WARNINGS_LOCK, warnings.catch_warnings():  # Python has one set of warning filters for all threads
        show = warnings.showwarning

        def collect(message: Warning | str, *more: Any, **others: Any) -> None:
            if threading.get_ident() != thread:
                show(message, *more, **others)
            elif (text := " ".join(str(message).split())) not in warned:
                warned.append(text)

        warnings.simplefilter("always")
        warnings.showwarning = collect
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
        raise InputError(f"{name}: a HEIC picture; to read it: {how_to_install('heic')}") from None
    register_heif_opener()
    return Image.open(source)


def _check_complete(source: Path | str | BytesIO) -> None:
    """Raise EOFError if a HEIC file ends before its last box does: libheif fills what is absent with grey.

    A box begins with its size in 4 bytes and its type in 4; where the size is 1, 8 more bytes hold it
    (ISO/IEC 14496-12, 4.2).
    """
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
    """Convert a grey image of 16 or 32 bits to 8 bits.

    Floats within 0..1 are fractions of white; whole numbers within 0..255 are 8-bit values already. Anything
    else (16-bit cameras, degrees of thermal ones) is stretched between GREY_PERCENTILES of its values; where
    both are the same value, a 16-bit image is taken as 0..65535 and any other becomes black. Pixels that are
    not a number become black.
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
    lowest, highest = float(finite.min()), float(finite.max())
    if kind == "float" and lowest >= 0 and highest <= 1:
        low, high = 0.0, 1.0
    elif lowest >= 0 and highest <= 255 and (kind != "float" or bool((finite == np.floor(finite)).all())):
        low, high = 0.0, 255.0
    else:
        # `nearest` picks one of the values, the same on every machine.
        low, high = (float(value) for value in np.percentile(finite, GREY_PERCENTILES, method="nearest"))
        if low == high:
            low, high = (0.0, 65535.0) if kind == "16-bit" else (low, low + 1)
        changes.append(f"{kind} grey rescaled to 8 bits")
    levels = np.empty(values.size, np.uint8)
    for start in range(0, values.size, _STRIP):
        strip = np.nan_to_num(values[start : start + _STRIP].astype(np.float64), nan=low)
        levels[start : start + _STRIP] = ((np.clip(strip, low, high) - low) / (high - low) * 255).round()
    return Image.fromarray(levels.reshape(image.height, image.width))
