"""The mask of what a box is drawn around, by GrabCut (Rother et al., 2004): no weights, only OpenCV."""

from __future__ import annotations

import math

import numpy as np

from llava.common.boxes import Box
from llava.common.masks import Mask, Pixels, box_mask, box_of, clean_mask, import_opencv

SIDE = 160  # pixels of the longer side that GrabCut works on: its time grows with their number
MARGIN = 0.4  # of the box's longer side: the surroundings that tell it what is not the object
ROUNDS = 4
CORE = 0.35  # of the box's sides: the middle that belongs to the object, where it is hard to see
SMALLEST = 8  # pixels of a box's shorter side, of which colours can be learnt
LEAST_SHARE, MOST_SHARE = 0.06, 0.96
"""Of the box. GrabCut that takes less has found a spot, and one that takes more has found no background."""


def grabcut(pixels: Pixels, box: Box) -> Mask:
    """Return the mask of the object in a box.

    Args:
        pixels: (height, width, 3).
        box: In their pixels; what lies outside the picture is cut off.

    Returns:
        (height, width), True within the box alone, without holes. Where GrabCut finds none (`find_object`),
        it is the ellipse that touches the box's sides. The same picture and box always give the same mask; it
        is empty only for a box outside the picture.
    """
    found = find_object(pixels, box)
    if found is not None:
        return found
    height, width = pixels.shape[:2]
    shown = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
    return ellipse_mask(shown, (height, width))


def find_object(pixels: Pixels, box: Box) -> Mask | None:
    """Return what `grabcut` does; None where GrabCut finds nothing, or all of the box, or has no surroundings
    to compare with."""
    height, width = pixels.shape[:2]
    inside = box_mask(box, (height, width))
    if not inside.any():
        return None
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    margin = max(4, MARGIN * max(x2 - x1, y2 - y1))
    left, top = max(math.floor(x1 - margin), 0), max(math.floor(y1 - margin), 0)
    right, bottom = min(math.ceil(x2 + margin), width), min(math.ceil(y2 + margin), height)
    part = slice(top, bottom), slice(left, right)
    found = _foreground(pixels[part], inside[part])
    if found is None:
        return None
    mask: Mask = np.zeros((height, width), bool)
    mask[part] = found
    return mask


def ellipse_mask(box: Box, size: tuple[int, int]) -> Mask:
    """Return the ellipse that touches a box's sides, of a picture's (height, width).

    It is never empty where the box is in the picture: a box too thin for an ellipse is the mask itself.
    """
    return _ellipse(box, box_mask(box, size))


def _ellipse(box: Box, inside: Mask) -> Mask:
    x1, y1, x2, y2 = box
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
    across = (columns + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 0.5)
    down = (rows + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 0.5)
    round_part: Mask = inside & (across**2 + down**2 <= 1)
    return round_part if round_part.any() else inside


def _foreground(pixels: Pixels, inside: Mask) -> Mask | None:
    """Return what GrabCut takes for the object, None where that cannot be it."""
    cv2 = import_opencv()
    box = box_of(inside)
    if box is None or min(box[2] - box[0], box[3] - box[1]) < SMALLEST or inside.mean() > MOST_SHARE:
        return None
    scale = min(1, SIDE / max(inside.shape))
    size = max(1, round(inside.shape[1] * scale)), max(1, round(inside.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small_inside = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    core = _ellipse(_shrink(_scaled(box, scale), CORE), small_inside)
    # What differs little from its surroundings vanishes in the first round, unless its middle is held.
    for held in (np.zeros_like(core), core):
        labels = np.where(small_inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        labels[held] = cv2.GC_FGD
        if not small_inside.any() or small_inside.all():
            return None
        cv2.setRNGSeed(0)  # it clusters colours from a random start
        models = np.zeros((1, 65)), np.zeros((1, 65))
        try:
            # OpenCV reads the channels as BGR, but only compares colours.
            cv2.grabCut(small, labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
        except cv2.error:  # a picture of one colour has no clusters
            return None
        shares = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
        large = cv2.resize(shares, inside.shape[::-1], interpolation=cv2.INTER_LINEAR)
        found = clean_mask((large >= 0.5) & inside) & inside
        least = max(LEAST_SHARE, 2 * held.sum() / small_inside.sum())
        if least <= found.sum() / inside.sum() <= MOST_SHARE:
            return found
    return None


def _scaled(box: Box, scale: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def _shrink(box: Box, share: float) -> Box:
    """Return the box with `share` of its sides and the same centre."""
    x1, y1, x2, y2 = box
    across, down = (x2 - x1) * (1 - share) / 2, (y2 - y1) * (1 - share) / 2
    return x1 + across, y1 + down, x2 - across, y2 - down
