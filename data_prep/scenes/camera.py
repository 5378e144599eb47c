"""What the camera makes of a scene: shadow bands, blur, exposure, colour cast, vignette, noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import cosine, power, sine
from data_prep.scenes.noise import blur, field, smoothstep
from data_prep.scenes.raster import Picture

_LEVELS = 1024  # of brightness before exposure
_PART = 16  # of a grey level: the fineness of noise
_LANES = 0x00FF00FF00FF00FF  # every other byte of a word


def photograph(chance: Chance, picture: Picture) -> Image.Image:
    """The photo of a picture (3, h, w)."""
    if chance.happens(0.35):  # slight shake
        reach, turn = chance.uniform(0.6, 1.6), chance.uniform(0, math.pi)
        moved = _moved(_moved(picture, reach * cosine(turn), 2), reach * sine(turn), 1)
        picture = ((picture.astype(np.uint16) + moved + 1) >> 1).astype(np.uint8)
    picture = blur(picture, chance.uniform(0.0, 0.8))
    _, height, width = picture.shape
    levels = picture * _illumination(chance, height, width) >> 6  # of 1024
    exposed = np.stack(
        [table.take(channel) for table, channel in zip(_exposure(chance), levels, strict=True)]
    )
    exposed += _noise(chance, picture.shape, chance.uniform(0.004, 0.022))
    exposed += _grain(chance, height, width, chance.uniform(0, 0.03))
    np.clip(exposed, 0, 255 * _PART, out=exposed)
    exposed += _PART // 2
    exposed //= _PART
    return Image.merge("RGB", [Image.fromarray(channel) for channel in exposed.astype(np.uint8)])


def _moved(picture: Picture, distance: float, axis: int) -> Picture:
    """The picture a fraction of pixels further on, its edge repeated."""
    sixteenths = round(distance * 16)
    whole, share = divmod(sixteenths, 16)
    places = np.arange(picture.shape[axis]) + whole
    here, there = (
        picture.take(np.clip(places + step, 0, len(places) - 1), axis).astype(np.uint16) for step in (0, 1)
    )
    return ((here * (16 - share) + there * share + 8) >> 4).astype(np.uint8)


def _illumination(chance: Chance, height: int, width: int) -> NDArray[np.uint16]:
    """How much light reaches each pixel (h, w), of 256: less in a band of shadow and towards the corners."""
    y = (np.arange(height, dtype=np.float32) * (2 / (height - 1)) - 1)[:, None]
    x = np.arange(width, dtype=np.float32) * (2 / (width - 1)) - 1
    light = np.ones((height, width), np.float32)
    if chance.happens(0.25):  # the shadow of a member or of a cloud's edge
        turn, place = chance.uniform(0, math.pi), chance.uniform(-0.6, 0.6)
        away = np.abs(x * cosine(turn) + (y * sine(turn) - place))
        reach = chance.uniform(0.08, 0.3)
        light -= chance.uniform(0.2, 0.45) * (1 - smoothstep(reach - 0.09, reach + 0.09, away))
    light *= 1 - chance.uniform(0, 0.2) / 2 * (x * x + y * y)
    return (light * 256).astype(np.uint16)


def _exposure(chance: Chance) -> NDArray[np.int16]:
    """What each channel (3,) makes of each level of light: haze, white balance, exposure, contrast."""
    level = np.arange(_LEVELS) / (255 * 4)
    haze = chance.uniform(0, 0.14)
    cast = chance.uniforms(0.93, 1.07, 3) * chance.uniform(0.85, 1.15)
    values = np.clip((level * (1 - haze) + haze * 0.85) * cast[:, None], 0, 1)
    return (power(values, chance.uniform(0.85, 1.15)) * (255 * _PART) + 0.5).astype(np.int16)


def _noise(chance: Chance, shape: tuple[int, ...], deviation: float) -> NDArray[np.int16]:
    """Noise of each pixel and channel, about normal: the sum of four random bytes."""
    count = math.prod(shape)
    words = chance.words(count // 2 + 2)
    pairs = words & _LANES
    words >>= 8
    words &= _LANES
    pairs += words  # sums of two bytes, four of them in a word
    half = len(pairs) // 2
    pairs[:half] += pairs[half : 2 * half]
    noise = pairs[:half].view(np.int16)[:count].reshape(shape)
    # Four bytes add up to 510 on average, with a deviation of 147.8.
    noise -= 510
    noise *= round(deviation * 255 * _PART / 147.8 * 64)
    noise >>= 6
    return noise


def _grain(chance: Chance, height: int, width: int, strength: float) -> NDArray[np.int16]:
    """Coarser noise, the same in all channels (h, w)."""
    values = field(chance, height, width, 3, 1).astype(np.int16) - 128
    return np.asarray(values * round(strength * _PART * 64) >> 6, np.int16)
