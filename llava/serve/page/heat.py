"""The heat map of a search, drawn over its photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llava.common.boxes import Box

STOPS = np.array([(49, 54, 149), (69, 117, 180), (254, 224, 144), (244, 109, 67), (215, 48, 39)], np.float32)
"""Blue for 0 to red for 1 (ColorBrewer's RdYlBu, which colour-blind readers can tell apart)."""
FAINT, STRONG = 0.15, 0.65
"""How much of the photo the colours of 0 and of 1 cover."""
DARK = 0.45
"""The same for what was not asked about yet, which is black."""


def heat_over(photo: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Return the photo under the probabilities; what was not asked about yet is darker, without colour.

    Args:
        photo: As it is shown.
        heat: (rows, columns) of probabilities 0..1; NaN where nothing was asked.
    """
    asked = np.isfinite(heat)
    values = np.nan_to_num(heat).clip(0, 1)
    place = values * (len(STOPS) - 1)
    low = np.minimum(place.astype(int), len(STOPS) - 2)
    share = (place - low)[..., None]
    colours = np.where(asked[..., None], STOPS[low] * (1 - share) + STOPS[low + 1] * share, 0)
    cover = np.where(asked, FAINT + (STRONG - FAINT) * values, DARK)
    layer = Image.fromarray(colours.astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    mask = Image.fromarray((255 * cover).astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    return Image.composite(layer, photo.convert("RGB"), mask)


def in_fractions(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """Return a box in pixels as fractions of a picture of (width, height) `size`."""
    return box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]
