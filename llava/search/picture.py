"""Pictures of a search: the heat map over the photo with the places numbered, and a crop of each place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from llava.search.asking import cut
from llava.search.result import Found, SearchResult
from llava.search.windows import Box, around

HEAT_SIDE = 1600
"""The longest side of the heat map's picture, in pixels."""
CROP_SIDE = 640
CROP_CONTEXT = 1.5
"""A crop shows the place so much larger, with the place outlined."""
HOT, OUTLINE, SHADOW = (255, 60, 0), (255, 255, 255), (0, 0, 0)
OPAQUE = 0.7
"""How much of the photo the highest heat covers."""


def reduced(image: Image.Image, box: Box, longest: int) -> Image.Image:
    """Return a part of the photo with sides of at most `longest` pixels, never copying it at full size."""
    part = cut(image, box, longest)
    part.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return part


def heat_picture(image: Image.Image, heat: NDArray[np.float32], result: SearchResult) -> Image.Image:
    """Return the photo in grey, reduced, with the heat in colour and the places outlined and numbered."""
    whole = (0, 0, *image.size)
    photo = reduced(image, whole, HEAT_SIDE).convert("L").convert("RGB")
    values = np.nan_to_num(heat) * (255 * OPAQUE)
    alpha = Image.fromarray(values.astype(np.uint8)).resize(photo.size, Image.Resampling.BICUBIC)
    photo.paste(HOT, mask=alpha)
    for number, place in enumerate(result.found, start=1):
        _outline(photo, whole, place.box, str(number))
    return photo


def crop_picture(image: Image.Image, place: Found) -> Image.Image:
    """Return a place with what is around it; the place is outlined."""
    shown = around(place.box, CROP_CONTEXT, image.size)
    crop = reduced(image, shown, CROP_SIDE)
    _outline(crop, shown, place.box)
    return crop


def _outline(picture: Image.Image, shown: Box, box: Box, label: str = "") -> None:
    """Draw a white box on a dark one, to be seen on any ground, with a label in its corner.

    Args:
        picture: What is drawn on.
        shown: The part of the photo that the picture shows.
        box: What is outlined, in pixels of the photo.
        label: Stands in the corner.
    """
    draw = ImageDraw.Draw(picture)
    width = max(2, max(picture.size) // 500)
    x1, x2 = _scaled(box[0], box[2], shown[0], shown[2], picture.width)
    y1, y2 = _scaled(box[1], box[3], shown[1], shown[3], picture.height)
    draw.rectangle((x1, y1, x2, y2), outline=SHADOW, width=2 * width)
    draw.rectangle((x1, y1, x2, y2), outline=OUTLINE, width=width)
    if label:
        font = ImageFont.load_default(max(16, max(picture.size) // 60))
        at = x1 + 3 * width, y1 + 3 * width
        draw.rectangle(draw.textbbox(at, label, font, stroke_width=2 * width), fill=SHADOW)
        draw.text(at, label, OUTLINE, font)


def _scaled(start: int, end: int, first: int, last: int, length: int) -> tuple[int, int]:
    """Return the first and the last pixel of start..end in a picture of first..last that has `length`."""
    scale = length / (last - first)
    begin = round((start - first) * scale)
    return begin, max(round((end - first) * scale) - 1, begin)
