"""Cuts out everything that SAM sees in a picture, by a grid of clicks (Kirillov et al., 2023, appendix B).

Candidates are judged and compared in SAM's own small masks; only those that stay are enlarged to the
picture's size. transformers' pipeline for this needs torchvision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llava.common.errors import InputError
from llava.painting.sam import AT_ONCE, SamView
from llava.painting.views import Click, Segment, View

POINTS = 32  # along each side
LEAST_IOU = 0.88
LEAST_STABILITY = 0.95
MOST_OVERLAP = 0.7
OFFSET = 1.0  # of the logits: how far a mask's edge is moved to see whether it is stable


def find_all(
    view: View,
    *,
    points: int = POINTS,
    least_iou: float = LEAST_IOU,
    least_stability: float = LEAST_STABILITY,
    most_overlap: float = MOST_OVERLAP,
) -> list[Segment]:
    """Return everything in a picture, what SAM expects most of first.

    Args:
        view: The picture, as SAM sees it.
        points: Of the grid, along each side.
        least_iou: A candidate is dropped if SAM expects less of it.
        least_stability: A candidate is dropped if it is less stable (`stability`).
        most_overlap: Of two candidates whose boxes overlap more, as intersection over union, SAM's favourite
            stays.

    Raises:
        InputError: The picture is seen by no SAM, or there is no point.
    """
    if not isinstance(view, SamView):
        raise InputError("everything in a picture is found by SAM alone; name a folder of SAM or SAM 2")
    if points < 1:
        raise InputError(f"a grid must have 1 point or more along each side, not {points}")
    kept_logits, kept_ious = [], []
    clicks = grid_clicks(view.size, points)
    for start in range(0, len(clicks), AT_ONCE):  # what is dropped takes memory for no longer than this
        found = view.ask_clicks([[click] for click in clicks[start : start + AT_ONCE]])
        logits, ious = found.logits.reshape(-1, *found.logits.shape[2:]), found.ious.ravel()
        good = (ious >= least_iou) & (stability(view.filled(logits)) >= least_stability)
        kept_logits.append(logits[good])
        kept_ious.append(ious[good])
    logits, ious = np.concatenate(kept_logits), np.concatenate(kept_ious)
    order = suppress(boxes_of(view.filled(logits) > 0), ious, most_overlap)
    segments = [Segment(view.enlarge(logits[number]), float(ious[number])) for number in order]
    return [segment for segment in segments if segment.mask.any()]


def grid_clicks(size: tuple[int, int], points: int) -> list[Click]:
    """Return the middles of `points` x `points` equal parts of a picture of (height, width), row by row."""
    height, width = size
    middles = (np.arange(points) + 0.5) / points
    return [Click(float(x), float(y)) for y in middles * height for x in middles * width]


def stability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how little each mask (masks, rows, columns) depends on where it is cut: the pixels above
    OFFSET as a share of those above -OFFSET, 0 where there are none."""
    inner = (logits > OFFSET).sum(axis=(1, 2))
    outer = (logits > -OFFSET).sum(axis=(1, 2))
    return inner / np.maximum(outer, 1)


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the boxes (masks, 4) of masks (masks, rows, columns), x2 and y2 just outside; 0s if empty."""
    count, rows, columns = masks.shape
    if not count:
        return np.zeros((0, 4))
    down: NDArray[np.bool_] = np.any(masks, axis=2)
    across: NDArray[np.bool_] = np.any(masks, axis=1)
    left, right = across.argmax(axis=1), columns - across[:, ::-1].argmax(axis=1)
    top, bottom = down.argmax(axis=1), rows - down[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right, bottom], axis=1) * down.any(axis=1, keepdims=True).astype(float)


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.floating], most: float) -> list[int]:
    """Return the numbers of the boxes that stay, best score first (of equal ones the first).

    Args:
        boxes: (boxes, 4), x1, y1, x2, y2.
        scores: (boxes,).
        most: A box goes if it and a better one that stays overlap more, as intersection over union.
    """
    left = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    staying = []
    while len(left):
        best, left = left[0], left[1:]
        staying.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        union = areas[best] + areas[left] - common
        left = left[common <= most * union]
    return staying
