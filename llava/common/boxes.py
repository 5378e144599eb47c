"""Write, read and compare boxes, and convert them between pixels and frames. Torch-free.

A box in text is written `[x1, y1, x2, y2]`, each number 0..1 in a stated frame:

- `padded`: the image padded to a square, centred, as LLaVA-1.5 sees it (`expand2square` in
  haotian-liu/LLaVA, llava/mm_utils.py);
- `whole`: the image itself, as LLaVA-1.6 is trained.
"""

from __future__ import annotations

import re
from typing import Literal

Box = tuple[float, float, float, float]
Frame = Literal["padded", "whole"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({_NUMBER})"] * 4) + r"\s*\]")


def _frame_extent(width: float, height: float, frame: Frame) -> tuple[float, float, float, float]:
    """Return the image's offset (x, y) in the frame, and the frame's width and height, in pixels."""
    if frame == "whole":
        return 0.0, 0.0, width, height
    side = max(width, height)
    # LLaVA pastes at whole pixels: an odd difference leaves the image half a pixel off the middle.
    return (side - width) // 2, (side - height) // 2, side, side


def to_frame(box: Box, width: float, height: float, frame: Frame) -> Box:
    """Convert a box from pixels of a `width` x `height` image to 0..1 in `frame`."""
    left, top, across, down = _frame_extent(width, height, frame)
    x1, y1, x2, y2 = box
    return (x1 + left) / across, (y1 + top) / down, (x2 + left) / across, (y2 + top) / down


def from_frame(box: Box, width: float, height: float, frame: Frame) -> Box:
    """Convert a box from 0..1 in `frame` to pixels of the `width` x `height` image; inverse of `to_frame`."""
    left, top, across, down = _frame_extent(width, height, frame)
    x1, y1, x2, y2 = box
    return x1 * across - left, y1 * down - top, x2 * across - left, y2 * down - top


def box_in_image(box: Box, width: float, height: float, frame: Frame) -> Box | None:
    """Convert a box from 0..1 in `frame` to 0..1 of the `width` x `height` image, clipped to it; None for a
    box in the padding alone."""
    x1, y1, x2, y2 = from_frame(box, width, height, frame)
    clipped = max(x1 / width, 0.0), max(y1 / height, 0.0), min(x2 / width, 1.0), min(y2 / height, 1.0)
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None


def format_box(box: Box, decimals: int = 3) -> str:
    """Write `[0.125, 0.300, 0.500, 0.725]`, always with `decimals` digits: answers have one length."""
    return "[" + ", ".join(f"{value:.{decimals}f}" for value in box) + "]"


def parse_boxes(text: str) -> list[Box]:
    """Return every `[x1, y1, x2, y2]` in the text, in order. Corners in the wrong order are swapped."""
    boxes = []
    for match in _BOX.finditer(text):
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
    return boxes


def parse_box(text: str) -> Box | None:
    """Return the first box in the text, None where there is none."""
    return next(iter(parse_boxes(text)), None)


def area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


def intersection(first: Box, second: Box) -> float:
    """Return the area that two boxes have in common, in their own unit squared."""
    return area(
        (
            max(first[0], second[0]),
            max(first[1], second[1]),
            min(first[2], second[2]),
            min(first[3], second[3]),
        )
    )


def iou(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes of one frame, 0..1; 0 where both are empty."""
    common = intersection(first, second)
    union = area(first) + area(second) - common
    return common / union if union > 0 else 0.0


def holds_centre(outer: Box, box: Box) -> bool:
    """Whether the centre of `box` lies in `outer`, its edges included."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]
