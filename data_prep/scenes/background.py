"""What lies behind the string: sky, fields, soil, grass, forest, with a horizon or seen from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_prep.scenes.noise import Array, field, mix, smoothstep
from data_prep.scenes.steel import truss

Colour = tuple[float, float, float]

FIELD_COLOURS: Sequence[Colour] = (
    (0.36, 0.47, 0.22),
    (0.43, 0.52, 0.27),
    (0.52, 0.55, 0.30),
    (0.62, 0.57, 0.35),
    (0.50, 0.43, 0.33),
    (0.57, 0.49, 0.39),
    (0.30, 0.41, 0.22),
)
SOIL_COLOURS: Sequence[Colour] = (
    (0.52, 0.44, 0.36),
    (0.58, 0.49, 0.42),
    (0.45, 0.38, 0.31),
    (0.62, 0.55, 0.45),
)
GRASS_COLOURS: Sequence[Colour] = (
    (0.42, 0.52, 0.28),
    (0.50, 0.58, 0.36),
    (0.38, 0.46, 0.27),
    (0.55, 0.55, 0.36),
)
LAND = ("fields", "grass", "soil", "forest")


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """An RGB picture of the land or sky behind the string, at the scene's final size."""
    view = rng.choice(["horizon", "above", "sky"], p=[0.5, 0.35, 0.15])
    if view == "sky":
        return _blurred(rng, _sky(rng, height, width, 1.3 * height))
    horizon = {"horizon": rng.uniform(0.15, 0.65), "above": -rng.uniform(0.4, 3.0)}[str(view)] * height
    haze: Colour = tuple(np.asarray((0.78, 0.81, 0.84)) * rng.uniform(0.9, 1.05))
    kind = str(rng.choice(LAND))
    pixels = _land(rng, height, width, horizon, kind)
    if view == "horizon":
        # Distance fades the land into the haze; above it is the sky.
        rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(horizon)
        fade = np.exp(-np.maximum(rows, 0) / (height * rng.uniform(0.05, 0.16))) * rng.uniform(0.6, 0.95)
        pixels = mix(pixels, haze, np.broadcast_to(fade, (height, width)).astype(np.float32))
        sky = _sky(rng, height, width, horizon)
        pixels = np.where((rows < 0)[..., None], sky, pixels)
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if view == "horizon":
        _skyline(rng, draw, width, height, horizon, haze)
    _clutter(rng, draw, width, height, horizon, kind, haze)
    return _blurred(rng, np.asarray(image, np.float32) / np.float32(255))


def _blurred(rng: np.random.Generator, pixels: Array) -> Image.Image:
    """The land is further away than the string: a little out of focus, never sharper."""
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.8))))


def _sky(rng: np.random.Generator, height: int, width: int, horizon: float) -> Array:
    zenith, low = (np.asarray(colour, np.float32) for colour in ((0.38, 0.58, 0.85), (0.80, 0.87, 0.93)))
    if rng.random() < 0.45:  # overcast
        zenith, low = np.float32(rng.uniform(0.62, 0.8)) * np.asarray((0.96, 0.99, 1.03), np.float32), low
    climb = np.clip(1 - np.arange(height, dtype=np.float32) / max(horizon, 1.0), 0, 1)[:, None, None] ** 0.8
    sky = np.broadcast_to(low + (zenith - low) * climb, (height, width, 3)).astype(np.float32)
    flat = rng.uniform(1.6, 3.0)  # clouds are wider than tall
    cloud = field(rng, round(height * flat), width, width * rng.uniform(0.3, 0.7), 5)
    cloud = np.asarray(Image.fromarray(cloud).resize((width, height), Image.Resampling.BILINEAR))
    cover = smoothstep(rng.uniform(0.4, 0.6), 0.9, cloud) * np.float32(rng.uniform(0.2, 0.95))
    shade = 0.99 - 0.22 * smoothstep(0.7, 1.0, cloud)
    return sky + (shade[..., None] - sky) * cover[..., None]


def _land(rng: np.random.Generator, height: int, width: int, horizon: float, kind: str) -> Array:
    """Flat ground in perspective; rows above `horizon` are filled but meaningless."""
    rows = (np.arange(height, dtype=np.float32)[:, None] - np.float32(horizon)) / np.float32(height - horizon)
    nearness = np.maximum(rows, 0.02)
    across = (np.arange(width, dtype=np.float32)[None, :] / width - 0.5) / nearness
    along = np.broadcast_to(np.float32(max(1.0, 1 - horizon / height)) / nearness, across.shape)
    turn = rng.uniform(0, math.pi)
    x = math.cos(turn) * across + math.sin(turn) * along + 40
    y = -math.sin(turn) * across + math.cos(turn) * along + 40

    tile = field(rng, 256, 256, 64, 6, wrap=True)

    def sample(scale: float) -> Array:
        return tile[(y * scale).astype(np.int32) % 256, (x * scale).astype(np.int32) % 256]

    broad, fine = sample(rng.uniform(60, 110)), sample(rng.uniform(240, 400))
    if kind == "fields":
        wide, deep = rng.uniform(0.35, 0.9), rng.uniform(0.25, 0.6)
        strip = np.floor(x / wide).astype(np.int32)
        block = np.floor(y / deep + 0.37 * strip).astype(np.int32)
        plot = (strip * 7 + block * 13) % 31
        palette = np.asarray(FIELD_COLOURS, np.float32)[rng.integers(len(FIELD_COLOURS), size=31)]
        palette *= rng.uniform(0.85, 1.15, (31, 1)).astype(np.float32)
        ground = palette[plot]
        furrow = np.sin(np.where(plot % 2 == 0, x, y) * rng.uniform(120, 220))
        ground = ground * (1 + 0.10 * furrow * np.clip(nearness - 0.25, 0, 1))[..., None]
        edge = np.minimum(x / wide - strip, y / deep + 0.37 * strip - block)
        ground = mix(ground, (0.48, 0.45, 0.33), (edge < 0.03).astype(np.float32) * np.float32(0.6))
    else:
        palette = np.asarray(
            {"soil": SOIL_COLOURS, "grass": GRASS_COLOURS}.get(kind, GRASS_COLOURS), np.float32
        )
        one, other = palette[rng.permutation(len(palette))[:2]]
        ground = one + (other - one) * smoothstep(0.3, 0.7, broad)[..., None]
        if kind == "soil":
            ground = (
                ground * (1 + 0.07 * np.sin(x * rng.uniform(90, 200)) * np.clip(nearness, 0, 1))[..., None]
            )
            if rng.random() < 0.5:  # weeds
                ground = mix(
                    ground, (0.40, 0.47, 0.27), smoothstep(0.55, 0.8, sample(45.0)) * np.float32(0.8)
                )
        if kind == "forest":
            ground = ground * np.float32(0.5)
    ground = ground * (0.72 + 0.32 * broad + 0.30 * fine)[..., None]
    if kind != "forest" and rng.random() < 0.4:  # a track
        middle = x - 40 - rng.uniform(-0.3, 0.3) - 0.12 * np.sin(y * 2.5)
        on = smoothstep(-rng.uniform(0.03, 0.06), -0.02, -np.abs(middle).astype(np.float32))
        ground = mix(ground, (0.68, 0.62, 0.53), on * np.float32(0.8))
    if kind != "forest" and rng.random() < 0.2:  # a pond
        wet = smoothstep(0.60, 0.63, sample(rng.uniform(35, 60)))
        ground = mix(ground, (0.52, 0.56, 0.55) if rng.random() < 0.5 else (0.47, 0.46, 0.38), wet)
    return np.asarray(ground, np.float32)


def _skyline(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, width: int, height: int, horizon: float, haze: Colour
) -> None:
    """Hills, far trees or roofs, and a far tower or two, along the horizon."""
    xs = np.arange(0, width + 8, 8)
    for layer in range(int(rng.integers(0, 3))):
        rise = field(rng, 4, len(xs), 12, 3)[1] * height * rng.uniform(0.03, 0.12) + 2
        colour = _hazy((0.33, 0.40, 0.34), haze, 0.8 - 0.25 * layer)
        outline = [(float(x), float(horizon - r)) for x, r in zip(xs, rise, strict=True)]
        draw.polygon([(0.0, horizon + 2), *outline, (float(width + 8), horizon + 2)], fill=colour)
    for _ in range(int(rng.integers(0, 12)) if rng.random() < 0.4 else 0):
        x, wide, tall = rng.uniform(0, width), rng.uniform(6, 26), rng.uniform(4, 20)
        colour = _hazy(tuple(rng.uniform(0.5, 0.8, 3)), haze, 0.5)
        draw.rectangle((x, horizon - tall, x + wide, horizon + 3), fill=colour)
    for _ in range(int(rng.integers(0, 3))):
        x, tall = rng.uniform(0, width), height * rng.uniform(0.12, 0.35)
        colour = _hazy((0.35, 0.37, 0.40), haze, rng.uniform(0.2, 0.5))
        foot = horizon + tall * 0.15
        truss(draw, (x, foot), (x, foot - tall), tall * 0.18, tall * 0.04, 7, 1, colour)
        for level in (0.75, 0.87, 0.97):
            arm, y = tall * 0.15, foot - tall * level
            draw.line((x - arm, y, x + arm, y), fill=colour, width=1)


def _clutter(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    width: int,
    height: int,
    horizon: float,
    kind: str,
    haze: Colour,
) -> None:
    """Trees (a canopy of them for a forest), bushes, roofs and cars standing on the land, far ones first."""
    count = int(rng.integers(350, 600)) if kind == "forest" else int(rng.integers(0, 25))
    base = np.asarray((rng.uniform(0.20, 0.34), rng.uniform(0.31, 0.42), rng.uniform(0.14, 0.22)))
    top = max(horizon, -0.1 * height)
    ys = np.sort(top + (height * 1.08 - top) * rng.random(count) ** (1.5 if horizon > 0 else 1.0))
    size = rng.uniform(0.05, 0.09) * width
    side = rng.choice([-1, 1])
    for y in ys:
        near = max((y - horizon) / (height - horizon), 0.03)
        r, x = size * near * rng.uniform(0.6, 1.3), rng.uniform(-0.05, 1.05) * width
        far = max(0.0, 0.6 - 2.5 * near) if horizon > 0 else 0.0
        shade = base * rng.uniform(0.75, 1.2)
        crowns = np.zeros((1, 2)) if kind == "forest" else rng.normal(0, 0.55, (4, 2)) * r
        for dx, dy, scale, light in ((-0.25, 0.3, 1.0, 0.5), (0, 0, 1.0, 0.9), (0.25, -0.3, 0.6, 1.2)):
            rr = r * scale * (1.0 if kind == "forest" else 0.7)
            fill = _hazy(shade * light, haze, far)
            for ox, oy in crowns:
                cx, cy = x + ox + side * dx * r, y + 0.6 * oy + dy * r
                draw.ellipse((cx - rr, cy - rr * 0.85, cx + rr, cy + rr * 0.85), fill=fill)
    if kind != "forest":
        for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.35 else 0):
            y = rng.uniform(max(top, 0), height)
            near = max((y - horizon) / (height - horizon), 0.05)
            wide, x = width * rng.uniform(0.05, 0.14) * near, rng.uniform(0, width)
            roof = [(0.75, 0.76, 0.78), (0.62, 0.35, 0.30), (0.45, 0.55, 0.68), (0.85, 0.84, 0.8)]
            colour = np.asarray(roof[int(rng.integers(len(roof)))])
            draw.rectangle((x, y - wide * 0.45, x + wide, y), fill=_hazy(colour * 0.7, haze, 0.1))
            lean = wide * 0.15
            corners = [(x, y - wide * 0.3), (x + lean, y - wide * 0.65), (x + wide + lean, y - wide * 0.65)]
            draw.polygon([*corners, (x + wide, y - wide * 0.3)], fill=_hazy(colour, haze, 0.1))


def _hazy(colour: Sequence[float] | np.ndarray, haze: Colour, share: float) -> tuple[int, int, int]:
    red, green, blue = (
        round(255 * min(max(c + (h - c) * share, 0), 1)) for c, h in zip(colour, haze, strict=True)
    )
    return red, green, blue
