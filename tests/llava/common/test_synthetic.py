"""Made pictures: names of files whatever the kind is called, and files that say what they are."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from llava.common.synthetic import MADE_BY, picture_bytes, picture_name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("broken disc", "00003_broken_disc.png"),
        ("../../파손: 1/2", "00003__파손_1_2.png"),
        (None, "00003_background.png"),
    ],
)
def test_a_name_tells_number_and_kind(kind: str | None, name: str) -> None:
    assert picture_name(3, kind) == name


def test_a_long_kind_is_cut_to_what_file_systems_take() -> None:
    assert len(picture_name(3, "파손 " * 200).encode()) < 255


def test_a_made_picture_says_so_and_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with Image.open(BytesIO(picture_bytes(pixels))) as image:
        image.load()
        assert image.info["Description"] == MADE_BY
        assert np.array_equal(np.asarray(image), pixels)
