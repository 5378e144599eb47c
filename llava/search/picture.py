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
    photo = reduced(image, (0, 0, *image.size), HEAT_SIDE).convert("L").convert("RGB")
    values = np.nan_to_num(heat) * (255 * OPAQUE)
    alpha = Image.fromarray(values.astype(np.uint8)).resize(photo.size, Image.Resampling.BICUBIC)
    photo.paste(HOT, mask=alpha)
    scale = photo.width / image.width
    for number, place in enumerate(result.found, start=1):
        _outline(photo, tuple(value * scale for value in place.box), str(number))
    return photo


def crop_picture(image: Image.Image, place: Found) -> Image.Image:
    """Return a place with what is around it; the place is outlined."""
    box = around(place.box, CROP_CONTEXT, image.size)
    crop = reduced(image, box, CROP_SIDE)
    scale = crop.width / (box[2] - box[0])
    x1, y1, x2, y2 = place.box
    left, top = box[:2]
    _outline(crop, ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale))
    return crop


def _outline(picture: Image.Image, box: tuple[float, ...], label: str = "") -> None:
    """Draw a white box on a dark one, to be seen on any ground, with a label in its corner."""
    draw = ImageDraw.Draw(picture)
    width = max(2, max(picture.size) // 500)
    x1, y1 = (max(round(value), 0) for value in box[:2])
    x2, y2 = min(round(box[2]), picture.width) - 1, min(round(box[3]), picture.height) - 1
    draw.rectangle((x1, y1, x2, y2), outline=SHADOW, width=2 * width)
    draw.rectangle((x1, y1, x2, y2), outline=OUTLINE, width=width)
    if label:
        font = ImageFont.load_default(max(16, max(picture.size) // 60))
        at = x1 + 3 * width, y1 + 3 * width
        draw.rectangle(draw.textbbox(at, label, font, stroke_width=2 * width), fill=SHADOW)
        draw.text(at, label, OUTLINE, font)
