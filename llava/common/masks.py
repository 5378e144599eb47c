"""Masks of what is changed in a picture: cleaned, feathered, measured, written and read. Needs OpenCV.

A mask is a boolean array (height, width), True where a picture may be changed. Feathering goes inward: what
lies outside a mask has no share of the new pixels, and stays the original's bit for bit.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llava.common.boxes import Box
from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.common.files import atomic_path

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""

# A channel that differs by at most so much looks the same: half of what JPEG of quality 95 changes at edges.
LEAST_CHANGE = 8


def import_opencv() -> Any:
    """Return OpenCV; InputError with what to install where it is absent."""
    try:
        import cv2
    except ImportError:
        raise InputError(f"this needs OpenCV: {how_to_install('synth')}") from None
    return cv2


def clean_mask(mask: Mask, least_share: float = 0.05) -> Mask:
    """Fill the holes of a mask and remove its islands.

    Args:
        mask: (height, width).
        least_share: An island stays if it has at least this share of the largest one's pixels.

    Returns:
        The mask without holes; a hole is what the picture's edge cannot be reached from, through sides.
    """
    cv2 = import_opencv()
    if not mask.any():
        return mask.copy()
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(outside, connectivity=4)
    filled = (parts != parts[0, 0])[1:-1, 1:-1]
    _, islands, facts, _ = cv2.connectedComponentsWithStats(filled.astype(np.uint8), connectivity=8)
    sizes = facts[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0  # the background
    cleaned: Mask = (sizes >= max(1, least_share * sizes.max()))[islands]
    return cleaned


def feather(mask: Mask, width: float) -> NDArray[np.float32]:
    """Return the share (height, width), 0 to 1, that the new pixels have at each place.

    It is 0 outside the mask and rises inward to 1, over `width` pixels from the mask's edge; the picture's
    own edge is none. Inside the mask it is always above 0.
    """
    cv2 = import_opencv()
    if width <= 0:
        return mask.astype(np.float32)
    # The pixels around the picture count as inside, or masks would fade at its edge.
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    if padded.all():  # there is no edge to measure from
        return np.ones(mask.shape, np.float32)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    share: NDArray[np.float32] = np.clip(distance / (width + 1), 0, 1).astype(np.float32)
    return share


def half_width(mask: Mask) -> float:
    """Return how many pixels the innermost one is from the mask's edge: 0 for an empty mask, infinite where
    there is no edge, since the picture's own is none."""
    cv2 = import_opencv()
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    if padded.all():
        return math.inf
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].max())


def grown(mask: Mask, pixels: float) -> Mask:
    """Return a mask that reaches so many pixels further, one at least."""
    cv2 = import_opencv()
    side = 2 * max(1, round(pixels)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    larger: Mask = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    return larger


def blend_over(original: Pixels, painted: Pixels, share: NDArray[np.float32]) -> Pixels:
    """Lay painted pixels over a picture.

    Args:
        original: (height, width, 3).
        painted: The same shape.
        share: (height, width), that of the painted ones, 0 to 1.

    Returns:
        The mixture, rounded. Where the share is 0 it is the original and where it is 1 the painted picture,
        bit for bit.
    """
    part = share[..., None]
    mixed = np.rint(original * (1 - part) + painted * part).astype(np.uint8)
    return np.where(part == 0, original, np.where(part == 1, painted, mixed))


def changed_pixels(original: Pixels, result: Pixels, least: int = LEAST_CHANGE) -> Mask:
    """Return where a channel of two pictures (height, width, 3) differs by more than `least`."""
    difference = np.abs(original.astype(np.int16) - result.astype(np.int16)).max(axis=2)
    changed: Mask = difference > least
    return changed


def box_of(mask: Mask) -> Box | None:
    """Return the box around a mask in pixels, x2 and y2 just outside it; None for an empty one."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box: Box, size: tuple[int, int]) -> Mask:
    """Return the mask of a box, of a picture's (height, width); every pixel that the box touches is in it."""
    height, width = size
    x1, y1 = max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0)
    # A box to the left of the picture or above it ends below 0, which would count from the other side.
    x2, y2 = min(max(int(np.ceil(box[2])), 0), width), min(max(int(np.ceil(box[3])), 0), height)
    mask: Mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def share_of_box(mask: Mask, box: Box) -> float:
    """Return the share, 0 to 1, of a box's pixels that are in a mask; 0 for a box outside the picture."""
    inside = box_mask(box, mask.shape)
    return int(np.count_nonzero(mask & inside)) / max(1, int(np.count_nonzero(inside)))


def save_mask(path: Path, mask: Mask) -> None:
    """Write a mask as a grey PNG, white where it is True."""
    with atomic_path(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")


def load_mask(path: Path) -> Mask:
    """Read a mask that `save_mask` wrote, or any grey picture: True from the middle grey on."""
    from llava.common.images import open_image

    mask: Mask = np.asarray(open_image(path).convert("L")) >= 128
    return mask


def run_lengths(mask: Mask) -> list[int]:
    """Return a mask as COCO's uncompressed run lengths, down the columns, the first of pixels outside."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *counts] if flat.size and flat[0] else counts
