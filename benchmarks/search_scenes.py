"""Compose photos to search: a shape of a colour, with distractors, somewhere in a large background.

The distractors share the shape or the colour with what is searched, never both. Backgrounds are parts of real
photos of a folder or, without one, rendered textures. A scene is a function of its seed, its size and the
folder.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from llava.common.errors import InputError
from llava.common.images import open_image
from llava.search.windows import Box

sys.path.append(
    str(Path(__file__).resolve().parents[1] / "scripts")
)  # last: it has modules with names of ours
from tiny_base import canvas

SHAPES = tuple(shape for shape in canvas.SHAPES if shape != "bar")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "cyan")
"""What real backgrounds are rarely full of."""
DISTRACTORS = 8
SIZES = (40, 300)
"""Of things, in pixels of the photo; small ones are as many as large ones (log-uniform)."""


@dataclass(frozen=True)
class Scene:
    """A photo, and what is to be found in it."""

    image: Image.Image
    words: str
    box: Box


def compose(seed: int, size: tuple[int, int], photos: Path | None = None, absent: bool = False) -> Scene:
    """Compose a scene; with `absent`, the thing is left out and its box says where it would be."""
    rng = np.random.default_rng(seed)
    image = _background(rng, size, photos)
    colour, shape = str(rng.choice(COLOURS)), str(rng.choice(SHAPES))
    kinds = [(colour, shape)]
    for number in range(DISTRACTORS):
        other = str(rng.choice([c for c in COLOURS if c != colour]))
        another = str(rng.choice([s for s in SHAPES if s != shape]))
        kinds.append((other, shape) if number % 2 else (colour, another))
    boxes: list[Box] = []
    for number, kind in enumerate(kinds):
        box = _free_place(rng, size, boxes)
        boxes.append(box)
        if number or not absent:
            _paint(image, box, *kind, rng)
    return Scene(image, f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}", boxes[0])


def large_photos(folder: Path) -> list[Path]:
    """Return the photos of a folder that need no extra library, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _background(rng: np.random.Generator, size: tuple[int, int], photos: Path | None) -> Image.Image:
    if photos is None:
        return canvas.background(rng).resize(size, Image.Resampling.BICUBIC)
    files = large_photos(photos)
    if not files:
        raise InputError(f"{photos}: no photos")
    photo = open_image(files[int(rng.integers(len(files)))])
    scale = max(size[0] / photo.width, size[1] / photo.height, 0.6)
    wide, high = min(photo.width, int(size[0] / scale)), min(photo.height, int(size[1] / scale))
    x, y = (int(rng.integers(room + 1)) for room in (photo.width - wide, photo.height - high))
    return photo.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + high))


def _free_place(rng: np.random.Generator, size: tuple[int, int], taken: list[Box]) -> Box:
    """Return a box in the photo, away from those that are taken."""
    while True:
        side = round(math.exp(rng.uniform(*np.log(SIZES))))
        x, y = int(rng.integers(size[0] - side)), int(rng.integers(size[1] - side))
        if all(max(x - b[2], b[0] - x - side, y - b[3], b[1] - y - side) > 20 for b in taken):
            return x, y, x + side, y + side


def _paint(image: Image.Image, box: Box, colour: str, shape: str, rng: np.random.Generator) -> None:
    """Paint a shape that fills a box, a little turned, with soft edges."""
    side, fine = box[2] - box[0], 4
    points = canvas.turn(canvas.outline(shape) * 0.9, float(rng.normal(0, 0.15)))
    points = (points + 1) * side * fine / 2
    mask = Image.new("L", (side * fine, side * fine))
    draw = ImageDraw.Draw(mask)
    draw.polygon([(x, y) for x, y in points.tolist()], fill=255)
    if shape == "ring":
        hole = (points - points.mean(axis=0)) * 0.55 + points.mean(axis=0)
        draw.polygon([(x, y) for x, y in hole.tolist()], fill=0)
    mask = mask.reduce(fine).filter(ImageFilter.GaussianBlur(0.7))
    image.paste(canvas.paint_of(colour, rng), box[:2], mask)
