"""Draws the outline of a mask."""

from __future__ import annotations

import numpy as np

from llava.common.masks import Mask, import_opencv

DRAWN_PIXELS = 800
"""The longer side of a mask whose outline is drawn: more cannot be seen."""


def outline(mask: Mask) -> str:
    """Return the outline of a mask as the path of an SVG, in the mask's pixels; "" for an empty one."""
    cv2 = import_opencv()
    height, width = mask.shape
    scale = max(1.0, max(width, height) / DRAWN_PIXELS)
    size = max(1, round(width / scale)), max(1, round(height / scale))
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) >= 128
    # Each pixel is drawn as four: so an outline runs around the outer pixels, not through their middle.
    doubled = small.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    across, down = width / size[0] / 2, height / size[1] / 2
    lines = []
    for contour in contours:
        points = [f"{(x + 0.5) * across:.1f} {(y + 0.5) * down:.1f}" for x, y in contour[:, 0]]
        lines.append(f"M{'L'.join(points)}Z")
    return "".join(lines)
