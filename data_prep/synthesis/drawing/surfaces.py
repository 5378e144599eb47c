"""Draw scratches, cracks, stains and pits on a plain surface: steel, tiles, castings."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.synthesis.drawing.drawn import Area, Drawn, ramp, random_field
from data_prep.synthesis.strings import Floats
from llava.common.boxes import Box
from llava.common.masks import Pixels, import_opencv

FINE = 16  # OpenCV draws lines at fractions of a pixel, here sixteenths
LEAST_SIDE = 24  # pixels of a surface, on which anything can be seen
MOST_SIDE = 1200  # pixels of what is drawn at once: in a large photo, a defect is small

Line = list[tuple[float, float]]


def draw_scratches(part: Pixels, chance: Chance) -> tuple[Floats, Floats]:
    """Draw one to four scratches that run nearly in one direction: bright where the metal is bare."""
    height, width = part.shape[:2]
    side = min(height, width)
    along = chance.uniform(0, math.pi) if chance.happens(0.3) else chance.pick((0.0, math.pi / 2))
    share = np.zeros((height, width), np.float32)
    start = chance.uniform(0.25, 0.75) * width, chance.uniform(0.25, 0.75) * height
    for _ in range(chance.integer(1, 5)):
        angle = along + float(chance.normals(0.05, 1)[0])
        length = chance.uniform(0.25, 0.8) * side
        aside = chance.uniform(-0.12, 0.12) * side
        x, y = start[0] - aside * math.sin(along), start[1] + aside * math.cos(along)
        dx, dy = length / 2 * math.cos(angle), length / 2 * math.sin(angle)
        bend = chance.uniform(-0.02, 0.02) * length
        places = np.linspace(-1, 1, 12)
        line = [
            (
                x + t * dx - bend * (1 - t * t) * math.sin(angle),
                y + t * dy + bend * (1 - t * t) * math.cos(angle),
            )
            for t in places.tolist()
        ]
        _stroke(share, line, side * chance.uniform(0.004, 0.016), tapered=True)
    share *= 0.55 + 0.45 * random_field(chance, share.shape, side / 12, 3)
    lighter = not chance.happens(0.2)
    return _shifted(part, chance.uniform(2.5, 4.5) if lighter else -chance.uniform(2, 3)), share


def draw_crack(part: Pixels, chance: Chance) -> tuple[Floats, Floats]:
    """Draw a thin dark crack that wanders, with a branch or two."""
    height, width = part.shape[:2]
    side = min(height, width)
    share = np.zeros((height, width), np.float32)
    thick = max(1.2, side * chance.uniform(0.004, 0.01))
    angle = chance.uniform(0, 2 * math.pi)
    middle = chance.uniform(0.35, 0.65) * width, chance.uniform(0.35, 0.65) * height
    length = chance.uniform(0.3, 0.7) * side
    start = middle[0] - length / 2 * math.cos(angle), middle[1] - length / 2 * math.sin(angle)
    trunk = _wander(chance, start, angle, length)
    _stroke(share, trunk, thick, tapered=True)
    for _ in range(chance.integer(0, 3)):
        fork = trunk[chance.integer(len(trunk) // 4, 3 * len(trunk) // 4)]
        turn = chance.sign() * chance.uniform(0.4, 1.1)
        _stroke(
            share, _wander(chance, fork, angle + turn, length * chance.uniform(0.15, 0.4)), 0.7 * thick, True
        )
    share *= 0.7 + 0.3 * random_field(chance, share.shape, side / 20, 2)
    return _shifted(part, -chance.uniform(2.5, 4)), share


def draw_stain(part: Pixels, chance: Chance) -> tuple[Floats, Floats]:
    """Draw a dark blotch with a ragged edge, through which the surface's grain shows."""
    height, width = part.shape[:2]
    side = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cx, cy = chance.uniform(0.3, 0.7) * width, chance.uniform(0.3, 0.7) * height
    long, flat, angle = (
        side * chance.uniform(0.12, 0.28),
        chance.uniform(0.4, 1.0),
        chance.uniform(0, math.pi),
    )
    u = ((x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)) / long
    v = ((y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)) / (long * flat)
    ragged = random_field(chance, (height, width), long * 0.8, 5) - 0.5
    share = ramp(1.15, 0.8, np.hypot(u, v) + 1.1 * ragged)
    share *= chance.uniform(0.7, 0.95)
    return _shifted(part, -chance.uniform(2, 3.5)), share


def draw_pits(part: Pixels, chance: Chance) -> tuple[Floats, Floats]:
    """Draw small round pits in a cluster: dark, with a lit rim on one side."""
    height, width = part.shape[:2]
    side = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cx, cy = chance.uniform(0.3, 0.7) * width, chance.uniform(0.3, 0.7) * height
    light = chance.uniform(0, 2 * math.pi)
    dark, lit = (np.zeros((height, width), np.float32) for _ in range(2))
    spread = side * chance.uniform(0.04, 0.14)
    for _ in range(chance.pick((1, 3, 8, 20), (0.3, 0.25, 0.25, 0.2))):
        px, py = cx + float(chance.normals(spread, 1)[0]), cy + float(chance.normals(spread, 1)[0])
        radius = max(1.5, side * chance.uniform(0.008, 0.025))
        away = np.hypot(x - px, (y - py) * chance.uniform(0.8, 1.25)) / radius
        dark = np.maximum(dark, ramp(1.1, 0.6, away))
        facing = np.cos(np.arctan2(y - py, x - px) - light)
        lit = np.maximum(lit, ramp(0.35, 0.0, np.abs(away - 1.2)) * ramp(0.2, 0.9, facing) * 0.5)
    colours = np.where((dark >= lit)[..., None], _shifted(part, -3.2), _shifted(part, 2.0))
    return colours.astype(np.float32), np.maximum(dark, lit)


def draw_on_surface(
    draw: Callable[[Pixels, Chance], tuple[Floats, Floats]], pixels: Pixels, box: Box | None, chance: Chance
) -> Drawn | None:
    """Draw within a box, or anywhere in the photo; None where that is too small."""
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = box or (0, 0, width, height)
    left, top = max(0, math.ceil(x1)), max(0, math.ceil(y1))
    across, down = min(width, math.floor(x2)) - left, min(height, math.floor(y2)) - top
    if min(across, down) < LEAST_SIDE:
        return None
    columns, rows = min(across, MOST_SIDE), min(down, MOST_SIDE)
    left, top = left + chance.integer(0, across - columns + 1), top + chance.integer(0, down - rows + 1)
    area: Area = slice(top, top + rows), slice(left, left + columns)
    colours, share = draw(pixels[area], chance)
    # Shares too faint to be seen are left out, or the mask would reach over all of the surface.
    share = np.where(share > 0.06, share, 0).clip(0, 1).astype(np.float32)
    return Drawn(area, colours, share)


def _shifted(part: Pixels, by: float) -> Floats:
    """Return a surface `by` of its own spread darker (below 0) or lighter, its grain still there.

    The shift is at least 36 grey levels, and away from where the surface is as dark, or light, as can be.
    """
    cv2 = import_opencv()
    values = part.astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), 3)
    level, spread = float(smooth.mean()), float((values - smooth).std())
    shift = math.copysign(min(max(36.0, abs(by) * spread), 120.0), by)
    if not 20 <= level + shift <= 245:
        shift = -shift
    return np.asarray((smooth + shift + 0.6 * (values - smooth)).clip(0, 255), np.float32)


def _wander(chance: Chance, start: tuple[float, float], angle: float, length: float) -> Line:
    steps = max(6, round(length / 4))
    turns = np.cumsum(chance.normals(0.35, steps))
    turns -= np.linspace(0, float(turns[-1]), steps)  # it keeps to its direction on the whole
    line = [start]
    for turn in turns.tolist():
        x, y = line[-1]
        line.append(
            (x + length / steps * math.cos(angle + turn), y + length / steps * math.sin(angle + turn))
        )
    return line


def _stroke(share: Floats, line: Line, thick: float, tapered: bool) -> None:
    """Draw a line on shares, in place; it thins out at its ends where `tapered`."""
    cv2 = import_opencv()
    drawn = np.zeros(share.shape, np.uint8)
    for place, (one, other) in enumerate(pairwise(line)):
        part = (place + 0.5) / (len(line) - 1)
        wide = thick * (min(1.0, 4 * min(part, 1 - part)) if tapered else 1)
        ends = [tuple(round(value * FINE) for value in point) for point in (one, other)]
        cv2.line(drawn, ends[0], ends[1], 255, max(1, round(wide)), cv2.LINE_AA, 4)
    np.maximum(share, cv2.GaussianBlur(drawn, (0, 0), 0.6).astype(np.float32) / 255, out=share)
