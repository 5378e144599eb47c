"""Lattice steel, wires, grading rings and nests: everything that is drawn as lines."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw

Point = tuple[float, float]
RGB = tuple[int, int, int]


def shade(colour: RGB, factor: float) -> RGB:
    red, green, blue = (min(255, max(0, round(c * factor))) for c in colour)
    return red, green, blue


def member(draw: ImageDraw.ImageDraw, start: Point, end: Point, width: float, colour: RGB) -> None:
    """One steel angle: a bar with a lit and a dark edge."""
    draw.line((*start, *end), fill=shade(colour, 0.62), width=max(1, round(width)))
    if width < 3:
        return
    length = math.dist(start, end) or 1.0
    across = ((end[1] - start[1]) / length, -(end[0] - start[0]) / length)
    if across[1] > 0 or (across[1] == 0 and across[0] > 0):  # the lit edge is the upper one
        across = (-across[0], -across[1])
    dx, dy = across[0] * width * 0.18, across[1] * width * 0.18
    lit = (start[0] + dx, start[1] + dy, end[0] + dx, end[1] + dy)
    draw.line(lit, fill=colour, width=max(1, round(width * 0.6)))


def truss(
    draw: ImageDraw.ImageDraw,
    start: Point,
    end: Point,
    start_width: float,
    end_width: float,
    panels: int,
    width: float,
    colour: RGB,
) -> None:
    """A lattice girder from `start` to `end`: two chords and crossed braces, `panels` of them."""
    length = math.dist(start, end) or 1.0
    along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)

    def chord(t: float, side: int) -> Point:
        half = side * (start_width + (end_width - start_width) * t) / 2
        return (
            start[0] + along[0] * length * t - along[1] * half,
            start[1] + along[1] * length * t + along[0] * half,
        )

    dim = shade(colour, 0.8)
    for panel in range(panels):
        t, u = panel / panels, (panel + 1) / panels
        member(draw, chord(t, -1), chord(u, 1), width * 0.6, dim)
        member(draw, chord(t, 1), chord(u, -1), width * 0.6, shade(colour, 0.9))
        member(draw, chord(u, -1), chord(u, 1), width * 0.6, dim)
    for side in (-1, 1):
        member(draw, chord(0, side), chord(1, side), width, colour)


def wire(draw: ImageDraw.ImageDraw, start: Point, end: Point, sag: float, width: float, colour: RGB) -> None:
    """A hanging wire: a parabola that lies `sag` pixels below the straight line in its middle."""
    points = [
        (start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t + 4 * sag * t * (1 - t))
        for t in np.linspace(0, 1, 24)
    ]
    draw.line(points, fill=colour, width=max(1, round(width)), joint="curve")


def ring(
    draw: ImageDraw.ImageDraw,
    centre: Point,
    axis: Point,
    radius: float,
    flat: float,
    width: float,
    colour: RGB,
) -> None:
    """A grading ring around the direction `axis` (a unit vector), seen as an ellipse `flat` times as deep."""
    points = []
    for angle in np.linspace(0, 2 * math.pi, 40):
        along, across = radius * flat * math.cos(angle), radius * math.sin(angle)
        points.append(
            (centre[0] + axis[0] * along - axis[1] * across, centre[1] + axis[1] * along + axis[0] * across)
        )
    draw.line(points, fill=shade(colour, 0.6), width=round(width), joint="curve")
    draw.line([(x, y - width * 0.2) for x, y in points], fill=colour, width=max(1, round(width * 0.5)))


def nest(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    mask: ImageDraw.ImageDraw,
    centre: Point,
    radius: float,
    sun_side: float,
) -> None:
    """A heap of twigs, about 2 x `radius` wide and two thirds as tall, drawn alike on picture and mask.

    `sun_side` (-1..1) is the horizontal direction of the sun: twigs on that side and on top are lighter.
    """
    tall = radius * 0.68

    def stroke(start: Point, end: Point, width: float, colour: RGB) -> None:
        draw.line((*start, *end), fill=colour, width=max(1, round(width)))
        mask.line((*start, *end), fill=255, width=max(1, round(width)))

    core = [
        (
            centre[0] + radius * 0.82 * math.cos(a) * r,
            centre[1] + tall * 0.85 * math.sin(a) * r,
        )
        for a, r in zip(np.linspace(0, 2 * math.pi, 25)[:-1], rng.uniform(0.8, 1.1, 24), strict=True)
    ]
    draw.polygon(core, fill=(52, 40, 28))
    mask.polygon(core, fill=255)
    tint = rng.uniform(0.85, 1.2)
    for _ in range(int(rng.integers(170, 260))):
        around, reach = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
        x = centre[0] + radius * 0.85 * reach * math.cos(around)
        y = centre[1] + tall * 0.85 * reach * math.sin(around)
        slope, half = rng.normal(0, 0.55), radius * rng.uniform(0.12, 0.36)
        light = 0.85 + 0.35 * sun_side * (x - centre[0]) / radius - 0.35 * (y - centre[1]) / tall
        brown = shade((142, 112, 76), tint * light * rng.uniform(0.5, 1.35))
        dx, dy = half * math.cos(slope), half * math.sin(slope)
        stroke((x - dx, y - dy), (x + dx, y + dy), radius * rng.uniform(0.025, 0.06), brown)
