"""Insulator strings drawn in code: their axis, period and odd unit are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
MISSING, BROKEN, STAINED = "missing", "broken", "stained"


@dataclass(frozen=True)
class DrawnString:
    """A string of discs on uneven land; `perspective` is by how much the far end's units are smaller."""

    discs: int = 18
    period: float = 26.0
    angle: float = -12.0  # degrees
    sag: float = 0.0  # pixels
    perspective: float = 0.0
    odd: int | None = None
    defect: str = MISSING
    size: tuple[int, int] = (720, 540)
    seed: int = 0

    def place(self, unit: float) -> tuple[Point, float]:
        """Return where the middle of a unit lies, and its scale."""
        shrink = self.perspective / self.discs
        half = self.discs / 2
        along = self.period * ((unit - half) - shrink * (unit - half) ** 2 / 2)
        bend = self.sag * (1 - ((unit - half) / half) ** 2)
        angle = math.radians(self.angle)
        x = self.size[0] / 2 + along * math.cos(angle) - bend * math.sin(angle)
        y = self.size[1] / 2 + along * math.sin(angle) + bend * math.cos(angle)
        return (x, y), 1 - shrink * (unit - half)

    @property
    def box(self) -> tuple[float, float, float, float]:
        ends = np.array([self.place(unit)[0] for unit in np.linspace(0, self.discs, 20)])
        (x1, y1), (x2, y2) = ends.min(0) - self.period, ends.max(0) + self.period
        return max(0.0, x1), max(0.0, y1), min(x2, self.size[0]), min(y2, self.size[1])

    def draw(self) -> Image.Image:
        random = np.random.default_rng(self.seed)
        fine = 3
        width, height = (side * fine for side in self.size)
        land = random.normal(0, 18, (self.size[1] // 12 + 2, self.size[0] // 12 + 2, 3)) + np.array(
            [110, 130, 90]
        )
        picture = Image.fromarray(land.clip(0, 255).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        draw = ImageDraw.Draw(picture)
        rod = [
            tuple(fine * value for value in self.place(unit)[0])
            for unit in np.linspace(-0.4, self.discs + 0.4, 60)
        ]
        draw.line(rod, fill=(70, 60, 58), width=round(0.35 * self.period * fine))
        for disc in range(self.discs):
            if disc == self.odd and self.defect == MISSING:
                continue
            (x, y), scale = self.place(disc + 0.5)
            around = np.linspace(0, 2 * math.pi, 60)
            across = 0.85 * self.period * scale * np.sin(around)
            if disc == self.odd and self.defect == BROKEN:
                across = np.minimum(across, 0.2 * self.period * scale)
            along = 0.25 * self.period * scale * np.cos(around)
            cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
            outline = np.stack([x + along * cos - across * sin, y + along * sin + across * cos], 1) * fine
            stained = disc == self.odd and self.defect == STAINED
            colour = (40, 38, 30) if stained else (128, 62, 48)
            draw.polygon([tuple(corner) for corner in outline.tolist()], fill=colour)
        pixels = np.asarray(picture.resize(self.size, Image.Resampling.BOX)).astype(float)
        pixels += random.normal(0, 3, pixels.shape)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
