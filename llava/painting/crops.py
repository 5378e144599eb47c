"""What a diffusion model sees of a photo: a part around the mask, at the model's size, and the mask's cells.

A cell is a latent's place: 8 x 8 pixels of the model's picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from llava.common.masks import Mask, Pixels, box_of

AROUND = 3.0
"""Times the mask's longer side that the part is wide, as far as the photo reaches."""
MOST_ZOOM = 4.0
"""The most that a part is enlarged: a small mask shall cover many cells, but not those of a blur."""
MULTIPLE = 64
"""Pixels: what the sides of the model's picture are multiples of."""


@dataclass(frozen=True)
class Crop:
    """A part of a photo: its edges x1, y1, x2, y2 in pixels, and the (width, height) that the model sees."""

    edges: tuple[int, int, int, int]
    seen: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of a photo that the part is."""
        x1, y1, x2, y2 = self.edges
        return slice(y1, y2), slice(x1, x2)

    def cut(self, pixels: Pixels) -> Pixels:
        """Return the part of a photo at the model's size."""
        return _resized(pixels[self.window], self.seen)

    def fit(self, part: Pixels) -> Pixels:
        """Return the part, which has the model's size, at the photo's scale."""
        x1, y1, x2, y2 = self.edges
        return _resized(part, (x2 - x1, y2 - y1))

    def cells(self, mask: Mask, cell: int) -> Tensor:
        """Return the cells (height, width) that a photo's mask touches, bool; `cell` is their side."""
        part = torch.from_numpy(mask[self.window].astype(np.float32))[None]
        width, height = self.seen
        return functional.adaptive_max_pool2d(part, (height // cell, width // cell))[0] > 0


def crop_around(mask: Mask, side: int) -> Crop:
    """Choose the part of a photo that is shown to a model.

    Args:
        mask: (height, width) of the photo, not empty.
        side: Of the square that the model was trained on, in pixels.

    Returns:
        The part with the mask amid its surroundings, a square unless the photo is too narrow for one.
    """
    box = box_of(mask)
    assert box is not None
    height, width = mask.shape
    wanted = max(AROUND * max(box[2] - box[0], box[3] - box[1]), side / MOST_ZOOM)
    x1, x2 = _stretch(box[0], box[2], wanted, width)
    y1, y2 = _stretch(box[1], box[3], wanted, height)
    scale = side / ((x2 - x1) * (y2 - y1)) ** 0.5  # the model's picture has the area of its square
    seen = _rounded((x2 - x1) * scale, side), _rounded((y2 - y1) * scale, side)
    return Crop((x1, y1, x2, y2), seen)


def shrinking(cells: Tensor, steps: int, least: int) -> list[Tensor]:
    """Return the cells that are painted after each step.

    A thin mask has too few cells for the model to begin something in them: its first ones are widened, and
    shrink step by step to its own, which are the last step's (Avrahami et al., 2023).

    Args:
        cells: (height, width), bool.
        steps: How many.
        least: Cells from the mask's middle to its edge, up to which it is widened.
    """
    inner, half = cells, 0
    while half < least and inner.any():
        inner, half = ~_grown(~inner), half + 1
    grown = [cells]
    for _ in range(least - half):
        grown.append(_grown(grown[-1]))
    missing = len(grown) - 1
    return [grown[-(-missing * (steps - 1 - step) // steps)] for step in range(steps)]


def _grown(cells: Tensor) -> Tensor:
    """Return cells and their neighbours, also those at corners."""
    return functional.max_pool2d(cells[None].float(), 3, stride=1, padding=1)[0] > 0


def _stretch(start: float, end: float, wanted: float, most: int) -> tuple[int, int]:
    """Return where a stretch of `wanted` pixels around start..end begins and ends within 0..most."""
    length = min(int(np.ceil(max(wanted, end - start))), most)
    first = int(np.clip(round((start + end - length) / 2), 0, most - length))
    return first, first + length


def _rounded(length: float, side: int) -> int:
    """Return a side of the model's picture; a part as narrow as a thread is seen wider than it is."""
    return max(MULTIPLE, round(min(length, 2 * side) / MULTIPLE) * MULTIPLE)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
