"""Outlines what boxes of photos are drawn around: by SAM where it is named, by colours where it is not."""

from __future__ import annotations

from threading import Lock

import numpy as np

from data_prep.synthesis.painted import Outline
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.grabcut import LEAST_SHARE, find_object
from llava.common.masks import Mask, Pixels, box_mask, clean_mask
from llava.painting.segment import find_segmenter
from llava.painting.views import Segmenter


class SegmenterOutline:
    """Outlines with a segmenter, one thing at a time. It may be called from several threads."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._alone = Lock()  # a model's memory is for one picture at a time

    def __call__(self, pixels: Pixels, box: Box) -> Mask | None:
        """Return the mask of the thing in a box, within it; that of its colours, if they have one, where the
        segmenter finds next to nothing there."""
        with self._alone:
            (segment,) = self._segmenter.look(pixels).in_boxes([box])
        inside = box_mask(box, (pixels.shape[0], pixels.shape[1]))
        mask = clean_mask(segment.mask & inside)
        if np.count_nonzero(mask) < LEAST_SHARE * np.count_nonzero(inside):
            return find_object(pixels, box)
        return mask


def find_outline(model: str | None, device: str | None) -> Outline:
    """Return what outlines.

    Args:
        model: A folder or Hub name of SAM or SAM 2; None for GrabCut.
        device: Of the model; defaults to CUDA where there is one.

    Raises:
        InputError: The model cannot be loaded.
    """
    if model is None:
        return find_object
    try:
        return SegmenterOutline(find_segmenter(model, device))
    except InputError as error:
        raise InputError(f"--segmenter: {error}") from None
