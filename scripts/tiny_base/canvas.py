"""The canvas of a scene: drawing at a finer scale, dense labels beside it, colours and backgrounds."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

SIZE = 144  # pixels a side, the tiny model's input
PATCH = 12
GRID = SIZE // PATCH
SCALE = 2  # supersampling
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # of scenes that the base learns from, and that it is scored on

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40),
    "green": (45, 150, 60),
    "blue": (45, 80, 200),
    "yellow": (235, 210, 50),
    "white": (238, 238, 235),
    "black": (25, 25, 28),
    "purple": (130, 55, 160),
    "orange": (240, 130, 30),
    "brown": (115, 70, 40),
    "gray": (135, 135, 138),
    "pink": (240, 150, 185),
    "cyan": (70, 195, 205),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "bar")
CONDITIONS = ("gap", "broken", "odd", "stained", "dull", "tangle")
PLACES = tuple(
    f"{v} {h}".replace("middle centre", "centre").replace("middle ", "")
    for v in ("top", "middle", "bottom")
    for h in ("left", "centre", "right")
)

# Dense label channels, in this order: shapes, "element" (of a row), conditions, colours, and "row": the band
# that a whole row would cover, gaps and lost parts included.
CHANNELS = (*SHAPES, "element", *CONDITIONS, *COLOURS, "row")
MINIMUM_SHARE = 0.08  # of a patch's area, from which a channel counts as present


class Canvas:
    """The picture at SCALE times its size beside label maps at its size: one for what a pixel is, one for its
    colour (0 = nothing, else 1 + channel)."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.kind = Image.new("L", (SIZE, SIZE))
        self.colour = Image.new("L", (SIZE, SIZE))
        self.condition = Image.new("L", (SIZE, SIZE))
        self.band = Image.new("L", (SIZE, SIZE))
        self._maps = {
            name: ImageDraw.Draw(getattr(self, name)) for name in ("kind", "colour", "condition", "band")
        }

    def polygon(self, points: np.ndarray, fill: tuple[int, ...], **labels: int) -> None:
        """Fill the polygon `points` (N, 2) in pixels, and set the named label maps inside it."""
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points.tolist()], fill=fill)
        self.label(points, **labels)

    def label(self, points: np.ndarray, **labels: int) -> None:
        flat = [tuple(point) for point in points.tolist()]
        for name, value in labels.items():
            self._maps[name].polygon(flat, fill=value)

    def dense(self) -> np.ndarray:
        shares = np.zeros((GRID, GRID, len(CHANNELS) + 1), dtype=np.float32)
        cell = np.arange(SIZE) // PATCH
        index = (cell[:, None] * GRID + cell[None, :]) * (len(CHANNELS) + 1)
        for layer in (self.kind, self.colour, self.condition, self.band):
            counts = np.bincount((index + np.asarray(layer)).ravel(), minlength=shares.size)
            shares += counts.reshape(shares.shape)
        return shares[..., 1:] >= MINIMUM_SHARE * PATCH * PATCH


def outline(shape: str) -> np.ndarray:
    """The shape as a polygon (N, 2) inside [-1, 1]^2. The caller cuts the ring's hole."""
    if shape in ("circle", "ring"):
        angle = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "square":
        return np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    if shape == "triangle":
        return np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    if shape == "diamond":
        return np.array([(0, -1), (0.72, 0), (0, 1), (-0.72, 0)])
    if shape == "bar":
        return np.array([(-1, -0.28), (1, -0.28), (1, 0.28), (-1, 0.28)])
    if shape == "cross":
        a = 0.34
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
        return np.array([*corners, (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)])
    if shape == "star":
        angle = np.arange(10) * math.pi / 5 - math.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    raise ValueError(shape)


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([(c, s), (-s, c)])


def paint_of(colour: str, rng: np.random.Generator, jitter: int = 18) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(v + rng.integers(-jitter, jitter + 1), 0, 255)) for v in COLOURS[colour])
    return red, green, blue


def shade(paint: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(int(np.clip(value * factor, 0, 255)) for value in paint)


def background(rng: np.random.Generator) -> Image.Image:
    """A texture between two or three random colours, from flat to busy, some with a horizon or stripes."""
    side = SIZE * SCALE
    field_ = np.zeros((SIZE, SIZE), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        coarse = int(rng.choice([2, 3, 5, 9, 18, 36, 72]))
        noise = Image.fromarray(rng.random((coarse, coarse), dtype=np.float32))
        field_ += float(rng.uniform(0.2, 1)) * np.asarray(
            noise.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        )
    field_ = (field_ - field_.min()) / max(float(np.ptp(field_)), 1e-6)
    low, high = rng.integers(20, 236, (2, 3)).astype(np.float32)
    high = low + (high - low) * float(rng.uniform(0.05, 0.9))
    pixels = low + field_[..., None] * (high - low)
    if rng.random() < 0.3:  # a horizon: another plain or sloping half
        slope, offset = float(rng.normal(0, 0.3)), float(rng.uniform(0.15, 0.85)) * SIZE
        below = np.arange(SIZE)[:, None] > offset + slope * (np.arange(SIZE)[None, :] - SIZE / 2)
        other = rng.integers(40, 250, 3).astype(np.float32)
        pixels = np.where(below[..., None], pixels, 0.25 * pixels + 0.75 * other)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.5 else 0):  # stray lines
        ends = rng.uniform(-0.2, 1.2, 4) * side
        draw.line(ends.tolist(), fill=tuple(rng.integers(20, 236, 3).tolist()), width=int(rng.integers(1, 6)))
    return image


def distinct_colour(avoid: tuple[int, ...], rng: np.random.Generator, among: tuple[str, ...]) -> str:
    """A colour name that differs visibly from the RGB value `avoid`."""
    while True:
        name = str(rng.choice(among))
        if sum(abs(a - b) for a, b in zip(COLOURS[name], avoid, strict=True)) > 110:
            return name


def colour_behind(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    clamp = SIZE * SCALE - 1
    colour = image.getpixel((min(clamp, max(0, int(x * SCALE))), min(clamp, max(0, int(y * SCALE)))))
    assert isinstance(colour, tuple)  # the scene is RGB
    return colour


def scaled(points: np.ndarray) -> list[tuple[float, float]]:
    """Convert scene pixels (N, 2) to the canvas's, which are finer."""
    return [(x * SCALE, y * SCALE) for x, y in points.tolist()]
