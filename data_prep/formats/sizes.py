"""Read an image's size from its header, for formats that write boxes as fractions of the image."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from llava.common.errors import InputError
from llava.common.images import EXIF_ORIENTATION, open_header


def image_size(path: Path) -> tuple[int, int]:
    """Return the upright image's (width, height) in pixels, as `llava.common.images.open_image` gives it.

    Only the header is read and no pixel is decoded, except for a PNG whose EXIF lies behind its pixels. EXIF
    orientations 5 to 8 swap the sides (TIFF 6.0, tag 274).
    InputError naming the file if it is absent or no image.
    """
    with open_header(path) as opened:
        width, height = opened.size
        if opened.format == "PNG" and _has_metadata_behind_pixels(path):
            opened.load()
        # Not opened.getexif(): PNG's own one always decodes the pixels to look for EXIF behind them.
        rotated = Image.Image.getexif(opened).get(EXIF_ORIENTATION) in (5, 6, 7, 8)
    if width < 1 or height < 1:
        raise InputError(f"{path}: the picture's header states no size")
    return (height, width) if rotated else (width, height)


def _has_metadata_behind_pixels(path: Path) -> bool:
    """Return whether a PNG has EXIF, or text that may be XMP, behind its pixels.

    A chunk is its length in 4 bytes, its type in 4, its data and 4 bytes more (PNG 3rd edition, 5.3).
    """
    pixels = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            chunk_type = head[4:]
            pixels = pixels or chunk_type == b"IDAT"
            if pixels and chunk_type in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
