"""How large an image is to a model: the square that it is scaled to, and the patches of that square."""

from __future__ import annotations

from dataclasses import dataclass

from llava.common.boxes import Box


@dataclass(frozen=True)
class ModelInput:
    """The input of a model: an image is scaled so that its longer side has `side` pixels, and read in patches
    of `patch` pixels.

    `tile` is the side of the tiles that it is cut into, 0 where the image is padded to one square. LLaVA-1.6
    fits most images into 2 x 2 tiles of 336; a very long one goes into 3 x 1 and is somewhat larger than is
    counted here (`image_grid_pinpoints` of its config).
    """

    name: str = "LLaVA-1.5"
    side: int = 336
    patch: int = 14
    tile: int = 0

    @property
    def scaling(self) -> str:
        """What is done to an image, in words."""
        if self.tile:
            return f"fitted into {self.side} x {self.side} pixels, in tiles of {self.tile}"
        return f"padded to a square of {self.side} pixels"

    def thickness(self, box: Box, size: tuple[float, float]) -> float:
        """Return the shorter side of a box in an image of `size` (width, height), in the model's pixels."""
        x1, y1, x2, y2 = box
        return min(x2 - x1, y2 - y1) * self.side / max(size)


MODEL_INPUTS = (ModelInput(), ModelInput("LLaVA-1.6", 672, 14, tile=336))
