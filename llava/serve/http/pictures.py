"""Pictures out of requests: decoded only after their size is known to be within the limits."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO

from PIL import Image

from llava.common.errors import InputError
from llava.common.images import decode, open_header
from llava.serve.http.errors import ApiError


def decode_picture(data: bytes, max_pixels: int, param: str | None = None) -> Image.Image:
    """Decode a picture file as `llava.common.images.open_image` does.

    Args:
        data: The file, in any format that training reads.
        max_pixels: The most pixels that its header may state.
        param: The field of the request that it came in, for the error.

    Raises:
        ApiError: it is no picture, damaged or too large.
    """
    source = BytesIO(data)
    warned: list[str] = []
    try:
        with open_header(source, warned) as stored:
            width, height = stored.size
            if width * height > max_pixels:
                raise InputError(
                    f"the picture has {width}x{height} pixels, at most {max_pixels / 1e6:g} million are taken"
                )
            return decode(stored, source, warned).image
    except InputError as error:
        raise ApiError(400, str(error), param=param, code="bad_picture") from None


def read_data_url(url: str, param: str | None = None) -> bytes:
    """Return the bytes of a base64 data URL (RFC 2397); the media type in it is not relied on.

    Raises:
        ApiError: it is none.
    """
    header, comma, payload = url.partition(",")
    if not (comma and header.endswith(";base64")):
        message = "the picture is no base64 data URL (data:image/jpeg;base64,...)"
        raise ApiError(400, message, param=param, code="bad_picture")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        message = "the picture's base64 is damaged or cut short"
        raise ApiError(400, message, param=param, code="bad_picture") from None
