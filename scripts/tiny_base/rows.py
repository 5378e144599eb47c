"""Rows of repeated elements; some have a gap, a broken, odd or stained element, a dull run or a tangle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tiny_base.canvas import (
    CHANNELS,
    COLOURS,
    SCALE,
    SIZE,
    Canvas,
    colour_behind,
    distinct_colour,
    paint_of,
    scaled,
    shade,
    turn,
)

ELEMENTS = ("ellipse", "slab", "lens", "cone", "ball", "fin")


def _element(kind: str, width: float, depth: float) -> np.ndarray:
    """An element's outline (N, 2): x along the row (+-`depth`), y across it (+-`width`)."""
    angle = np.linspace(0, 2 * math.pi, 18, endpoint=False)
    if kind in ("ellipse", "ball"):
        unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    elif kind == "slab":
        unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
    elif kind == "lens":
        unit = np.array([(-1, 0), (-0.3, -1), (0.3, -1), (1, 0), (0.3, 1), (-0.3, 1)])
    elif kind == "cone":
        unit = np.array([(-1, -0.35), (0.7, -1), (1, -0.9), (1, 0.9), (0.7, 1), (-1, 0.35)])
    else:  # fin: thin, leaning
        unit = np.array([(-0.9, -1), (-0.1, -1), (0.9, 1), (0.1, 1)])
    return unit * (depth, width)


def blob_outline(centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * math.pi, 9, endpoint=False)
    reach = radius * rng.uniform(0.5, 1.2, 9)
    return centre + np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1)


@dataclass
class Row:
    """A row of `count` repeated elements; `condition` is None for a whole row, `box` is its place."""

    shape: str
    colour: str
    count: int
    condition: str | None
    box: tuple[float, float, float, float] | None


@dataclass
class _RowStyle:
    """How a row looks; lengths in pixels of the scene."""

    kind: str
    colour: str
    paint: tuple[int, ...]
    angle: float
    pitch: float
    depth: float
    width: float
    axis: np.ndarray
    across: np.ndarray
    centres: list[np.ndarray]
    condition: str | None
    affected: range
    highlight: float
    outlined: bool
    tiers: bool  # a smaller second ring on every element
    dull_paint: np.ndarray
    dull_share: float
    labels: dict[str, int]


def draw_row(
    canvas: Canvas,
    rng: np.random.Generator,
    condition: str | None,
    *,
    plain: bool = False,
    close: bool = False,
) -> Row:
    """Draw a row of elements along a rod.

    Args:
        canvas: Where to draw.
        rng: The source of chance; the order of its draws is part of what a seed means.
        condition: What is wrong with some of the elements, None for nothing.
        plain: Draw a row in the background: sound, and not labelled as the subject.
        close: Draw it as seen from nearer: longer, with broader elements.
    """
    style = _draw_rod(canvas, rng, condition, plain, close)
    count = len(style.centres)
    marked: list[np.ndarray] = []
    order = range(count) if rng.random() < 0.5 else range(count - 1, -1, -1)
    for index in order:
        marked += _draw_element(canvas, rng, style, index)
    if condition == "tangle":
        marked.append(_draw_tangle(canvas, rng, style.centres))
    if plain or condition is None:
        return Row(style.kind, style.colour, count, None, None)
    for points in marked:
        canvas.label(points, condition=1 + CHANNELS.index(condition))
    everything = np.concatenate(marked)
    low, high = everything.min(0), everything.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Row(style.kind, style.colour, count, condition, box)


def _draw_rod(
    canvas: Canvas, rng: np.random.Generator, condition: str | None, plain: bool, close: bool
) -> _RowStyle:
    """Choose a row's place and style, and draw the rod that its elements sit on."""
    angle = float(rng.uniform(0, math.pi * 2))
    count = int(rng.integers(5, 11 if close else 12))
    length = (
        float(rng.uniform(100, 150))
        if close
        else float(rng.uniform(60, 130) if plain else rng.uniform(75, 140))
    )
    pitch = length / count
    axis = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-axis[1], axis[0]])
    middle = np.array([SIZE / 2, SIZE / 2]) + rng.uniform(-1, 1, 2) * max(3.0, (SIZE - length) / 3)
    kind = str(rng.choice(ELEMENTS))
    depth = max(1.8, pitch * float(rng.uniform(0.26, 0.5)))
    width = depth * (1.0 if kind == "ball" else float(rng.uniform(1.3, 3.2)))
    width = min(max(width, 7.0 if close else 6.0), 26.0)
    colour = distinct_colour(colour_behind(canvas.image, *middle), rng, tuple(COLOURS))
    paint = paint_of(colour, rng)
    rod = shade(paint_of(str(rng.choice(["gray", "black", "brown", "white"])), rng), 0.9)
    bend = float(rng.normal(0, 0.02)) * length
    centres = []
    for i in range(count):
        t = (i - (count - 1) / 2) / count
        centres.append(middle + axis * t * length + across * bend * (4 * t * t))
    if not plain:
        sides = [np.array([c + side * across * width for c in centres]) for side in (1, -1)]
        canvas.label(np.concatenate([sides[0], sides[1][::-1]]), band=1 + CHANNELS.index("row"))
    start, stop = middle - axis * length * 0.56, middle + axis * length * 0.56
    has_rod = rng.random() < 0.8
    rod_width = max(1, int(SCALE * float(rng.uniform(0.6, 2.2))))
    if has_rod:
        reach = float(rng.choice([1.0, 1.0, 2.5]))
        ends = [middle + (start - middle) * reach, *centres, middle + (stop - middle) * reach]
        canvas.draw.line(scaled(np.array(ends)), fill=rod, width=rod_width)
    return _RowStyle(
        kind, colour, paint, angle, pitch, depth, width, axis, across, centres, condition,
        affected=_affected(rng, condition, count),
        highlight=float(rng.uniform(1.05, 1.45)),
        outlined=rng.random() < 0.4,
        tiers=rng.random() < 0.35,
        dull_paint=np.array(paint_of(str(rng.choice(["brown", "gray", "black"])), rng), dtype=np.float32),
        dull_share=float(rng.uniform(0.45, 0.75)),
        labels={} if plain else {"kind": 1 + CHANNELS.index("element"), "colour": 1 + CHANNELS.index(colour)},
    )  # fmt: skip


def _affected(rng: np.random.Generator, condition: str | None, count: int) -> range:
    """Choose the elements that a condition shows on."""
    victim = int(rng.integers(1, count - 1)) if condition == "gap" else int(rng.integers(0, count))
    run = {"stained": int(rng.integers(1, 3)), "dull": int(rng.integers(3, count + 1))}.get(
        condition or "", 1
    )
    first = max(0, min(victim, count - run))
    return range(0) if condition in (None, "tangle") else range(first, first + run)


def _draw_element(canvas: Canvas, rng: np.random.Generator, style: _RowStyle, index: int) -> list[np.ndarray]:
    """Draw one element; return the outlines of what its condition changed."""
    condition = style.condition if index in style.affected else None
    centre = style.centres[index]
    shape = _element(style.kind, style.width, style.depth)
    fill = style.paint
    marked = []
    if condition == "gap":
        return [turn(_element("slab", style.width, style.pitch * 0.5), style.angle) + centre]
    if condition == "odd":
        if rng.random() < 0.5:
            fill = paint_of(distinct_colour(style.paint, rng, tuple(COLOURS)), rng)
        else:
            others = [kind for kind in ELEMENTS if kind != style.kind]
            shape = _element(str(rng.choice(others)), style.width, style.depth)
            shape = shape * float(rng.choice([0.5, 1.45]))
    if condition == "dull":
        share = style.dull_share
        fill = tuple(int(v) for v in (1 - share) * np.array(style.paint) + share * style.dull_paint)
    if condition == "broken":
        shape, lost = _broken(rng, shape, style.width)
        marked.append(turn(lost, style.angle) + centre)
    points = turn(shape, style.angle) + centre
    canvas.polygon(points, fill, **style.labels)
    if style.outlined:
        canvas.draw.line(scaled(np.array([*points, points[0]])), fill=shade(fill, 0.6), width=1)
    if condition != "broken":
        inner = shape * (0.45, 0.7) - np.array([style.depth * 0.2, style.width * 0.1])
        inner = turn(inner, style.angle) + centre
        canvas.draw.polygon(scaled(inner), fill=shade(fill, style.highlight))
        if style.tiers:
            core = turn(shape * (0.9, 0.4), style.angle) + centre
            canvas.draw.polygon(scaled(core), fill=shade(fill, 0.75))
    if condition in ("odd", "dull"):
        marked.append(points)
    if condition == "stained":
        marked += _draw_stains(canvas, rng, style, centre)
    return marked


def _broken(rng: np.random.Generator, shape: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Break an element's outline (N, 2) off at one side; return what is left and what is lost."""
    side = float(rng.choice([-1, 1]))
    keep = float(rng.uniform(-0.35, 0.25))  # where across the element it broke off
    ragged = side * shape[:, 1] > keep * width
    lost = shape.copy()
    lost[~ragged, 1] = side * keep * width
    left = shape.copy()
    left[ragged, 1] = side * (keep * width + rng.normal(0, 0.12 * width, ragged.sum()))
    return left, lost


def _draw_stains(
    canvas: Canvas, rng: np.random.Generator, style: _RowStyle, centre: np.ndarray
) -> list[np.ndarray]:
    dark = shade(paint_of(str(rng.choice(["black", "brown", "black", "white"])), rng), 0.9)
    blobs = []
    for _ in range(int(rng.integers(2, 5))):
        spot = (
            centre
            + style.axis * rng.uniform(-0.7, 0.7) * style.depth
            + style.across * rng.uniform(-0.8, 0.8) * style.width
        )
        blob = blob_outline(spot, max(2.2, float(rng.uniform(0.3, 0.6)) * min(style.width, 9.0)), rng)
        canvas.polygon(blob, dark)
        blobs.append(blob)
    return blobs


def _draw_tangle(canvas: Canvas, rng: np.random.Generator, centres: list[np.ndarray]) -> np.ndarray:
    """Draw a tangle of lines over a row; return its outline."""
    count = len(centres)
    centre = centres[int(rng.choice([0, count - 1, int(rng.integers(0, count))]))]
    radius = float(rng.uniform(8, 17))
    dark = paint_of(str(rng.choice(["brown", "black", "gray"])), rng)
    for _ in range(int(rng.integers(25, 55))):
        a, b = rng.normal(0, radius * 0.55, (2, 2)) + centre
        line = [*(a * SCALE).tolist(), *((a + (b - a) * 0.8) * SCALE).tolist()]
        canvas.draw.line(line, fill=shade(dark, float(rng.uniform(0.6, 1.5))), width=int(rng.integers(1, 4)))
    return (
        blob_outline(centre, radius, rng) * 0.5
        + centre * 0.5
        + (blob_outline(centre, radius, rng) - centre) * 0.5
    )
