"""What drawings get, what they give, and what several of them need: random fields and what lies behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.scenes.noise import field as random_bytes
from data_prep.synthesis.drawing.shells import Shells
from data_prep.synthesis.strings import Floats, InsulatorString
from llava.common.masks import Mask, Pixels, import_opencv

Area = tuple[slice, slice]  # rows and columns of a photo


@dataclass(frozen=True)
class Drawn:
    """A part of a photo, drawn anew: `colours` (h, w, 3), 0 to 255, of which `share` (h, w) is laid on."""

    area: Area
    colours: Floats
    share: Floats
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundString:
    """A photo's string, to be drawn on."""

    pixels: Pixels
    string: InsulatorString
    shells: Shells


def random_field(chance: Chance, size: tuple[int, int], cell: float, octaves: int = 4) -> Floats:
    """Return fractal noise of (height, width), 0 to 1, its largest features about `cell` pixels wide."""
    return random_bytes(chance, *size, max(cell, 2.0), octaves).astype(np.float32) / np.float32(255)


def ramp(low: float, high: float, values: Floats) -> Floats:
    """Return 0 below `low`, 1 above `high`, and an S between; `high` may be the smaller one."""
    t = np.clip((values - low) / (high - low), 0, 1)
    smooth: Floats = (t * t * (3 - 2 * t)).astype(np.float32)
    return smooth


def soft(mask: Mask, deviation: float = 0.7) -> Floats:
    """Return a mask as shares whose edge is as soft as a photo's; nothing outside the mask has a share."""
    cv2 = import_opencv()
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), deviation)
    shares: Floats = np.where(mask, np.clip(2 * blurred - 1, 0.05, 1), 0).astype(np.float32)
    return shares


def without(part: Pixels, hidden: Mask, across: tuple[float, float], cell: float) -> Floats:
    """Return a part of a photo as it may be behind what is hidden.

    The hidden pixels are inpainted from their surroundings (Telea, 2004), which leaves them smooth; the
    grain comes from the nearest place across the string that shows the land.

    Args:
        part: (h, w, 3).
        hidden: (h, w), the whole string, so that none of it is taken for land.
        across: The step, in pixels, from the string's middle to its edge.
        cell: In pixels: what is finer is grain.
    """
    cv2 = import_opencv()
    filled = cv2.inpaint(part, hidden.astype(np.uint8), 3, cv2.INPAINT_TELEA).astype(np.float32)
    # Inpainting draws the colours at the edge inwards as streaks.
    smooth = cv2.GaussianBlur(filled, (0, 0), max(1.0, cell / 4))
    result = np.where(hidden[..., None], smooth, filled)
    shown = (~hidden).astype(np.float32)
    weight = cv2.GaussianBlur(shown, (0, 0), cell)[..., None]
    mean = cv2.GaussianBlur(part * shown[..., None], (0, 0), cell) / (weight + 1e-3)
    grain = np.where(hidden[..., None], 0, part - mean).astype(np.float32)
    left = hidden.astype(np.float32)
    for steps in (1.3, -1.3, 1.7, -1.7, 2.1, -2.1, 2.6, -2.6):
        move = np.array([[1, 0, steps * across[0]], [0, 1, steps * across[1]]], np.float32)
        size = part.shape[1::-1]
        moved = cv2.warpAffine(np.dstack([grain, shown]), move, size, flags=cv2.INTER_NEAREST)
        taken = left * moved[..., 3]
        result += moved[..., :3] * taken[..., None]
        left *= 1 - moved[..., 3]
    return np.asarray(np.clip(result, 0, 255), np.float32)
