"""Drawing at twice the picture's size and laying the result over the picture, in exact arithmetic.

A picture is planar, (3, h, w) bytes. What is drawn on it is a layer of its own, at `SCALE` times the size,
packed into 32 bits a pixel and premultiplied by its alpha; the layer is reduced and laid over the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_prep.scenes.exact import hypotenuse

Point = tuple[float, float]
RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]
Picture = NDArray[np.uint8]
Packed = NDArray[np.uint32]
Indices = NDArray[np.intp]

SCALE = 2  # pixels drawn per final pixel, each way
_LANES = 0x00FF00FF  # two bytes of a pixel's four, with room for sums and products beside each
_PAIRS = 0x00FF00FF00FF00FF  # of two pixels'
_SHOWN = 85  # of 255: pixels that are covered by a third or more belong to a box


def pack(
    red: NDArray[np.generic],
    green: NDArray[np.generic],
    blue: NDArray[np.generic],
    alpha: NDArray[np.generic],
) -> Packed:
    """Bytes, one pixel each, as 32-bit pixels."""
    r, g, b, a = (channel.astype(np.uint32) for channel in (red, green, blue, alpha))
    return np.asarray(r | g << 8 | b << 16 | a << 24, np.uint32)


def runs(first: Indices, stop: Indices) -> tuple[Indices, Indices]:
    """The numbers of many runs, `first` to `stop` - 1 each: which run each belongs to, and the numbers."""
    counts = np.maximum(stop - first, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    return owner, np.arange(len(owner)) - np.repeat(ends - counts - first, counts)


def cover(shapes: NDArray[np.float64], width: int, height: int) -> tuple[Indices, Indices, Indices]:
    """The pixels of convex shapes, those whose centre lies inside.

    Args:
        shapes: The corners, (shapes, corners, 2) as x and y.
        width: Of the canvas; what lies beyond is left out.
        height: Of the canvas.

    Returns:
        The shape, the column and the row of each pixel, in the order of the shapes.
    """
    x, y = shapes[..., 0], shapes[..., 1]
    shape, row = runs(_first_centre(y.min(axis=1), height), _first_centre(y.max(axis=1), height))
    centre = row + 0.5
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for corner in range(x.shape[1]):
        x0, y0, x1, y1 = x[:, corner - 1], y[:, corner - 1], x[:, corner], y[:, corner]
        rise = y1 - y0
        slope = (x1 - x0) / np.where(rise == 0, 1.0, rise)
        below = centre - y0[shape]
        crosses = (below >= np.minimum(rise, 0)[shape]) & (below < np.maximum(rise, 0)[shape])
        crossing = x0[shape] + below * slope[shape]
        np.minimum(left, crossing, out=left, where=crosses)
        np.maximum(right, crossing, out=right, where=crosses)
    span, column = runs(_first_centre(left, width), _first_centre(right, width))
    return shape[span], column, row[span]


def _first_centre(place: NDArray[np.float64], limit: int) -> Indices:
    """The first pixel whose centre is not before `place`, 0 to `limit`."""
    return np.clip(np.ceil(place - 0.5), 0, limit).astype(np.intp)


@dataclass
class Strokes:
    """Bars and other convex shapes, painted all at once, later ones over earlier ones."""

    shapes: list[tuple[Point, Point, Point, Point]] = field(default_factory=list)
    colours: list[RGB] = field(default_factory=list)

    def quad(self, corners: tuple[Point, Point, Point, Point], colour: RGB) -> None:
        self.shapes.append(corners)
        self.colours.append(colour)

    def bar(self, start: Point, end: Point, width: float, colour: RGB) -> None:
        """A thick line with blunt ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        half = width / 2 / (hypotenuse(dx, dy) or 1.0)
        ox, oy = -dy * half, dx * half
        (ax, ay), (bx, by) = start, end
        self.quad(((ax + ox, ay + oy), (bx + ox, by + oy), (bx - ox, by - oy), (ax - ox, ay - oy)), colour)

    def path(self, points: Sequence[Point], width: float, colour: RGB) -> None:
        """A thick line through `points`, its pieces a little longer than their distance to close bends."""
        for (ax, ay), (bx, by) in pairwise(points):
            more = 0.15 * width / (hypotenuse(bx - ax, by - ay) or 1.0)
            dx, dy = (bx - ax) * more, (by - ay) * more
            self.bar((ax - dx, ay - dy), (bx + dx, by + dy), width, colour)

    def layer(self, box: Box) -> Layer:
        """What is painted within `box`, in final pixels."""
        layer = Layer.empty(box)
        if self.shapes:
            height, width = layer.pixels.shape
            corners = np.asarray(self.shapes) - np.asarray((box[0] * SCALE, box[1] * SCALE), np.float64)
            shape, column, row = cover(corners, width, height)
            r, g, b = np.asarray(self.colours, np.uint32).T
            layer.pixels.reshape(-1)[row * width + column] = pack(r, g, b, np.full_like(r, 255))[shape]
        return layer


@dataclass
class Layer:
    """Packed, premultiplied pixels over the part `box` of the picture, `SCALE` for each of its pixels."""

    box: Box
    pixels: Packed

    @staticmethod
    def empty(box: Box) -> Layer:
        return Layer(box, np.zeros(((box[3] - box[1]) * SCALE, (box[2] - box[0]) * SCALE), np.uint32))

    def over(self, picture: Picture) -> Box | None:
        """Lay the layer on `picture`, in place; return the box of what it covers by a third or more."""
        x1, y1, _, _ = self.box
        # Two pixels side by side are one number; only where a block of 2 x 2 shows anything is work to do.
        width = self.pixels.shape[1] // 2
        pairs = self.pixels.view(np.uint64)
        block = np.flatnonzero(pairs[::2] | pairs[1::2])
        row = block // width
        column = block - row * width
        upper, lower = (pairs.reshape(-1)[block + (row + side) * width] for side in (0, 1))
        odd, even = (_summed((upper >> shift & _PAIRS) + (lower >> shift & _PAIRS)) for shift in (0, 8))
        red, green, blue, alpha = (
            channel.astype(np.uint16) for channel in (odd & 0xFF, even & 0xFF, odd >> 16, even >> 16)
        )
        place = (row + y1) * picture.shape[2] + (column + x1)
        for channel, own in zip(picture.reshape(3, -1), (red, green, blue), strict=True):
            under = channel[place] * (255 - alpha) + np.uint16(128)
            channel[place] = np.minimum((under + (under >> 8) >> 8) + own, 255)
        shown = alpha >= _SHOWN
        if not shown.any():
            return None
        row, column = row[shown] + y1, column[shown] + x1
        return int(column.min()), int(row[0]), int(column.max()) + 1, int(row[-1]) + 1


def _summed(pairs: NDArray[np.uint64]) -> Packed:
    """The mean of the 2 x 2 pixels whose rows are added up in `pairs`, for two of their bytes."""
    return np.asarray(((pairs + (pairs >> 32)).astype(np.uint32) + 0x00020002) >> 2 & _LANES, np.uint32)


@dataclass(frozen=True)
class Projection:
    """Where a flat picture lies on the canvas: `matrix` takes (u, v, 1) to (x, y, 1) times a depth."""

    matrix: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

    @staticmethod
    def of_strip(
        width: float, height: float, ends: tuple[Point, Point], zooms: tuple[float, float]
    ) -> Projection:
        """A flat strip's middle line goes from end to end; at each it is magnified by the end's zoom."""
        (ax, ay), (bx, by) = ends
        near, far = 1 / zooms[0], 1 / zooms[1]
        length = hypotenuse(bx - ax, by - ay)
        dx, dy = -(by - ay) / length, (bx - ax) / length  # down across the strip
        return Projection(
            (
                ((bx * far - ax * near) / width, dx, ax * near - dx * height / 2),
                ((by * far - ay * near) / width, dy, ay * near - dy * height / 2),
                ((far - near) / width, 0.0, near),
            )
        )

    def points(self, flat: Sequence[Point]) -> list[Point]:
        placed = []
        for u, v in flat:
            x, y, depth = (a * u + b * v + c for a, b, c in self.matrix)
            placed.append((x / depth, y / depth))
        return placed

    def pixels(self, flat_box: Box, width: int, height: int) -> Projected:
        """The pixels of a (width, height) canvas that show the box (u1, v1, u2, v2) of the flat picture."""
        u1, v1, u2, v2 = flat_box
        corners = self.points([(u1, v1), (u2, v1), (u2, v2), (u1, v2)])
        _, column, row = cover(np.asarray([corners]), width, height)
        (a, b, c), (d, e, f), (g, h, i) = self.matrix
        # The inverse of the matrix, but for a factor that cancels.
        lines = (
            (e * i - f * h, c * h - b * i, b * f - c * e),
            (f * g - d * i, a * i - c * g, c * d - a * f),
            (d * h - e * g, b * g - a * h, a * e - b * d),
        )
        scale = 1 / lines[2][2]
        x, y = column.astype(np.float32), np.arange(height) + 0.5
        u, v, depth = (
            x * (p * scale) + ((y * q + (p * 0.5 + r)) * scale).astype(np.float32).take(row)
            for p, q, r in lines
        )
        place = row * width + column
        return Projected(place, np.asarray(u / depth, np.float32), np.asarray(v / depth, np.float32))


@dataclass(frozen=True)
class Projected:
    """Pixels of the canvas, all (pixels,), and the point of the flat picture in each one's centre."""

    place: Indices  # in the canvas, row by row
    u: NDArray[np.float32]
    v: NDArray[np.float32]

    def draw(self, flat: Packed, canvas: Packed) -> None:
        """Draw the flat picture on the canvas, bilinear. Its border is empty."""
        height, width = flat.shape
        u = (np.clip(self.u - 0.5, 0, width - 1.01) * 256).astype(np.int32)
        v = (np.clip(self.v - 0.5, 0, height - 1.01) * 256).astype(np.int32)
        corner = ((v >> 8) * width + (u >> 8)).astype(np.intp)
        # Whether any of four pixels shows the string: half of the canvas's do not.
        shown = flat != 0
        shown[:, :-1] |= shown[:, 1:]
        shown[:-1] |= shown[1:]
        some = np.flatnonzero(shown.reshape(-1).take(corner))
        corner, u, v = corner[some], (u[some] & 255).view(np.uint32), (v[some] & 255).view(np.uint32)
        pixels = flat.reshape(-1)
        one, two, three, four = (pixels.take(corner + step) for step in (0, 1, width, width + 1))
        result = np.zeros(len(some), np.uint32)
        for shift in (0, 8):
            top = _between(one >> shift & _LANES, two >> shift & _LANES, u)
            low = _between(three >> shift & _LANES, four >> shift & _LANES, u)
            result |= _between(top, low, v) << shift
        canvas.reshape(-1)[self.place[some]] = result

    def mark(self, flat: NDArray[np.bool_], canvas: NDArray[np.uint8]) -> None:
        """Set the canvas to 1 where the mask `flat` is set."""
        height, width = flat.shape
        u = np.clip(self.u, 0, width - 1).astype(np.int32)
        v = np.clip(self.v, 0, height - 1).astype(np.int32)
        canvas.reshape(-1)[self.place[flat.reshape(-1)[v * width + u]]] = 1


def _between(first: Packed, second: Packed, share: Packed) -> Packed:
    """Two lanes of bytes, mixed by `share` (of 256) of the second."""
    return np.asarray((first * (256 - share) + second * share) >> 8 & _LANES, np.uint32)


def bounds(shown: NDArray[np.bool_]) -> Box | None:
    """The box (x1, y1, x2, y2) of what is shown, if anything is."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
