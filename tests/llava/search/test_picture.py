"""The pictures of a search, of photos of any shape: they come last, and an error would lose the search."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from llava.search.picture import CROP_SIDE, HEAT_SIDE, OUTLINE, crop_picture, heat_picture
from llava.search.result import Found, SearchResult


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (5000, 1), (20000, 2), (3, 4000), (700, 7)])
def test_a_photo_of_any_shape_has_pictures(size: tuple[int, int]) -> None:
    photo = Image.new("RGB", size)
    middle = tuple(length // 2 for length in size)
    boxes = [(0, 0, *size), (*middle, *size), (*middle, middle[0] + 1, middle[1] + 1)]
    result = SearchResult("a star", size, 1, found=tuple(Found(box, 0.5) for box in boxes))
    assert max(heat_picture(photo, np.full((1, 1), 0.5, np.float32), result).size) <= HEAT_SIDE
    for place in result.found:
        assert max(crop_picture(photo, place).size) <= CROP_SIDE


def test_a_place_is_outlined_where_it_lies_in_its_crop() -> None:
    photo = Image.new("RGB", (4000, 1000))
    crop = crop_picture(photo, Found((1000, 0, 3000, 1000), 0.5))  # with 500 pixels on the left and the right
    white = np.argwhere((np.asarray(crop) == OUTLINE).all(axis=2))
    assert crop.size == (640, 213)
    assert white.min(0).tolist() == [0, round(500 * 640 / 3000)]
    assert white.max(0).tolist() == [212, round(2500 * 640 / 3000) - 1]
