"""The family of questions that are answered with a box, and the frames that boxes are written in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import get_args

import numpy as np

from eval.scoring import parse
from eval.scoring.metrics import Array, GroupSums, Metrics, NumberRows, box_metrics, box_rows, iou
from eval.scoring.outcomes import AnswerTexts, Outcomes, baseline_values, mean_intervals
from llava.common.boxes import Box, Frame, box_in_image
from llava.common.errors import InputError
from llava.common.records import Truth

_SAMPLES = 64  # of the exact boxes that round to a written one


@dataclass(frozen=True)
class BoxFamily:
    """Scores questions with one box each; `truth` (n, 4) and the answers are compared in the image's frame.

    `to_image` convert each question's boxes to that frame. `absent` are answers that say that there is no
    box. Where the truth is one of them (a row of NaN), such an answer scores an IoU of 1, and a box 0; where
    it is a box, such an answer scores 0. `rounded_iou` (boxes, 2) is the mean IoU of each true box, as it is
    written, with boxes that round to it, and the share of these whose IoU is 0.5 or more.
    """

    truth: Array
    to_image: Sequence[Callable[[Box], Box | None]] = field(repr=False)
    absent: tuple[str, ...] = ()
    rounded_iou: Array | None = field(default=None, repr=False)
    headline: str = "mean_iou"

    def evaluate(self, texts: AnswerTexts) -> Outcomes:
        boxes = np.full_like(self.truth, np.nan)
        none = np.zeros(len(boxes), dtype=bool)  # said that there is no box
        for index, (text, convert) in enumerate(zip(texts, self.to_image, strict=True)):
            if text is None:
                continue
            if (box := parse.parse_box(text)) is not None:
                # A box that lies in the padding alone was read, and meets nothing: its IoU is 0.
                boxes[index] = convert(box) or (0.0, 0.0, 0.0, 0.0)
            none[index] = bool(self.absent) and parse.parse_class(text, self.absent) is not None
        overlap = np.where(none, np.isnan(self.truth[:, 0]), self._overlap(boxes))
        rows = box_rows(overlap)
        right, parsed, value = rows[:, 3] > 0, rows[:, 1] > 0, rows[:, 2].copy()
        return Outcomes(rows=NumberRows(rows), right=right, parsed=parsed, value=value, boxes=boxes)

    def metrics(self, sums: Array) -> Metrics:
        return box_metrics(sums)

    def wilson_intervals(self, values: dict[str, float], sums: GroupSums) -> dict[str, tuple[float, float]]:
        return mean_intervals(values, sums.groups)

    def majority_baseline(self) -> dict[str, float]:
        """Return what always giving the median box of the truth scores."""
        median = np.zeros(4) if np.isnan(self.truth).all() else np.nanmedian(self.truth, axis=0)
        rows = box_rows(self._overlap(np.broadcast_to(median, self.truth.shape)))
        return baseline_values(box_metrics(rows.sum(axis=0)))

    def _overlap(self, boxes: Array) -> Array:
        """Return the IoU (n,) with the truth: 0 for a box where there is none, NaN for no box."""
        return np.where(np.isnan(boxes[:, 0]), np.nan, np.nan_to_num(iou(boxes, self.truth)))

    def random_baseline(self) -> dict[str, float]:
        return {}

    def ceiling(self) -> dict[str, float] | None:
        """Return what the true boxes score, written with their decimals; None where no truth is a box."""
        if self.rounded_iou is None or not len(self.rounded_iou):
            return None
        mean_iou, acc_50 = self.rounded_iou.mean(axis=0)
        return {"mean_iou": float(mean_iou), "acc_50": float(acc_50)}


def box_family(task: str, truths: Sequence[Truth]) -> BoxFamily:
    """Return the family of a box task; InputError where a true answer is no box."""
    boxes = np.full((len(truths), 4), np.nan)
    rounded_iou: list[tuple[float, float]] = []
    absent = tuple(dict.fromkeys(name for truth in truths for name in truth.classes or ()))
    conversions = []
    for index, truth in enumerate(truths):
        to_image = frame_conversion(task, truth)
        conversions.append(to_image)
        if truth.answer in absent:
            continue
        box_in_frame = parse.parse_box(truth.answer)
        box = None if box_in_frame is None else to_image(box_in_frame)
        if box_in_frame is None or box is None:
            raise InputError(
                f"task {task!r}: the answer {truth.answer!r} of question {truth.question_id!r} is no box "
                "[x1, y1, x2, y2] in 0..1 that meets the picture"
            )
        boxes[index] = box
        rounded_iou.append(_rounding_iou(box_in_frame, truth.answer))
    return BoxFamily(boxes, conversions, absent, np.array(rounded_iou))


@cache
def _shifts(decimals: int) -> Array:
    """Return how much (samples, 4) boxes may be off that round to as many decimals."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (_SAMPLES, 4)) / 10**decimals


def _rounding_iou(box_in_frame: Box, text: str) -> tuple[float, float]:
    """Return the mean IoU of a box with boxes that lie within half a unit of its last decimal, and the share
    of these with 0.5 or more."""
    decimals = max((len(digits) for digits in re.findall(r"\.(\d+)", text)), default=0)
    exact = np.array(box_in_frame) + _shifts(decimals)
    exact = np.concatenate(
        [np.minimum(exact[:, :2], exact[:, 2:]), np.maximum(exact[:, :2], exact[:, 2:])], 1
    )
    overlap = np.nan_to_num(iou(exact, np.array(box_in_frame)[None]))
    return float(overlap.mean()), float((overlap >= 0.5).mean())


def frame_conversion(task: str, truth: Truth) -> Callable[[Box], Box | None]:
    """Return the conversion from the frame that `meta` names (`frame`, with `width` and `height` in pixels).

    It gives boxes in 0..1 of the image, clipped to it, and None for a box in the padding alone. Without
    `frame` boxes are compared as they are written: IoU is the same in every frame, except for what of a box
    lies in the padding.

    Raises:
        InputError: The frame is unknown, or the image's size is missing.
    """
    frame = truth.meta.get("frame")
    if frame is None:
        return _unchanged
    try:
        width, height = float(truth.meta["width"]), float(truth.meta["height"])
    except (KeyError, TypeError, ValueError):
        width = height = 0.0
    if frame not in get_args(Frame) or not (0 < width < math.inf and 0 < height < math.inf):
        raise InputError(
            f"task {task!r}, question {truth.question_id!r}: a box needs meta `frame` "
            f"({' or '.join(get_args(Frame))}), `width` and `height` in pixels"
        )
    return _conversion(width, height, frame)


@lru_cache
def _conversion(width: float, height: float, frame: Frame) -> Callable[[Box], Box | None]:
    """Return the conversion for a size of image: the same one for all of a size, for there are many boxes."""
    return lambda box: box_in_image(box, width, height, frame)


def _unchanged(box: Box) -> Box:
    return box


def truth_box(truth: Truth) -> Box | None:
    """Return the true box in 0..1 of the image; None for other tasks and where there is none."""
    box_in_frame = parse.parse_box(truth.answer) if truth.type == "box" else None
    return None if box_in_frame is None else frame_conversion(truth.task, truth)(box_in_frame)
