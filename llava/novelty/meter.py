"""Measure how new each image is, from the pass of the vision tower that answers questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llava.common.boxes import Box, box_in_image
from llava.inference.model_runner import ImageWatch, ModelRunner
from llava.novelty.bank import NoveltyBank
from llava.novelty.patches import split_images
from llava.processing.vision import Pixels


@dataclass(frozen=True)
class Novelty:
    """How new an image is.

    `distance` is that of its most unlike patch, `p_value` the share of sound calibration pictures as far
    away (pvalue.py), `projection` what the drift test compares (drift.py). `place` is that patch in 0..1 of
    the upright image; of an image that is read in tiles, the most unlike of the whole image's own square.
    """

    distance: float
    p_value: float
    projection: tuple[float, ...]
    place: Box | None

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the answers' metadata."""
        values: dict[str, Any] = {
            "distance": round(self.distance, 4),
            "p_value": round(self.p_value, 6),
            "projection": [round(value, 4) for value in self.projection],
        }
        if self.place is not None:
            values["place"] = [round(edge, 3) for edge in self.place]
        return values


class NoveltyMeter:
    """Measures all images that a runner reads from now on."""

    def __init__(self, runner: ModelRunner, bank: NoveltyBank) -> None:
        """Watch a runner; InputError if the bank is of another model."""
        bank.require_model(runner)
        self._bank = bank.to(runner.model.device)
        self._side = runner.processor.vision.patches_per_side
        self._seen: dict[bytes, Novelty] = {}
        runner.image_watch = ImageWatch(bank.info.layer, self._see)

    def of(self, images: Sequence[Pixels]) -> Novelty | None:
        """Return what was measured of the newest of `images`; None where none has been read."""
        seen = [self._seen[image.digest] for image in images if image.digest in self._seen]
        return max(seen, key=lambda novelty: novelty.distance, default=None)

    def _see(self, images: Sequence[Pixels], states: Tensor) -> None:
        for image, patches in zip(images, split_images(images, states, self._side), strict=True):
            distances = self._bank.patch_distances(patches)
            distance = float(distances.max())
            self._seen[image.digest] = Novelty(
                distance=distance,
                p_value=self._bank.p_value(distance),
                projection=tuple(self._bank.project(patches).tolist()),
                place=_place(image, distances[0]),
            )


def _place(image: Pixels, distances: Tensor) -> Box | None:
    """Return the most unlike patch in 0..1 of the image; None for one in the padding alone.

    Args:
        image: The image.
        distances: (side, side) of the whole image's square.
    """
    side = distances.shape[0]
    row, column = divmod(int(distances.argmax()), side)
    box = column / side, row / side, (column + 1) / side, (row + 1) / side
    height, width = image.size
    # read in tiles, the whole image is resized to its square (llava.processing.vision)
    return box_in_image(box, width, height, "padded" if len(image.patches) == 1 else "whole")
