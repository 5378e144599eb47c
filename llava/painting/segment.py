"""Cuts things out of a picture: SAM or SAM 2 from clicks or boxes, GrabCut from boxes without weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.grabcut import grabcut
from llava.common.masks import Pixels
from llava.painting.views import Click, Segment, Segmenter, View


class GrabCut:
    """Segments by their colours alone, from boxes; needs no weights."""

    def look(self, pixels: Pixels) -> View:
        return _GrabCutView(pixels)


class _GrabCutView(View):
    def __init__(self, pixels: Pixels) -> None:
        super().__init__(pixels.shape[:2])
        self._pixels = pixels

    def _at_clicks(self, prompts: Sequence[Sequence[Click]]) -> list[Segment]:
        raise InputError("clicks are understood by SAM alone; name a folder of SAM or SAM 2, or draw a box")

    def _in_boxes(self, boxes: Sequence[Box]) -> list[Segment]:
        return [Segment(grabcut(self._pixels, box), None) for box in boxes]


def find_segmenter(model: str | Path | None = None, device: str | None = None) -> Segmenter:
    """Return what cuts things out.

    Args:
        model: A folder of SAM or SAM 2 that transformers saved, or a Hub name; None for GrabCut.
        device: Of the model; defaults to CUDA where there is one.

    Raises:
        InputError: The folder is no SAM, or cannot be loaded.
    """
    if model is None:
        return GrabCut()
    from llava.painting.sam import load_sam  # PyTorch, which GrabCut does without

    return load_sam(model, device)
