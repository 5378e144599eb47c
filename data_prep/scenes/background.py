"""What lies behind the string: sky, fields, soil, grass, forest, with a horizon or seen from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import cosine, exponential, power, sine
from data_prep.scenes.noise import Array, blur, field, mix, smoothstep, tile
from data_prep.scenes.raster import RGB, Picture, Point
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
ROOFS: Sequence[Colour] = ((0.75, 0.76, 0.78), (0.62, 0.35, 0.30), (0.45, 0.55, 0.68), (0.85, 0.84, 0.8))

_WAVE = sine(np.arange(1024) * (2 * math.pi / 1024)).astype(np.float32)


def background(chance: Chance, width: int, height: int) -> Picture:
    """A picture (3, h, w) of the land or sky behind the string, at the scene's final size."""
    view = chance.pick(("horizon", "above", "sky"), (0.5, 0.35, 0.15))
    if view == "sky":
        return _blurred(chance, _bytes(_sky(chance, height, width, 1.3 * height)))
    horizon = (chance.uniform(0.15, 0.65) if view == "horizon" else -chance.uniform(0.4, 3.0)) * height
    light = chance.uniform(0.9, 1.05)
    haze: Colour = 0.78 * light, 0.81 * light, 0.84 * light
    kind = chance.pick(LAND)
    skyward = math.ceil(horizon) if view == "horizon" else 0  # the first row of land
    land = _land(chance, height, width, horizon, kind, skyward)
    if view == "horizon":
        # Distance fades the land into the haze; above it is the sky.
        rows = np.arange(skyward, height) - horizon
        fade = exponential(-rows / (height * chance.uniform(0.05, 0.16))) * chance.uniform(0.6, 0.95)
        land = mix(land, haze, fade.astype(np.float32)[:, None])
        land = np.concatenate([_sky(chance, skyward, width, horizon), land], axis=1)
    pixels = _bytes(land)
    if view == "horizon":
        _hills(chance, pixels, horizon, haze)
    image = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels])
    draw = ImageDraw.Draw(image)
    if view == "horizon":
        _skyline(chance, draw, width, height, horizon, haze)
    _clutter(chance, draw, width, height, horizon, kind, haze)
    return _blurred(chance, np.stack([np.asarray(channel) for channel in image.split()]))


def _bytes(pixels: Array) -> Picture:
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _blurred(chance: Chance, pixels: Picture) -> Picture:
    """The land is further away than the string: a little out of focus, never sharper."""
    return blur(pixels, chance.uniform(0.4, 1.8))


def _sky(chance: Chance, height: int, width: int, horizon: float) -> Array:
    zenith, low = np.asarray((0.38, 0.58, 0.85)), np.asarray((0.80, 0.87, 0.93))
    if chance.happens(0.45):  # overcast
        zenith = np.asarray((0.96, 0.99, 1.03)) * chance.uniform(0.62, 0.8)
    climb = power(np.clip(1 - np.arange(height) / max(horizon, 1.0), 0, 1), 0.8)
    sky = low[:, None, None] + (zenith - low)[:, None, None] * climb[:, None]
    flat = chance.uniform(1.6, 3.0)  # clouds are wider than tall
    values = field(chance, height, width, width * chance.uniform(0.3, 0.7), 5, flat)
    cloud = values * np.float32(1 / 255)
    cover = smoothstep(chance.uniform(0.4, 0.6), 0.9, cloud) * chance.uniform(0.2, 0.95)
    shade = 0.99 - 0.22 * smoothstep(0.7, 1.0, cloud)
    return mix(sky.astype(np.float32), shade, cover)


def _land(chance: Chance, height: int, width: int, horizon: float, kind: str, first: int) -> Array:
    """Flat ground in perspective, of the rows from `first` on."""
    nearness = np.maximum((np.arange(first, height) - horizon) / (height - horizon), 0.02)[:, None]
    turn = chance.uniform(0, math.pi)
    across, along = np.arange(width) / width - 0.5, max(1.0, 1 - horizon / height)
    # On the ground, in pictures' widths, far from 0 so that whole numbers are rounded one way.
    x = ((cosine(turn) * across + sine(turn) * along) / nearness + 40).astype(np.float32)
    y = ((cosine(turn) * along - sine(turn) * across) / nearness + 40).astype(np.float32)
    near = np.minimum(nearness, 1).astype(np.float32)

    texture = tile(chance, 4, 6).reshape(-1)

    def sample(scale: float) -> Array:
        row, column = ((place * scale).astype(np.int32) & 255 for place in (y, x))
        return texture.take(row << 8 | column) * np.float32(1 / 255)

    def wave(phase: Array) -> Array:
        return _WAVE.take((phase * (1024 / (2 * math.pi))).astype(np.int32) & 1023)

    broad, fine = sample(chance.uniform(60, 110)), sample(chance.uniform(240, 400))
    if kind == "fields":
        wide, deep = chance.uniform(0.35, 0.9), chance.uniform(0.25, 0.6)
        strip = np.floor(x * (1 / wide))
        down = y * (1 / deep) + 0.37 * strip
        block = np.floor(down)
        plot = (strip * 7 + block * 13).astype(np.int32) % 31
        palette = np.asarray([chance.pick(FIELD_COLOURS) for _ in range(31)])
        palette = (palette * chance.uniforms(0.85, 1.15, (31, 1))).T.astype(np.float32)
        ground = np.stack([channel.take(plot) for channel in palette])
        furrow = wave(np.where(plot & 1 == 0, x, y) * chance.uniform(120, 220))
        ground *= 1 + 0.10 * furrow * np.maximum(near - 0.25, 0)
        edge = np.minimum(x * (1 / wide) - strip, down - block)
        ground = mix(ground, (0.48, 0.45, 0.33), (edge < 0.03) * np.float32(0.6))
    else:
        colours = SOIL_COLOURS if kind == "soil" else GRASS_COLOURS
        one, other = (
            np.asarray(colours[place], np.float32)[:, None, None] for place in chance.order(len(colours))[:2]
        )
        ground = mix(one, other, smoothstep(0.3, 0.7, broad))
        if kind == "soil":
            ground *= 1 + 0.07 * wave(x * chance.uniform(90, 200)) * near
            if chance.happens(0.5):  # weeds
                ground = mix(ground, (0.40, 0.47, 0.27), smoothstep(0.55, 0.8, sample(45.0)) * 0.8)
        if kind == "forest":
            ground *= 0.5
    ground *= 0.72 + 0.32 * broad + 0.30 * fine
    if kind != "forest" and chance.happens(0.4):  # a track
        middle = x - (40 + chance.uniform(-0.3, 0.3)) - 0.12 * wave(y * 2.5)
        on = smoothstep(-chance.uniform(0.03, 0.06), -0.02, -np.abs(middle))
        ground = mix(ground, (0.68, 0.62, 0.53), on * 0.8)
    if kind != "forest" and chance.happens(0.2):  # a pond
        wet = smoothstep(0.60, 0.63, sample(chance.uniform(35, 60)))
        ground = mix(ground, chance.pick(((0.52, 0.56, 0.55), (0.47, 0.46, 0.38))), wet)
    return ground


def _hills(chance: Chance, pixels: Picture, horizon: float, haze: Colour) -> None:
    """Hills or far trees along the horizon."""
    height, width = pixels.shape[1:]
    for layer in range(chance.integer(0, 3)):
        rise = field(chance, 4, width, 96, 3)[1] * (height * chance.uniform(0.03, 0.12) / 255) + 2
        top = max(0, math.floor(horizon - float(rise.max())))
        foot = min(height, math.floor(horizon + 2))
        hill = np.arange(top, foot)[:, None] + 0.5 >= horizon - rise
        colour = np.asarray(_hazy((0.33, 0.40, 0.34), haze, 0.8 - 0.25 * layer), np.uint8)
        pixels[:, top:foot] = np.where(hill, colour[:, None, None], pixels[:, top:foot])


def _skyline(
    chance: Chance, draw: ImageDraw.ImageDraw, width: int, height: int, horizon: float, haze: Colour
) -> None:
    """Roofs, and a far tower or two, along the horizon."""

    def line(start: Point, end: Point, width: float, colour: RGB) -> None:
        draw.line([int(value) for value in (*start, *end)], fill=colour)

    for _ in range(chance.integer(0, 12) if chance.happens(0.4) else 0):
        x, wide, tall = chance.uniform(0, width), chance.uniform(6, 26), chance.uniform(4, 20)
        colour = _hazy(chance.uniforms(0.5, 0.8, 3).tolist(), haze, 0.5)
        _rectangle(draw, x, horizon - tall, x + wide, horizon + 3, colour)
    for _ in range(chance.integer(0, 3)):
        x, tall = chance.uniform(0, width), height * chance.uniform(0.12, 0.35)
        colour = _hazy((0.35, 0.37, 0.40), haze, chance.uniform(0.2, 0.5))
        foot = horizon + tall * 0.15
        truss(line, (x, foot), (x, foot - tall), tall * 0.18, tall * 0.04, 7, 1, colour)
        for level in (0.75, 0.87, 0.97):
            arm, y = tall * 0.15, foot - tall * level
            line((x - arm, y), (x + arm, y), 1, colour)


def _clutter(
    chance: Chance,
    draw: ImageDraw.ImageDraw,
    width: int,
    height: int,
    horizon: float,
    kind: str,
    haze: Colour,
) -> None:
    """Trees (a canopy of them for a forest), bushes, roofs and cars standing on the land, far ones first."""
    forest = kind == "forest"
    count = chance.integer(350, 600) if forest else chance.integer(0, 25)
    base = np.asarray((chance.uniform(0.20, 0.34), chance.uniform(0.31, 0.42), chance.uniform(0.14, 0.22)))
    top = max(horizon, -0.1 * height)
    depth = chance.uniforms(0, 1, count)
    y = np.sort(top + (height * 1.08 - top) * (depth * np.sqrt(depth) if horizon > 0 else depth))
    near = np.maximum((y - horizon) / (height - horizon), 0.03)
    size, side = chance.uniform(0.05, 0.09) * width, chance.sign()
    radius, x = size * near * chance.uniforms(0.6, 1.3, count), chance.uniforms(-0.05, 1.05, count) * width
    far = np.maximum(0.0, 0.6 - 2.5 * near) if horizon > 0 else np.zeros(count)
    tone = base[:, None] * chance.uniforms(0.75, 1.2, count)
    crowns = (
        np.zeros((count, 1, 2)) if forest else chance.normals(0.55, (count, 4, 2)) * radius[:, None, None]
    )
    spread = 1.0 if forest else 0.7
    # Each tree is dark discs, then fair and light ones, towards the sun: (tree, light, crown).
    right, down = (np.asarray(offsets)[:, None] for offsets in ((-0.25, 0.0, 0.25), (0.3, 0.0, -0.3)))
    scale, light = np.asarray((1.0, 1.0, 0.6)), np.asarray((0.5, 0.9, 1.2))
    shown, dark = radius[:, None, None], tone[:, :, None] * light
    cx = x[:, None, None] + crowns[:, None, :, 0] + side * right * shown
    cy = y[:, None, None] + 0.6 * crowns[:, None, :, 1] + down * shown
    r = shown * (scale * spread)[:, None]
    corners = np.stack(np.broadcast_arrays(cx - r, cy - r * 0.85, cx + r, cy + r * 0.85), axis=-1)
    hazy = dark + (np.asarray(haze)[:, None, None] - dark) * far[:, None]
    fills = np.moveaxis((255 * np.clip(hazy, 0, 1) + 0.5).astype(np.int64), 0, 2).tolist()
    for tree, fill in zip(corners.astype(np.int64).tolist(), fills, strict=True):
        for discs, colour in zip(tree, fill, strict=True):
            for disc in discs:
                draw.ellipse(disc, fill=tuple(colour))
    if not forest:
        for _ in range(chance.integer(0, 5) if chance.happens(0.35) else 0):
            _roof(chance, draw, width, height, horizon, haze)


def _roof(
    chance: Chance, draw: ImageDraw.ImageDraw, width: int, height: int, horizon: float, haze: Colour
) -> None:
    """A building or a car: a wall, and above it a roof seen a little from the side."""
    y = chance.uniform(max(horizon, 0), height)
    near = max((y - horizon) / (height - horizon), 0.05)
    wide, x = width * chance.uniform(0.05, 0.14) * near, chance.uniform(0, width)
    red, green, blue = chance.pick(ROOFS)
    _rectangle(draw, x, y - wide * 0.45, x + wide, y, _hazy((red * 0.7, green * 0.7, blue * 0.7), haze, 0.1))
    low, high = round(y - wide * 0.3), round(y - wide * 0.65)
    for row in range(high, low + 1):
        lean = x + wide * 0.15 * (low - row) / max(low - high, 1)
        draw.line((round(lean), row, round(lean + wide), row), fill=_hazy((red, green, blue), haze, 0.1))


def _rectangle(draw: ImageDraw.ImageDraw, x1: float, y1: float, x2: float, y2: float, colour: RGB) -> None:
    draw.rectangle((int(x1), int(y1), int(x2), int(y2)), fill=colour)


def _hazy(colour: Sequence[float], haze: Colour, share: float) -> RGB:
    red, green, blue = (
        round(255 * min(max(c + (h - c) * share, 0), 1)) for c, h in zip(colour, haze, strict=True)
    )
    return red, green, blue
