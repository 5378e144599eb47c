"""Pictures of the page: uploads that are read into memory at once, and what the browser is shown."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.serve.http.errors import ApiError
from llava.serve.http.pictures import decode_picture, file_digest
from llava.serve.page.private_folder import PrivateFolder

SHOWN_PIXELS = 1600
"""The longer side of a picture as it is shown, at most."""
COLOURS = ("#ff3b30", "#0a84ff", "#34c759", "#ff9f0a", "#bf5af2")


@dataclass(frozen=True)
class Upload:
    """A picture that was read, with the name and the SHA-256 of its file."""

    image: Image.Image
    name: str
    sha256: str


class ShownPictures:
    """The pictures that browsers may fetch, in memory only, each under an address that nobody can guess."""

    def __init__(self) -> None:
        """Start empty."""
        self._files: dict[str, bytes] = {}

    def add(self, image: Image.Image) -> str:
        """Keep a picture, scaled down where it is large; returns its address, relative to the page's."""
        buffer = BytesIO()
        as_shown(image).save(buffer, "JPEG", quality=90)
        return self.add_file(buffer.getvalue(), "jpg")

    def add_file(self, content: bytes, ending: str) -> str:
        """Keep a file; returns its address."""
        name = f"{secrets.token_urlsafe(24)}.{ending}"
        self._files[name] = content
        return f"shown/{name}"

    def get(self, name: str) -> bytes | None:
        """Return a file by the last part of its address, None where there is none (any more)."""
        return self._files.get(name)

    def image(self, address: str) -> Image.Image:
        """Return a kept picture, as it is shown."""
        return Image.open(BytesIO(self._files[address.rpartition("/")[2]])).convert("RGB")

    def drop(self, addresses: Sequence[str]) -> None:
        """Forget pictures."""
        for address in addresses:
            self._files.pop(address.rpartition("/")[2], None)


def as_shown(image: Image.Image) -> Image.Image:
    """Return a picture as it is shown: RGB, scaled down where it is large."""
    small = image.convert("RGB")
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    return small


def read_upload(folder: PrivateFolder, path: str, max_pixels: int) -> Upload:
    """Read a file that was uploaded, and delete it.

    Args:
        folder: Where uploads lie.
        path: The file.
        max_pixels: The most pixels that the picture may have.

    Raises:
        InputError: it is no picture, too large or not there any more.
    """
    file = Path(path)
    if not folder.holds(file):
        raise InputError("the picture was not uploaded here")
    try:
        data = file.read_bytes()
    except OSError:
        raise InputError("the picture has been wiped meanwhile; choose it again") from None
    folder.delete(file)
    try:
        return Upload(decode_picture(data, max_pixels), file.name, file_digest(data).hex())
    except ApiError as error:
        raise InputError(error.message) from None


def draw_boxes(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Return a copy of the image with numbered boxes; these are fractions of its width and height."""
    drawn = image.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    width, height = drawn.size
    line = max(2, max(width, height) // 250)
    font = ImageFont.load_default(size=max(12, max(width, height) // 40))
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        corners = (x1 * width, y1 * height, x2 * width, y2 * height)
        draw.rectangle(corners, outline=colour, width=line)
        if len(boxes) > 1:
            label = draw.textbbox((corners[0] + line, corners[1] + line), str(number), font=font)
            draw.rectangle((label[0] - line, label[1] - line, label[2] + line, label[3] + line), fill=colour)
            draw.text((corners[0] + line, corners[1] + line), str(number), fill="white", font=font)
    return drawn
