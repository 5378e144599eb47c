"""Pictures out of requests: decoded only after their size is known to be within the limits, and once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from io import BytesIO

from PIL import Image

from llava.common.errors import InputError
from llava.common.images import decode, open_header
from llava.processing.vision import Pixels
from llava.serve.http.errors import ApiError

MAX_PREPARED_BYTES = 128 * 2**20
"""How much memory the pixel values of pictures that were sent before may take."""


class PreparedPictures:
    """Pixel values by the file's content, the most recently asked for: decoding a photo takes longer than
    answering a question about one that the model has read already."""

    def __init__(self, prepare: Callable[[bytes, bool], Awaitable[Pixels]]) -> None:
        """Start empty.

        Args:
            prepare: Decodes a file and makes the pixel values; the second argument says whether it is the
                only picture of its conversation.
        """
        self._prepare = prepare
        self._bytes = 0
        self._tasks: OrderedDict[tuple[bytes, bool], asyncio.Task[Pixels]] = OrderedDict()

    async def get(self, data: bytes, digest: bytes, alone: bool) -> Pixels:
        """Return the pixel values of a file whose SHA-256 is `digest`; ApiError where it is no picture."""
        key = (digest, alone)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(self._prepare(data, alone))
            task.add_done_callback(lambda done: self._keep(key, done))
        self._tasks.move_to_end(key)
        return await asyncio.shield(task)  # others may wait for it when this client goes

    def _keep(self, key: tuple[bytes, bool], task: asyncio.Task[Pixels]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._tasks[key]
            return
        self._bytes += task.result().patches.nbytes
        for other in list(self._tasks):
            if self._bytes <= MAX_PREPARED_BYTES:
                break
            if self._tasks[other].done():
                self._bytes -= self._tasks.pop(other).result().patches.nbytes


def file_digest(data: bytes) -> bytes:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(data).digest()


def decode_picture(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a picture file as `llava.common.images.open_image` does.

    Args:
        data: The file, in any format that training reads.
        max_pixels: The most pixels that its header may state.

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
        raise ApiError(400, str(error), code="bad_picture") from None


def read_data_url(url: str) -> bytes:
    """Return the bytes of a base64 data URL (RFC 2397); the media type in it is not relied on.

    Raises:
        ApiError: it is none.
    """
    header, comma, payload = url.partition(",")
    if not (comma and header.endswith(";base64")):
        message = "the picture is no base64 data URL (data:image/jpeg;base64,...)"
        raise ApiError(400, message, code="bad_picture")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        message = "the picture's base64 is damaged or cut short"
        raise ApiError(400, message, code="bad_picture") from None
