"""Find where a string may run: lines along which the picture repeats itself.

The picture is turned by every angle. In each row of each turned picture, windows are compared with themselves
shifted (autocorrelation A): along a string of period p, A(p) and A(2p) are high and A(p/2) and A(1.5p) low.
Windows are linked to lines from left to right, each a row or a step of the period away from the last, so that
sagging strings and angles between the steps are followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

from llava.oddone.result import Array, Axis, Point

SIDE = 640  # pixels of the longer side, at which the finest search is made
LEVELS = (1.0, 0.5, 0.25)  # scales of the search, for periods up to SHORTEST..LONGEST divided by each
ANGLES = np.arange(-90, 90, 7.5)  # degrees
WINDOW, HOP = 128, 32  # pixels of a window, and from one to the next
SHORTEST, LONGEST = 6, 30  # pixels of a period: windows hold four of the longest
PERIODS = np.geomspace(SHORTEST, LONGEST, 24)
ROW_STEP = 3
NOISE = 9.0  # variance in grey levels that is taken for noise: flat sky and JPEG's blocks are no string
LEAST = 1.8 * np.sqrt(PERIODS / WINDOW).astype(np.float32)
"""Of the comb score (4 for a pure wave): less than that takes from a line. The fewer periods a window holds, the
more alike its parts are by chance."""
FEWEST = 3  # periods of a line
ASIDE = 3  # periods from a line, where a string has ended on one side at least
MOST = 6  # candidates


@dataclass(frozen=True)
class _Line:
    points: Array  # (n, 2) in pixels of the search picture
    period: float
    score: float


def find_axes(lab: Array, origin: Point, scale: float) -> list[Axis]:
    """Find the lines along which a picture is periodic, best first.

    Args:
        lab: float32 (h, w, 3), the part of the photo to search.
        origin: Where its corner lies in the photo.
        scale: Its pixels per pixel of the photo.
    """
    lines = [line for level in LEVELS for line in _lines_at(lab, level)]
    kept: list[_Line] = []
    for line in sorted(lines, key=lambda line: -line.score):
        if not any(_same(line, other) for other in kept):
            kept.append(line)
        if len(kept) == MOST:
            break
    return [
        Axis(
            [(float(x) / scale + origin[0], float(y) / scale + origin[1]) for x, y in line.points],
            line.period / scale,
            line.score,
        )
        for line in kept
    ]


def _lines_at(lab: Array, level: float) -> list[_Line]:
    height, width = (max(1, round(side * level)) for side in lab.shape[:2])
    if max(height, width) < WINDOW // 2:
        return []
    small = cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA)
    # What changes more slowly than the longest period is light and land, not units.
    detail = small - cv2.GaussianBlur(small, (0, 0), LONGEST / 2)
    lines = []
    for angle in ANGLES:
        turned, back = _turn(detail, angle)
        for points, period, score in _trace(_comb_scores(turned)):
            x, y = points[:, 0], points[:, 1]
            placed = np.stack([x, y, np.ones_like(x)], 1) @ back.T
            lines.append(_Line(placed / level, period / level, score / level))
    return lines


def _turn(picture: Array, angle: float) -> tuple[Array, Array]:
    """Turn a picture so that lines at `angle` become rows; return it with the matrix that leads back."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    across, down = math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos)
    across = max(across, WINDOW)
    matrix[:, 2] += (across - width) / 2, (down - height) / 2
    turned = cv2.warpAffine(picture, matrix, (across, down), flags=cv2.INTER_LINEAR)
    return turned, cv2.invertAffineTransform(matrix)


_TAPER = np.hanning(WINDOW).astype(np.float32)
_TAPER_LAGS = np.correlate(_TAPER, _TAPER, "full")[WINDOW - 1 :]


def _comb_scores(turned: Array) -> Array:
    """Return how periodic each window is: (windows, rows, PERIODS)."""
    rows = cv2.blur(turned, (1, 3))[::ROW_STEP]
    windows = sliding_window_view(rows, WINDOW, axis=1)[:, ::HOP]  # (rows, windows, channels, WINDOW)
    # Windows without detail (sky, what lies outside the picture) are not looked at.
    detail = cv2.blur((rows * rows).sum(-1), (WINDOW, 1))[:, WINDOW // 2 :: HOP][:, : windows.shape[1]]
    used = cv2.dilate((detail > NOISE).astype(np.uint8), np.ones((3, 1), np.uint8)).astype(bool)
    power = np.zeros((*used.shape, WINDOW + 1), np.float32)
    if used.any():
        spectrum = fft.rfft(windows[used] * _TAPER, 2 * WINDOW, axis=-1)  # (used, channels, frequencies)
        power[used] = (spectrum.real**2 + spectrum.imag**2).sum(1)
        power = cv2.blur(power.reshape(len(power), -1), (1, 3)).reshape(power.shape)
    scores = np.zeros((*used.shape, len(PERIODS)), np.float32)
    lags = fft.irfft(power[used], axis=-1)[..., :WINDOW] / _TAPER_LAGS.clip(_TAPER_LAGS[0] * 0.02)
    lags /= lags[..., :1] + NOISE

    def at(places: Array) -> Array:
        low = places.astype(int)
        part = (places - low).astype(np.float32)
        return lags[..., low] * (1 - part) + lags[..., low + 1] * part

    scores[used] = at(PERIODS) - at(PERIODS / 2) + at(PERIODS * 2) - at(PERIODS * 1.5)
    return _narrow_only(scores).transpose(1, 0, 2)


def _narrow_only(scores: Array) -> Array:
    """Take away what is as periodic on both sides: fields, roofs and fences are wide, a string is not."""
    narrow = scores.copy()
    for place, period in enumerate(PERIODS):
        away = round(ASIDE * period / ROW_STEP)
        padded = np.pad(scores[:, :, place], ((away, away), (0, 0)))
        both = np.minimum(padded[: -2 * away], padded[2 * away :])
        narrow[:, :, place] -= both.clip(0)
    return narrow


def _trace(scores: Array, most: int = 3) -> list[tuple[Array, float, float]]:
    """Link windows to the lines of the highest sums; return points, period and score of each."""
    total = np.empty_like(scores)
    best = np.zeros(scores.shape[1:], np.float32)
    step = np.ones((3, 3), np.uint8)
    for window, score in enumerate(scores):
        before = cv2.dilate(best, step) if window else best
        best = np.maximum(before, 0) + score - LEAST[None]
        total[window] = best
    found = []
    for _ in range(most):
        last = tuple(int(place) for place in np.unravel_index(total.argmax(), total.shape))
        value = float(total[last])
        if value <= 0:
            break
        path = _backtrack(total, scores, *last)
        points = np.array([(w * HOP + WINDOW / 2, r * ROW_STEP) for w, r, _ in path], np.float32)
        # The outer windows reach beyond their middles.
        reach = np.array([[WINDOW / 4, 0]], np.float32)
        points = np.vstack([points[:1] - reach, points, points[-1:] + reach])
        period_px = float(np.median(PERIODS[[p for _, _, p in path]]))
        if points[-1, 0] - points[0, 0] >= FEWEST * period_px:
            found.append((points, period_px, value * HOP))
        for w, r, _ in path:
            total[w, max(0, r - 6) : r + 7] = -1
    return found


def _backtrack(total: Array, scores: Array, window: int, row: int, period: int) -> list[tuple[int, int, int]]:
    path = [(window, row, period)]
    while window > 0 and total[window, row, period] > scores[window, row, period] - LEAST[period] + 1e-6:
        window -= 1
        top, left = max(0, row - 1), max(0, period - 1)
        near = total[window, top : row + 2, left : period + 2]
        down, right = np.unravel_index(int(near.argmax()), near.shape)
        if near[down, right] <= 0:
            break
        row, period = top + int(down), left + int(right)
        path.append((window, row, period))
    return path[::-1]


def _same(one: _Line, other: _Line) -> bool:
    """Whether a line runs along another, of any period: most of its points lie near it."""
    near = max(one.period, other.period, 8)
    distances = np.abs(one.points[:, None] - _dense(other.points)[None]).max(-1).min(1)
    return bool((distances < near).mean() > 0.5)


def _dense(points: Array) -> Array:
    places = np.linspace(0, len(points) - 1, 12 * len(points))
    along = np.arange(len(points))
    return np.stack([np.interp(places, along, points[:, axis]) for axis in (0, 1)], 1)
