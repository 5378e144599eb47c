"""Points are found in pictures of all kinds, and none where nothing is to be seen."""

import numpy as np
import pytest
from PIL import Image

from data_prep.images.points import POINT, find_points


@pytest.mark.parametrize("size", [(48, 48), (90, 100), (48, 2048), (2048, 2048), (640, 61)])
def test_a_picture_that_shows_nothing_has_no_points(size: tuple[int, int]) -> None:
    assert find_points(Image.new("RGB", size)) == b""


@pytest.mark.parametrize("size", [(48, 48), (90, 100), (48, 2048), (2048, 2048), (640, 61), (200, 200)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_points_lie_within_the_picture(size: tuple[int, int], mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    points = np.frombuffer(find_points(Image.fromarray(noise).convert(mode)), dtype=POINT)
    assert (points["place"] < np.array(size)).all()
