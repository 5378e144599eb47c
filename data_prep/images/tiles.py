"""Overlapping tiles that cover a very large picture, and the way back from a tile to the picture.

The rules, in pixels of the upright picture: tiles are squares of one side, spread evenly so that the first
begins where the picture does and the last ends where it ends; a side that is shorter than a tile is taken
whole. A box is cut at the tile's edge. It stays if the tile shows at least the share `min_visible` of what
a tile of that size could show of it at most (an insulator longer than a tile is fully seen by each tile that
it runs through). A tile in which less of an object is seen is left out: it would be called sound.
"""

from __future__ import annotations

from math import ceil

from data_prep.recipe.schema import Tiles
from llava.common.boxes import Box


def grid(size: tuple[int, int], rule: Tiles) -> list[Box]:
    """The tiles of a picture of `size` (width, height), row by row; all have whole pixels and one size."""
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
    """How much of `box` is in `tile`, 0..1, as a share of what a tile of its size could show at most. 0 for
    less than a pixel of a box that is wider."""
    seen = 1.0
    for low, high in ((0, 2), (1, 3)):
        length = box[high] - box[low]
        overlap = min(box[high], tile[high]) - max(box[low], tile[low])
        most = min(length, tile[high] - tile[low])
        if overlap < min(1.0, most):
            return 0.0
        seen *= min(1.0, overlap / most)
    return seen


def cut(box: Box, tile: Box) -> Box:
    """The part of `box` in `tile`, in pixels of the tile."""
    x1, y1 = max(box[0], tile[0]), max(box[1], tile[1])
    x2, y2 = min(box[2], tile[2]), min(box[3], tile[3])
    return x1 - tile[0], y1 - tile[1], x2 - tile[0], y2 - tile[1]


def to_image(box: Box, crop: Box, size: tuple[int, int]) -> Box:
    """A box on a crop or tile that was written at `size` (width, height) -> on its picture, of which it shows
    `crop`."""
    x, y = (crop[2] - crop[0]) / size[0], (crop[3] - crop[1]) / size[1]
    return crop[0] + box[0] * x, crop[1] + box[1] * y, crop[0] + box[2] * x, crop[1] + box[3] * y
