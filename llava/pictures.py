"""Opening a picture file whole and upright, as 8-bit RGB. Torch-free."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llava.errors import InputError

Image.MAX_IMAGE_PIXELS = None  # aerial mosaics are larger than Pillow's guard against hostile files


def open_picture(source: Path | str | BytesIO) -> Image.Image:
    """A picture file as a fully loaded RGB image, turned upright as its EXIF says.

    16-bit and floating-point greys are scaled to 8 bits (Pillow's own conversion clips them to white);
    transparent pixels are laid on white. InputError naming the file if it is absent, no picture or cut short.
    """
    name = "the picture" if isinstance(source, BytesIO) else str(source)
    try:
        with Image.open(source) as opened:
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise InputError(f"{name}: no such picture") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder; name a picture file") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise
        raise InputError(f"{name}: the picture is damaged or cut short ({error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
        if image.mode == "F" and values.max(initial=0) <= 1:
            top = 1.0
        return Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
