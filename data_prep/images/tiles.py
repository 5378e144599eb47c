"""Cover a very large image with overlapping tiles, and convert boxes between a tile and its image.

The rules, in pixels of the upright image: tiles are squares of one side, spread evenly so that the first
begins where the image does and the last ends where it ends; a side that is shorter than a tile is not cut. A
box is cut at the tile's edge. It stays if the tile shows at least the share `min_visible` of what a tile of
that size could show of it at most (an insulator longer than a tile is fully visible in each tile that it runs
through). A tile that shows less of an object is left out: it would be called sound.
"""

from __future__ import annotations

from math import ceil

from data_prep.recipe.schema import Tiles
from llava.common.boxes import Box


def grid(size: tuple[int, int], rule: Tiles) -> list[Box]:
    """Return the tiles of an image of `size` (width, height), row by row, in whole pixels and of one size."""
    across, down = (_spread(length, rule) for length in size)
    return [(x1, y1, x2, y2) for y1, y2 in down for x1, x2 in across]


def _spread(length: int, rule: Tiles) -> list[tuple[float, float]]:
    if length <= rule.side:
        return [(0.0, float(length))]
    rest = length - rule.side
    step = max(1, rule.side - ceil(rule.overlap * rule.side))  # at most, so that the overlap is at least
    last = ceil(rest / step)
    starts = [number * rest // last for number in range(last + 1)]
    return [(float(start), float(start + rule.side)) for start in starts]


def visible(box: Box, tile: Box) -> float:
    """Return how much of `box` is in `tile`, 0..1, as a share of what a tile of its size could show at most.

    It is 0 for less than a pixel of a box that is wider.
    """
    fraction = 1.0
    for low, high in ((0, 2), (1, 3)):
        length = box[high] - box[low]
        overlap = min(box[high], tile[high]) - max(box[low], tile[low])
        maximum = min(length, tile[high] - tile[low])
        if overlap < min(1.0, maximum):
            return 0.0
        fraction *= min(1.0, overlap / maximum)
    return fraction


def cut(box: Box, tile: Box) -> Box:
    """Return the part of `box` in `tile`, in pixels of the tile."""
    x1, y1 = max(box[0], tile[0]), max(box[1], tile[1])
    x2, y2 = min(box[2], tile[2]), min(box[3], tile[3])
    return x1 - tile[0], y1 - tile[1], x2 - tile[0], y2 - tile[1]


def to_image(box: Box, crop: Box, size: tuple[int, int]) -> Box:
    """Return a box on a crop or tile in pixels of its source image.

    `size` is the (width, height) at which the crop was written, `crop` the part of the image that it shows.
    """
    x, y = (crop[2] - crop[0]) / size[0], (crop[3] - crop[1]) / size[1]
    return crop[0] + box[0] * x, crop[1] + box[1] * y, crop[0] + box[2] * x, crop[1] + box[3] * y
