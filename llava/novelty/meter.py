"""Measure how new each image is, from the pass of the vision tower that answers questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llava.common.boxes import Box, Frame, box_in_image, from_frame
from llava.inference.model_runner import ImageWatch, ModelRunner
from llava.novelty.bank import NoveltyBank
from llava.novelty.patches import split_images
from llava.novelty.pvalue import NEVER_SEEN
from llava.processing.vision import Pixels


@dataclass(frozen=True)
class NoveltyMap:
    """Where an image is unlike the training pictures.

    `rows` are those of patches from the top, a digit for each: 0 where one is no further off than the most
    unlike patch of a typical calibration picture (the median), 9 at the distance of the image, linear between
    them. `box` is where the rows lie, in 0..1 of the upright image; around an image that is padded to a
    square it reaches beyond.
    """

    box: Box
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Novelty:
    """How new an image is.

    `distance` is that of its most unlike patch, `p_value` the share of sound calibration pictures as far
    away (pvalue.py), `projection` what the drift test compares (drift.py). `place` is that patch in 0..1 of
    the upright image; of an image that is read in tiles, the most unlike of the whole image's own square.
    `map` is of that square too, and only of images that are called never seen.
    """

    distance: float
    p_value: float
    projection: tuple[float, ...]
    place: Box | None
    map: NoveltyMap | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the answers' metadata."""
        values: dict[str, Any] = {
            "distance": round(self.distance, 4),
            "p_value": round(self.p_value, 6),
            "projection": [round(value, 4) for value in self.projection],
        }
        if self.place is not None:
            values["place"] = [round(edge, 3) for edge in self.place]
        if self.map is not None:
            values["map"] = {"box": [round(edge, 5) for edge in self.map.box], "rows": list(self.map.rows)}
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
            p_value = self._bank.p_value(distance)
            self._seen[image.digest] = Novelty(
                distance=distance,
                p_value=p_value,
                projection=tuple(self._bank.project(patches).tolist()),
                place=_place(image, distances[0]),
                map=self._map(image, distances[0], distance) if p_value <= NEVER_SEEN else None,
            )

    def _map(self, image: Pixels, distances: Tensor, highest: float) -> NoveltyMap:
        """Return the map of `distances` (side, side) of the whole image's square: 9 at `highest`."""
        lowest = self._bank.p_value.typical_distance
        levels = (9 * (distances - lowest) / max(highest - lowest, 1e-9)).round().clamp(0, 9).int()
        height, width = image.size
        x1, y1, x2, y2 = from_frame((0, 0, 1, 1), width, height, _frame(image))
        return NoveltyMap(
            box=(x1 / width, y1 / height, x2 / width, y2 / height),
            rows=tuple("".join(map(str, row)) for row in levels.tolist()),
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
    return box_in_image(box, width, height, _frame(image))


def _frame(image: Pixels) -> Frame:
    """Return what the whole image's square shows: read in tiles, the image is resized to it
    (llava.processing.vision)."""
    return "padded" if len(image.patches) == 1 else "whole"
