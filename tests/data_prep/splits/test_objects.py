"""Crops that show one pasted object are one group, whatever is behind it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from data_prep.recipe.schema import Grouping
from data_prep.splits import objects
from data_prep.splits.checks import checks_text
from data_prep.splits.groups import find_groups
from data_prep.splits.member import GroupMember


def noise(seed: int, size: tuple[int, int], cells: int) -> Image.Image:
    random = np.random.default_rng(seed)
    shape = (size[1] // cells, size[0] // cells, 3)
    return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )


def pasted(file: Path, thing: int, ground: int, turn: float) -> Path:
    """Paste a turned and scaled thing on a ground."""
    picture = noise(1000 + ground, (320, 240), 16)
    size = (220, 60)
    shape = Image.new("L", size)
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, *size), 25, fill=255)
    scaled = (round(size[0] * (1 + turn / 100)), round(size[1] * (1 + turn / 100)))
    drawn = noise(thing, size, 5).resize(scaled).rotate(turn, expand=True)
    picture.paste(drawn, (40, 60), shape.resize(scaled).rotate(turn, expand=True))
    picture.filter(ImageFilter.GaussianBlur(0.7)).save(file, quality=85)
    return file


def members(folder: Path) -> list[GroupMember]:
    random = np.random.default_rng(0)
    found = []
    for number, (thing, turn) in enumerate([(1, 0), (2, 0), (1, 8), (3, 5), (2, -10), (4, 0)]):
        looks = random.integers(0, 256, 1024, dtype=np.uint8).tobytes()
        crop = pasted(folder / f"{number}.jpg", thing, number, turn)
        found.append(GroupMember(f"p{number}", looks, crops=(crop,)))
    return found


def test_one_object_on_several_grounds(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    found = find_groups(members(tmp_path), Grouping(), workers=2)
    assert found.names == ["p0", "p1", "p0", "p3", "p1", "p5"]
    assert "crops of one object: 4 pictures" in checks_text(found.checks)
    assert len(set(find_groups(members(tmp_path), Grouping(objects=False)).names)) == 6


def test_it_is_said_that_opencv_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "is_available", lambda: False)
    found = find_groups(members(tmp_path), Grouping())
    assert len(set(found.names)) == 6
    assert "crops of one object not checked (needs OpenCV: " in checks_text(found.checks)
