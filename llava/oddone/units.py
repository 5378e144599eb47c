"""Cut a straightened string into its units: the local period, and where one unit ends."""

from __future__ import annotations

import cv2
import numpy as np

from llava.oddone.result import Array
from llava.oddone.straighten import UNIT, demodulated, smooth_along

CHUNK = 5  # units
TWICE_FROM = 12
"""Units, from which twice the period may be the true one: in a shorter string one unit that is absent makes
every second look more alike than every one."""


def local_phase(strip: Array, weight: Array) -> Array:
    """Return the phase of each column, in units: it grows by one from a unit to the next.

    The phase is that of the rows' common advance (complex demodulation), so that rows may be shifted against
    each other, as they are on slanted discs and in two strings side by side.

    Args:
        strip: (h, w, channels).
        weight: (h,) how much each row counts.
    """
    place = np.arange(strip.shape[1], dtype=np.float64)
    phase = place / UNIT
    for sigma in (1.0, 2.0):
        source, level = even_units(strip, phase)
        wave = demodulated(level, sigma * UNIT)
        advance = ((wave[:, 1:] * wave[:, :-1].conj()).sum(2) * weight[:, None] ** 2).sum(0)
        real, imaginary = (smooth_along(part[None], sigma * UNIT)[0] for part in (advance.real, advance.imag))
        error = np.arctan2(imaginary, real) / (2 * np.pi)
        limit = 0.35 / UNIT
        even = np.arange(len(source)) / UNIT
        corrected = even + np.concatenate([[0], np.cumsum(error.clip(-limit, limit))])
        phase = np.interp(place, source, corrected)
    return phase


def even_units(strip: Array, phase: Array) -> tuple[Array, Array]:
    """Resample a strip so that all units have UNIT columns; return also the columns that were taken."""
    even = np.arange(int(phase[-1] * UNIT) + 1) / UNIT
    source = np.interp(even, phase, np.arange(len(phase))).astype(np.float32)
    rows = np.arange(len(strip), dtype=np.float32)[:, None]
    level = cv2.remap(
        strip, np.tile(source, (len(strip), 1)), np.tile(rows, (1, len(source))), cv2.INTER_LINEAR
    )
    return source, level


def row_strength(level: Array) -> Array:
    """Return how strong the period is in each row of a strip with even units.

    Waves are summed over CHUNK units: the string's keep step, those of a tower behind it do not.
    """
    wave = demodulated(level, 0.3 * UNIT)
    chunks = np.array_split(wave, max(1, level.shape[1] // (CHUNK * UNIT)), axis=1)
    strength = np.median([_in_step(chunk) for chunk in chunks], axis=0)
    return cv2.GaussianBlur(np.sqrt(strength)[:, None], (1, 7), 1.5)[:, 0]


def _in_step(wave: Array) -> Array:
    """Return the power of each row that is in step over CHUNK units, less what is in step by chance."""
    common = np.abs(wave.mean(1)) ** 2
    chance = (np.abs(wave) ** 2).mean(1) / CHUNK
    return (common - chance).sum(-1).clip(0)


def true_period(level: Array, weight: Array) -> float:
    """Return the period of a strip with even units, in units: 2 or 0.5 where the units are not right."""
    detail = (level - smooth_along(level, 1.5 * UNIT)) * weight[:, None, None]

    def alike(lag: int) -> float:
        one, other = detail[:, lag:], detail[:, :-lag]
        return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-6))

    if level.shape[1] < 4 * UNIT:
        return 1.0
    half, whole, double = (alike(lag) for lag in (UNIT // 2, UNIT, 2 * UNIT))
    if double > whole + 0.15 and level.shape[1] >= TWICE_FROM * UNIT:
        return 2.0
    return 0.5 if half > whole - 0.05 else 1.0


def active_units(level: Array, weight: Array, cut_phase: Array) -> tuple[int, int]:
    """Return the first unit of the string and the last plus one.

    From the middle outwards, each unit is compared with those before it; the string ends before three units
    that are not in step with them.
    """
    middles = ((cut_phase[:-1] + cut_phase[1:]) / 2 * UNIT).round().astype(int).clip(0, level.shape[1] - 1)
    waves = (demodulated(level, 0.5 * UNIT) * weight[:, None, None])[:, middles].transpose(1, 0, 2)
    count = len(waves)
    agree = np.zeros(count)
    for unit in range(count):
        inner = range(unit + 1, unit + 1 + CHUNK) if unit < count / 2 else range(unit - CHUNK, unit)
        pattern = waves[[other for other in inner if 0 <= other < count]].mean(0)
        agree[unit] = (waves[unit] * pattern.conj()).real.sum() / (np.linalg.norm(pattern) + 1e-6)
    middle = count // 2
    active = agree > 0.25 * np.median(agree[max(0, middle - CHUNK) : middle + CHUNK])
    ends = []
    for outwards in (active[middle:], active[:middle][::-1]):
        last = 0
        for place, is_active in enumerate(outwards):
            if is_active:
                last = place + 1
            elif place - last >= 2:
                break
        ends.append(last)
    return middle - ends[1], middle + ends[0]


def cut_phases(level: Array, weight: Array) -> Array:
    """Return the phases at which units of a strip with even units are cut: between the discs.

    What repeats is alike in all units; between discs one sees what lies behind, which is not.
    """
    count = level.shape[1] // UNIT
    units = cv2.GaussianBlur(level, (0, 0), 1)[:, : count * UNIT].reshape(len(level), count, UNIT, -1)
    middle = np.median(units, axis=1, keepdims=True)
    spread = np.median(np.abs(units - middle), axis=1).sum(-1)  # (rows, UNIT)
    smooth = np.fft.irfft(np.fft.rfft((spread * weight[:, None]).sum(0))[:3], UNIT)
    start = int(smooth.argmax()) / UNIT
    return np.arange(int(level.shape[1] / UNIT - start) + 1) + start
