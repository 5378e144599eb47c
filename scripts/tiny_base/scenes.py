"""Generic scenes that the embedded base model learns to see and to talk about: shapes, colours, rows.

Nothing here is an insulator. A scene holds either a few simple shapes or a row of repeated elements that
may have a gap, a broken, an odd or a stained element, a dull run, or a tangle of lines; questions.py asks
about it. Scene `index` of seed `seed` is a pure function of both. Besides its picture a scene carries dense
labels: for each of the vision tower's patches, which shapes, colours and row conditions lie in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter

from tiny_base.canvas import (
    CHANNELS,
    COLOURS,
    CONDITIONS,
    PLACES,
    SCALE,
    SHAPES,
    SIZE,
    Canvas,
    background,
    colour_behind,
    distinct_colour,
    outline,
    paint_of,
    shade,
    turn,
)
from tiny_base.rows import Row, draw_row


@dataclass
class Thing:
    """A shape on its own: its name, colour and box (x1, y1, x2, y2) in pixels of the SIZE x SIZE picture."""

    shape: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass
class Scene:
    image: Image.Image
    labels: np.ndarray  # (GRID, GRID, len(CHANNELS)) bool
    things: list[Thing] = field(default_factory=list)
    row: Row | None = None


def place_name(box: tuple[float, float, float, float]) -> str:
    """Which of the nine PLACES the centre of `box` lies in."""
    column = min(2, max(0, int((box[0] + box[2]) / 2 * 3 / SIZE)))
    line = min(2, max(0, int((box[1] + box[3]) / 2 * 3 / SIZE)))
    return PLACES[3 * line + column]


def _draw_shape(
    canvas: Canvas, shape: str, colour: str, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> Thing:
    angle = float(rng.normal(0, 0.15)) + (float(rng.uniform(0, math.pi)) if shape == "bar" else 0.0)
    points = turn(outline(shape), angle) * radius + centre
    paint = paint_of(colour, rng)
    labels = {"kind": 1 + CHANNELS.index(shape), "colour": 1 + CHANNELS.index(colour)}
    if shape == "ring":
        hole = (points - centre) * 0.55 + centre
        band = np.concatenate([points, points[:1], hole[:1], hole[:0:-1], hole[:1]])
        canvas.polygon(band, paint, **labels)
    else:
        canvas.polygon(points, paint, **labels)
        if rng.random() < 0.5:  # a lighter or darker inner part, so that flat paint is no cue
            inner = (points - centre) * 0.6 + centre + rng.normal(0, 0.08 * radius, 2)
            canvas.draw.polygon(
                [(x * SCALE, y * SCALE) for x, y in inner.tolist()],
                fill=shade(paint, float(rng.uniform(0.85, 1.15))),
            )
    low, high = points.min(0), points.max(0)
    return Thing(shape, colour, (float(low[0]), float(low[1]), float(high[0]), float(high[1])))


def _draw_things(canvas: Canvas, rng: np.random.Generator, most: int, taken: list[Thing]) -> list[Thing]:
    things: list[Thing] = []
    for _ in range(most):
        radius = float(rng.uniform(8, 24))
        for _attempt in range(12):
            centre = rng.uniform(radius + 1, SIZE - radius - 1, 2)
            apart = all(
                max(abs(centre[0] - (t.box[0] + t.box[2]) / 2), abs(centre[1] - (t.box[1] + t.box[3]) / 2))
                > radius + 2 + max(t.box[2] - t.box[0], t.box[3] - t.box[1]) / 2
                for t in [*things, *taken]
            )
            if apart:
                break
        else:
            continue
        colour = distinct_colour(colour_behind(canvas.image, *centre), rng, tuple(COLOURS))
        things.append(_draw_shape(canvas, str(rng.choice(SHAPES)), colour, centre, radius, rng))
    return things


def render(seed: int, index: int, *, close: bool = False, crowded: bool = False) -> Scene:
    """Scene `index` of `seed`: rows (most with a condition) or shapes.

    By default 6 of 10 are rows with every condition alike; `close` scenes are mostly rows seen from nearer,
    with more of the three conditions that only a comparison with the other elements shows. Behind most rows
    of a `crowded` scene lie shapes, which its dense labels know and its `things` do not.
    """
    rng = np.random.default_rng((seed, index))
    canvas = Canvas(background(rng))
    row: Row | None = None
    things: list[Thing] = []
    if rng.random() < (0.85 if close else 0.6):
        if rng.random() < 0.15:
            draw_row(canvas, rng, None, plain=True)
        if crowded and rng.random() < 0.7:
            _draw_things(canvas, rng, int(rng.integers(1, 5)), [])
        shares = (0.26, 0.26, 0.24, 0.08, 0.08, 0.08) if close else None
        condition = str(rng.choice(CONDITIONS, p=shares)) if rng.random() < (0.8 if close else 0.7) else None
        row = draw_row(canvas, rng, condition, close=close)
    else:
        things = _draw_things(canvas, rng, int(rng.integers(1, 5)), [])
    image = canvas.image
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 1.6))))
    image = image.reduce(SCALE)
    if rng.random() < 0.6:
        sigma = float(rng.uniform(2, 12))
        grain = rng.integers(-128, 128, (SIZE, SIZE), dtype=np.int8).astype(np.float32) * (sigma / 74)
        image = Image.fromarray(
            np.clip(np.asarray(image, np.float32) + grain[..., None], 0, 255).astype(np.uint8)
        )
    return Scene(image, canvas.dense(), things, row)
