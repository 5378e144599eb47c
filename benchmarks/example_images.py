"""The images of the example sources, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.common.boxes import Box

SIZE = (96, 64)
NAMES = ("a1", "b2", "c3")
# (class, box in pixels) of each object of an image.
BOXES: dict[str, list[tuple[str, Box]]] = {
    "a1": [("insulator", (4.0, 6.0, 80.0, 50.0)), ("broken", (10.0, 10.0, 26.0, 22.0))],
    "b2": [("insulator", (8.0, 4.0, 90.0, 60.0))],
    "c3": [("broken", (40.0, 30.0, 60.0, 48.0)), ("broken", (2.0, 2.0, 14.0, 12.0))],
}
CLASSES = ("insulator", "broken")


def write_image(file: Path, seed: int = 0) -> None:
    """Write an image of `SIZE` with random colours."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(SIZE, Image.Resampling.BILINEAR).save(file)


def write_images(folder: Path) -> None:
    """Write an image for each name."""
    for seed, name in enumerate(NAMES):
        write_image(folder / f"{name}.jpg", seed)


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1))


def write_mask(file: Path, name: str, value: int = 255) -> None:
    """Write a mask that has `value` in the boxes of an image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for _, (x1, y1, x2, y2) in BOXES[name]:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = value
    Image.fromarray(pixels).save(file)
