"""Draw a bird's nest at the end of a component."""

from __future__ import annotations

import math

import numpy as np

from data_prep.scenes.chance import Chance
from data_prep.scenes.raster import SCALE
from data_prep.scenes.steel import nest
from data_prep.synthesis.drawing.drawn import Drawn, ramp
from data_prep.synthesis.strings import Floats, InsulatorString
from llava.common.boxes import Box
from llava.common.masks import Pixels, import_opencv

LEAST = 8  # pixels of a nest's radius, below which it shows no twigs


def draw_nest(pixels: Pixels, box: Box, string: InsulatorString | None, chance: Chance) -> Drawn | None:
    """Draw a nest at the end that is fixed to the tower; None where there is no room for one.

    Without a string it lies on the component's upper edge.
    """
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = box
    if string:
        centre = _arm(pixels, string)
        radius = string.thickness * chance.uniform(0.6, 0.85)
        radius = min(radius, 0.25 * max(x2 - x1, y2 - y1))
        x, y = centre[0], centre[1] - radius * chance.uniform(0.1, 0.4)
    else:
        radius = min(x2 - x1, y2 - y1) * chance.uniform(0.35, 0.6)
        x, y = chance.uniform(x1, x2), y1 + 0.3 * radius
    # Its middle in the component's box, or it would count for no component; all of it in the photo.
    reach = 1.2 * radius
    x = min(max(x, x1, reach), x2, width - reach)
    y = min(max(y, y1, reach), y2, height - reach)
    if radius < LEAST or not (x1 <= x <= x2 and y1 <= y <= y2):
        return None
    side = math.ceil(2 * reach) // 2 * 2 + 2
    left, top = round(x - side / 2), round(y - side / 2)
    area = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    part = pixels[area]
    middle = (side / 2 * SCALE, side / 2 * SCALE)
    layer = nest(chance, middle, radius * SCALE, chance.uniform(-0.9, 0.9)).layer((0, 0, side, side))
    on_black, on_white = (np.full((3, side, side), grey, np.uint8) for grey in (0, 255))
    layer.over(on_black)
    layer.over(on_white)
    cut = slice(area[0].start - top, area[0].stop - top), slice(area[1].start - left, area[1].stop - left)
    black, white = (side.transpose(1, 2, 0)[cut].astype(np.float32) for side in (on_black, on_white))
    share = 1 - (white - black).mean(-1) / 255
    return Drawn(area, *_as_photographed(part, black, share, chance), {"radius": round(radius, 1)})


def _arm(pixels: Pixels, string: InsulatorString) -> tuple[float, float]:
    """Return the tower's end: the upper one of a string that hangs, else that with more edges around it."""
    cv2 = import_opencv()
    run, drop = np.abs(string.middle[-1] - string.middle[0])
    if drop > run:
        x, y = min(string.middle[0], string.middle[-1], key=lambda end: float(end[1]))
        return float(x), float(y)
    reach = max(4, round(string.thickness))
    found = []
    for end in (string.middle[0], string.middle[-1]):
        x, y = round(end[0]), round(end[1])
        part = pixels[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach]
        edges = cv2.Laplacian(part, cv2.CV_32F) if part.size else np.zeros(1)
        found.append((float(np.abs(edges).mean()), (float(end[0]), float(end[1]))))
    return max(found)[1]


def _as_photographed(part: Pixels, twigs: Floats, share: Floats, chance: Chance) -> tuple[Floats, Floats]:
    """Give drawn twigs (premultiplied by their share) the photo's light, sharpness and grain."""
    cv2 = import_opencv()
    grey = part.astype(np.float32).mean(-1)
    blurred = cv2.GaussianBlur(grey, (0, 0), 1.2)
    noise = 1.48 * float(np.median(np.abs(grey - blurred)))  # of the flatter half of what is there
    light = min(max(float(np.quantile(grey, 0.6)) / 125, 0.65), 1.25)
    spread = chance.uniform(0.6, 0.9)
    colours, shares = (cv2.GaussianBlur(values, (0, 0), spread) for values in (twigs, share))
    colours = colours / np.maximum(shares, 1e-3)[..., None]
    grey_twigs = colours.mean(-1, keepdims=True)
    colours = (colours * 0.75 + grey_twigs * 0.25) * light  # drawn twigs are browner than weathered ones
    colours += chance.normals(min(noise, 6.0), grey.shape)[..., None]
    # Twigs that stick out alone are blurred to nothing: what is fainter than that stays the photo's.
    return colours.clip(0, 255).astype(np.float32), (shares * ramp(0.05, 0.25, shares)).astype(np.float32)
