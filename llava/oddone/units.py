"""Cut a straightened string into its units: the local period, and where one unit ends."""

from __future__ import annotations

import cv2
import numpy as np

from llava.oddone.result import Array
from llava.oddone.straighten import UNIT, demodulated

PHASES = 24  # places within a unit at which it may be cut


def local_phase(strip: Array) -> Array:
    """Return the phase of each column, in units: it grows by one from a unit to the next.

    The phase is that of the rows' common advance (complex demodulation), so that rows may be shifted against
    each other, as they are on slanted discs and in two strings side by side.
    """
    columns = strip.shape[1]
    place = np.arange(columns, dtype=np.float64)
    phase = place / UNIT
    for sigma in (1.0, 2.0):
        # Columns at equal steps of the phase so far; what is left of the advance is its error.
        even = np.arange(int(phase[-1] * UNIT) + 1) / UNIT
        source = np.interp(even, phase, place).astype(np.float32)
        level = cv2.remap(
            strip, np.tile(source, (len(strip), 1)), np.tile(np.arange(len(strip), dtype=np.float32)[:, None], (1, len(source))), cv2.INTER_LINEAR
        )
        wave = demodulated(level, sigma * UNIT)
        advance = (wave[:, 1:] * wave[:, :-1].conj()).sum((0, 2))
        advance = cv2.GaussianBlur(advance.real[None], (0, 0), sigma * UNIT) + 1j * cv2.GaussianBlur(
            advance.imag[None], (0, 0), sigma * UNIT
        )
        error = np.angle(advance[0]) / (2 * np.pi)
        limit = 0.35 / UNIT
        corrected = even + np.concatenate([[0], np.cumsum(error.clip(-limit, limit))])
        phase = np.interp(place, source, corrected)
    return phase


def cut_columns(strip: Array, phase: Array) -> Array:
    """Return the columns at which units are cut: between the discs.

    What repeats is alike in all units; between discs one sees what lies behind, which is not.
    """
    place = np.arange(strip.shape[1])
    count = int(phase[-1])
    grid = (np.arange(count)[:, None] + np.arange(PHASES)[None] / PHASES).clip(phase[0], phase[-1])
    columns = np.interp(grid, phase, place).round().astype(int)
    units = cv2.GaussianBlur(strip, (0, 0), 1)[:, columns]  # (rows, units, PHASES, channels)
    middle = np.median(units, axis=1, keepdims=True)
    spread = np.median(np.abs(units - middle), axis=1).sum(-1).mean(0)  # (PHASES,)
    smooth = np.fft.irfft(np.fft.rfft(spread)[:3], PHASES)
    start = int(smooth.argmax()) / PHASES
    cuts = np.arange(np.ceil(phase[0] - start), np.floor(phase[-1] - start) + 1) + start
    return np.interp(cuts, phase, place)
