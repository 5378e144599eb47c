"""Straighten a string: fit its sagging middle line and its width, and sample the photo along it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from llava.oddone.result import Array, Axis, Box, Point

LAB_SCALE = np.array([2.55, 1.5, 1.5], np.float32)
UNIT = 24  # columns of the strip to a unit
REACH = 4.5  # periods on each side of the axis, in which the string's width is looked for
SAGS_FROM = 12  # periods: shorter strings are straight
BEYOND = 3  # periods by which the strip is longer than the axis at each end: windows miss the outer units


@dataclass(frozen=True)
class Course:
    """A parabola in the photo along which a strip runs.

    A strip's pixel (x, y) lies x / scale along the chord from `start`, and y - middle / scale across it.
    """

    start: Point
    direction: Point
    length: float  # of the chord, in pixels of the photo
    bend: tuple[float, float, float]  # of the parabola, pixels of the photo by fraction of the chord
    scale: float  # pixels of the strip to a pixel of the photo
    above: int  # rows of the strip above the line
    below: int

    @property
    def columns(self) -> int:
        return max(1, round(self.length * self.scale))

    def to_photo(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return where pixels of the strip lie in the photo."""
        along = x / self.scale
        part = along / self.length
        a, b, c = self.bend
        across = (y - self.above) / self.scale
        slope = (2 * a * part + b) / self.length
        # Across is square to the parabola, not to its chord.
        steep = np.sqrt(1 + slope * slope)
        along, across = along - across * slope / steep, a * part * part + b * part + c + across / steep
        (x0, y0), (ux, uy) = self.start, self.direction
        return x0 + along * ux - across * uy, y0 + along * uy + across * ux

    def outline(self, left: float, right: float, top: float, bottom: float) -> list[Point]:
        """Return the corners, in the photo, of a rectangle of the strip."""
        x, y = self.to_photo(np.array([left, right, right, left]), np.array([top, top, bottom, bottom]))
        return list(zip(x.tolist(), y.tolist(), strict=True))

    def sample(self, photo: Array) -> Array:
        """Return the strip, float32 Lab; columns outside the photo repeat its edge."""
        x, y = np.meshgrid(np.arange(self.columns), np.arange(self.above + self.below))
        left, top = self.to_photo(x.astype(np.float32), y.astype(np.float32))
        # OpenCV's remap takes up to 32767 pixels a side: cut out the part that is needed, shrunk where
        # the strip is coarser than the photo.
        x0, y0 = max(0, math.floor(left.min()) - 2), max(0, math.floor(top.min()) - 2)
        x1, y1 = math.ceil(left.max()) + 3, math.ceil(top.max()) + 3
        part = photo[y0:y1, x0:x1]
        shrink = min(1.0, 1.5 * self.scale)
        if shrink < 1:
            part = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        left, top = (left - x0) * shrink, (top - y0) * shrink
        strip = cv2.remap(
            part,
            left.astype(np.float32),
            top.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return to_lab(strip)


def to_lab(rgb: Array) -> Array:
    """Return RGB bytes as float32 Lab, all three channels in about the range of grey levels."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return lab * LAB_SCALE


def to_rgb(lab: Array) -> Array:
    """Undo `to_lab`."""
    rgb = cv2.cvtColor(lab / LAB_SCALE, cv2.COLOR_Lab2RGB)
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8)


def lay_course(photo: Array, axis: Axis, box: Box) -> Course:
    """Fit the middle line of the string that runs along an axis; the course is wider than the string.

    Args:
        photo: RGB bytes (h, w, 3).
        axis: Where the string runs, roughly.
        box: The part of the photo that the strip may not leave lengthwise.
    """
    course = _along(axis, box, photo.shape[:2])
    for _ in range(2):
        course = _bent(course, _energy(course.sample(photo)))
    return course


def _along(axis: Axis, box: Box, size: tuple[int, int]) -> Course:
    """Lay a course through the axis, longer at both ends but within the box."""
    points = np.array(axis.points)
    chord = points[-1] - points[0]
    length = float(np.hypot(*chord))
    ux, uy = chord / length
    along = (points - points[0]) @ (ux, uy)
    across = (points - points[0]) @ (-uy, ux)
    bend = np.polyfit(along, across, 2 if length > SAGS_FROM * axis.period else 1)
    spare = BEYOND * axis.period
    height, width = size
    slack = axis.period / 2  # a box that is tight may cut the last units
    box = (
        max(0, box[0] - slack),
        max(0, box[1] - slack),
        min(width, box[2] + slack),
        min(height, box[3] + slack),
    )
    first = -min(spare, _room(points[0], (-ux, -uy), box))
    last = length + min(spare, _room(points[-1], (ux, uy), box))
    start = (float(points[0][0] + ux * first), float(points[0][1] + uy * first))
    whole = last - first
    along = np.linspace(first, last, 16)
    a, b, c = np.polyfit((along - first) / whole, np.polyval(bend, along), 2)
    rows = round(REACH * UNIT)
    return Course(
        start,
        (float(ux), float(uy)),
        float(whole),
        (float(a), float(b), float(c)),
        UNIT / axis.period,
        rows,
        rows,
    )


def _room(point: Array, direction: Point, box: Box) -> float:
    """Return how far one can go from a point before leaving the box."""
    room = math.inf
    for place, way, low, high in zip(point, direction, box[:2], box[2:], strict=True):
        if abs(way) > 1e-6:
            room = min(room, ((high if way > 0 else low) - place) / way)
    return max(0.0, room)


def demodulated(strip: Array, sigma: float) -> Array:
    """Return the complex amplitude of each row at the strip's period, (h, w, channels), smoothed along x."""
    detail = strip - smooth_along(strip, UNIT)
    x = np.arange(strip.shape[1], dtype=np.float32) * (2 * math.pi / UNIT)
    real, imaginary = (
        smooth_along((detail * wave[None, :, None]).astype(np.float32), sigma)
        for wave in (np.cos(x), -np.sin(x))
    )
    return real + 1j * imaginary


def smooth_along(rows: Array, sigma: float) -> Array:
    """Smooth along x as a Gaussian does, about: two box filters are as fast for any sigma."""
    size = 2 * round(2.45 * sigma / 2) + 1
    return cv2.blur(cv2.blur(rows, (size, 1)), (size, 1))


def _energy(strip: Array) -> Array:
    """Return the strength of the period at each pixel of the strip."""
    return (np.abs(demodulated(strip, 1.5 * UNIT)) ** 2).sum(-1)


def _bent(course: Course, energy: Array) -> Course:
    """Move the course to the middle of the periodic energy."""
    rows = np.arange(len(energy)) - course.above
    near = np.exp(-0.5 * (rows / (2.0 * UNIT)) ** 2)
    weight = np.sqrt(energy) * near[:, None]
    weight = (weight - np.quantile(weight, 0.5, axis=0)).clip(0) ** 2
    mass = weight.sum(0)
    middle = (weight * rows[:, None]).sum(0) / (mass + 1e-6) / course.scale
    part = np.arange(course.columns) / course.columns
    use = mass > 0.1 * np.median(mass)
    if use.sum() <= 3:  # nothing periodic is left beside the line
        return course
    degree = 2 if course.columns > (SAGS_FROM + 2 * BEYOND) * UNIT else 1
    for _ in range(2):
        fit = np.polyfit(part[use], middle[use], degree, w=np.sqrt(mass[use]))
        off = np.abs(np.polyval(fit, part) - middle)
        use &= off < 2.5 * np.median(off[use]) + 1
    a, b, c = (float(old + new) for old, new in zip(course.bend, [0.0, *fit][-3:], strict=True))
    return replace(course, bend=(a, b, c))


def narrow(course: Course, strength: Array) -> Course:
    """Cut a course down to the rows where the string is.

    Args:
        course: A course that is wider than the string.
        strength: How strong the string's period is in each of its rows.
    """
    rows = np.arange(len(strength)) - course.above
    peak = int((strength * np.exp(-0.5 * (rows / (2 * UNIT)) ** 2)).argmax())
    strong = strength > 0.25 * strength[peak]
    gap = round(0.75 * UNIT)  # between two strings side by side
    top = bottom = peak
    while (up := np.flatnonzero(strong[max(0, top - gap) : top])).size:
        top = max(0, top - gap) + int(up[0])
    while (down := np.flatnonzero(strong[bottom + 1 : bottom + 1 + gap])).size:
        bottom += 1 + int(down[-1])
    top, bottom = min(top, peak - UNIT // 2), max(bottom, peak + UNIT // 2)  # one unit at the least
    spare = round(0.1 * UNIT)
    return replace(course, above=course.above - top + spare, below=bottom + 1 - course.above + spare)
