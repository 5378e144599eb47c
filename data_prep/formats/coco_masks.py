"""Read COCO's run-length masks, plain and compressed.

Runs go down the columns, and the first is of pixels outside (`rleEncode`, `rleToBbox` and `rleArea` in
cocodataset/cocoapi, common/maskApi.c).
"""

from __future__ import annotations

from typing import Any

from data_prep.formats.outlines import mask_box
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.images import MAX_PIXELS


def mask_outline(mask: dict[str, Any], image_size: tuple[float, float] | None) -> tuple[Box, float] | None:
    """Return the box and area of a mask in pixels, None if it is empty.

    `image_size` is the (width, height) that the file states for the image, None where it does not. InputError
    if the mask is not readable or not of that size; the message does not name it.
    """
    width, height = _mask_size(mask.get("size"))
    if image_size is not None and image_size != (width, height):
        raise InputError("its mask has another size than the image")
    counts = mask.get("counts")
    if isinstance(counts, str):
        counts = decode_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError("the counts of its mask are not run lengths")
    if sum(counts) > width * height:
        raise InputError("the runs of its mask are longer than the picture")
    runs, position = [], 0
    for index, count in enumerate(counts):
        if index % 2:
            runs.append((position, position + count))
        position += count
    found = mask_box(runs, height)  # rows of `mask_box` are the columns here
    if found is None:
        return None
    (top, left, bottom, right), area = found
    return (left, top, right, bottom), float(area)


def _mask_size(sides: object) -> tuple[int, int]:
    """Return the (width, height) in pixels; the file has [height, width]."""
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise InputError("the size of its mask is not two whole numbers (height, width)")
    height, width = sides
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise InputError("the size of its mask is not that of a picture")
    return width, height


def decode_counts(text: str) -> list[int]:
    """Return the run lengths in a compressed mask. InputError if it is none.

    A character holds 6 bits, its code less 48: five of the number, lowest first, and 32 where more follow;
    the number's sign is the highest of its bits. From the fourth on, numbers are differences to the last but
    one (`rleToString` in cocodataset/cocoapi, common/maskApi.c).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise InputError("the counts of its mask are not a compressed run-length mask")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise InputError("the counts of its mask are cut short")
    return counts
