"""The fingerprint of an image: a small grey copy, by which copies of it are found again."""

from __future__ import annotations

import numpy as np
from PIL import Image

FINGERPRINT_SIDE = 32
_SAMPLES = 12  # rows and columns of pixels for each cell


def fingerprint(image: Image.Image) -> bytes:
    """Return the greys of an image in 32 rows of 32 cells, each a byte.

    A large image is first reduced to `_SAMPLES` rows and columns per cell: that hardly changes a cell, and
    costs a fraction.
    """
    step = min(image.size) // FINGERPRINT_SIDE // _SAMPLES
    if step > 1:
        image = image.resize((image.width // step, image.height // step), Image.Resampling.NEAREST)
    grey = image.convert("L").resize((FINGERPRINT_SIDE, FINGERPRINT_SIDE), Image.Resampling.BOX)
    return np.asarray(grey).tobytes()
