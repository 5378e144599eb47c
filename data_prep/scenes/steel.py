"""Lattice steel, wires, grading rings and nests: everything that is drawn as lines."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import cosine, hypotenuse, sine
from data_prep.scenes.raster import RGB, Point, Strokes

Bar = Callable[[Point, Point, float, RGB], None]  # draws a line from point to point of a width and colour


def shade(colour: RGB, factor: float) -> RGB:
    red, green, blue = (min(255, max(0, round(c * factor))) for c in colour)
    return red, green, blue


def member(bar: Bar, start: Point, end: Point, width: float, colour: RGB) -> None:
    """One steel angle: a bar with a lit and a dark edge."""
    bar(start, end, max(1, round(width)), shade(colour, 0.62))
    if width < 3:
        return
    dx, dy = end[0] - start[0], end[1] - start[1]
    aside = width * 0.18 / (hypotenuse(dx, dy) or 1.0)
    across = dy * aside, -dx * aside
    if across[1] > 0 or (across[1] == 0 and across[0] > 0):  # the lit edge is the upper one
        across = (-across[0], -across[1])
    lit = (start[0] + across[0], start[1] + across[1]), (end[0] + across[0], end[1] + across[1])
    bar(*lit, max(1, round(width * 0.6)), colour)


def truss(
    bar: Bar,
    start: Point,
    end: Point,
    start_width: float,
    end_width: float,
    panels: int,
    width: float,
    colour: RGB,
) -> None:
    """A lattice girder from `start` to `end`: two chords and crossed braces, `panels` of them."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = hypotenuse(dx, dy) or 1.0

    def chord(t: float, side: int) -> Point:
        half = side * (start_width + (end_width - start_width) * t) / 2 / length
        return start[0] + dx * t - dy * half, start[1] + dy * t + dx * half

    dim, fair = shade(colour, 0.8), shade(colour, 0.9)
    for panel in range(panels):
        t, u = panel / panels, (panel + 1) / panels
        member(bar, chord(t, -1), chord(u, 1), width * 0.6, dim)
        member(bar, chord(t, 1), chord(u, -1), width * 0.6, fair)
        member(bar, chord(u, -1), chord(u, 1), width * 0.6, dim)
    for side in (-1, 1):
        member(bar, chord(0, side), chord(1, side), width, colour)


def wire(strokes: Strokes, start: Point, end: Point, sag: float, width: float, colour: RGB) -> None:
    """A hanging wire: a parabola that lies `sag` pixels below the straight line in its middle."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    pieces = 1 if sag == 0 else 23
    places = [piece / pieces for piece in range(pieces + 1)]
    points = [(start[0] + dx * t, start[1] + dy * t + 4 * sag * t * (1 - t)) for t in places]
    strokes.path(points, max(1, round(width)), colour)


def ring(
    strokes: Strokes, centre: Point, axis: Point, radius: float, flat: float, width: float, colour: RGB
) -> None:
    """A grading ring around the direction `axis` (a unit vector), seen as an ellipse `flat` times as deep."""
    points = []
    for step in range(41):
        angle = step * (2 * math.pi / 40)
        along, across = radius * flat * cosine(angle), radius * sine(angle)
        points.append(
            (centre[0] + axis[0] * along - axis[1] * across, centre[1] + axis[1] * along + axis[0] * across)
        )
    strokes.path(points, round(width), shade(colour, 0.6))
    strokes.path([(x, y - width * 0.2) for x, y in points], max(1, round(width * 0.5)), colour)


def nest(chance: Chance, centre: Point, radius: float, sun_side: float) -> Strokes:
    """A heap of twigs, about 2 x `radius` wide and two thirds as tall.

    `sun_side` (-1..1) is the horizontal direction of the sun: twigs on that side and on top are lighter.
    """
    strokes = Strokes()
    tall = radius * 0.68
    angles = np.arange(24) * (2 * math.pi / 24)
    reach = chance.uniforms(0.8, 1.1, 24)
    xs = (centre[0] + radius * 0.82 * cosine(angles) * reach).tolist()
    ys = (centre[1] + tall * 0.85 * sine(angles) * reach).tolist()
    core = list(zip(xs, ys, strict=True))
    for one, other in zip(core, [*core[1:], core[0]], strict=True):
        strokes.quad((centre, one, other, centre), (52, 40, 28))
    tint = chance.uniform(0.85, 1.2)
    count = chance.integer(170, 260)
    around, reach = chance.uniforms(0, 2 * math.pi, count), np.sqrt(chance.uniforms(0, 1, count))
    x = centre[0] + radius * 0.85 * reach * cosine(around)
    y = centre[1] + tall * 0.85 * reach * sine(around)
    slope, half = chance.normals(0.55, count), radius * chance.uniforms(0.12, 0.36, count)
    light = 0.85 + 0.35 * sun_side * (x - centre[0]) / radius - 0.35 * (y - centre[1]) / tall
    bright = tint * light * chance.uniforms(0.5, 1.35, count)
    dx, dy = half * cosine(slope), half * sine(slope)
    width = radius * chance.uniforms(0.025, 0.06, count)
    for x0, y0, x1, y1, wide, factor in np.stack([x - dx, y - dy, x + dx, y + dy, width, bright], 1).tolist():
        strokes.bar((x0, y0), (x1, y1), max(1, round(wide)), shade((142, 112, 76), factor))
    return strokes
