"""Crops of one sheet that overlap are found, whatever lies between them; look-alikes are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data_prep.images.points import find_points
from data_prep.recipe.schema import Grouping
from data_prep.splits.checks import checks_text
from data_prep.splits.groups import Groups, find_groups
from data_prep.splits.member import GroupMember
from data_prep.splits.shifted import find_shifted
from llava.common.errors import InputError
from llava.common.images import open_image


def sheet(seed: int) -> Image.Image:
    """A rolled surface: fine grain with some dark spots."""
    random = np.random.default_rng(seed)
    grain = random.normal(140, 30, (500, 500))
    for _ in range(60):
        y, x = random.integers(0, 490, 2)
        grain[y : y + 7, x : x + 4] -= 80
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))


def crops(
    folder: Path, *places: tuple[int, int, int], size: tuple[int, int] = (200, 200)
) -> list[GroupMember]:
    """Members that are crops of (sheet, x, y), saved as JPEG."""
    members = []
    for number, (seed, x, y) in enumerate(places):
        file = folder / f"{number}.jpg"
        sheet(seed).crop((x, y, x + size[0], y + size[1])).save(file, quality=85)
        points = find_points(open_image(file))
        # All fingerprints differ: copies are another matter.
        looks = np.random.default_rng(number).integers(0, 256, 1024, dtype=np.uint8).tobytes()
        members.append(GroupMember(f"c{number}", looks, file=file, size=size, points=points))
    return members


def joined(found: Groups) -> list[list[int]]:
    return sorted([i for i, n in enumerate(found.names) if n == name] for name in set(found.names))


@pytest.mark.parametrize("size", [(200, 200), (400, 96)])
def test_crops_that_overlap_are_one_group(tmp_path: Path, size: tuple[int, int]) -> None:
    half = size[0] // 2 - 2
    places = [(1, 0, 0), (2, 0, 0), (1, half, 20), (3, 40, 10), (2, 31, 17), (4, 50, 50), (5, 0, 90)]
    found = find_groups(crops(tmp_path, *places, size=size), Grouping(), workers=2)
    assert joined(found) == [[0, 2], [1, 4], [3], [5], [6]]
    assert "shifted crops of one picture: 4 pictures; no copies" in checks_text(found.checks)


def test_large_jpegs_are_compared_at_the_scale_of_their_points(tmp_path: Path) -> None:
    """600 pixels are reduced to a third, at which no JPEG is read."""
    members = []
    for number, (seed, x, y) in enumerate([(1, 0, 0), (2, 0, 0), (1, 300, 60)]):
        file = tmp_path / f"{number}.jpg"
        sheet(seed).resize((1500, 1500)).crop((x, y, x + 600, y + 600)).save(file, quality=85)
        looks = np.random.default_rng(number).integers(0, 256, 1024, dtype=np.uint8).tobytes()
        points = find_points(open_image(file))
        members.append(GroupMember(f"c{number}", looks, file=file, size=(600, 600), points=points))
    assert joined(find_groups(members, Grouping())) == [[0, 2], [1]]


def test_what_did_not_move_or_hangs_together_anyway_is_not_opened() -> None:
    """`nowhere` is no file: to open it would be an error."""
    still = find_points(sheet(1).crop((0, 0, 200, 200)))
    moved = find_points(sheet(1).crop((60, 40, 260, 240)))
    nowhere, size = Path("nowhere"), (200, 200)
    assert not len(find_shifted([nowhere] * 60, [still] * 60, size, np.arange(60))[0])
    points = [still, moved] * 30
    assert not len(find_shifted([nowhere] * 60, points, size, np.zeros(60, dtype=np.int64))[0])
    with pytest.raises(InputError):
        find_shifted([nowhere] * 60, points, size, np.arange(60))


def test_crops_that_do_not_overlap_stay_apart(tmp_path: Path) -> None:
    places = [(1, 0, 0), (1, 210, 0), (1, 0, 220), (2, 100, 100), (3, 100, 100)]
    assert joined(find_groups(crops(tmp_path, *places), Grouping())) == [[0], [1], [2], [3], [4]]


def test_a_periodic_texture_fits_everywhere_and_joins_nothing(tmp_path: Path) -> None:
    tile = np.asarray(sheet(1).crop((0, 0, 48, 48)), dtype=np.float32)
    fabric, members = np.tile(tile, (6, 6)), []
    for number in range(8):
        random = np.random.default_rng(number)
        y, x = random.integers(0, 48, 2)
        pixels = fabric[y : y + 200, x : x + 200] + random.normal(0, 1, (200, 200))
        file = tmp_path / f"{number}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
        points = find_points(open_image(file))
        looks = random.integers(0, 256, 1024, dtype=np.uint8).tobytes()
        members.append(GroupMember(f"c{number}", looks, file=file, size=(200, 200), points=points))
    assert joined(find_groups(members, Grouping())) == [[number] for number in range(8)]


def test_what_is_not_looked_for_is_said(tmp_path: Path) -> None:
    members = crops(tmp_path, (1, 0, 0), (1, 40, 0))
    text = checks_text(find_groups(members, Grouping(shifted=False, twins=None)).checks)
    assert "shifted crops of one picture not checked (group.shifted is false)" in text
    assert "copies (turned and mirrored ones too) not checked (group.twins is null)" in text
    assert "bursts not checked (no times in names or EXIF)" in text
    large = [GroupMember(m.key, m.fingerprint, file=m.file, size=(5000, 4000)) for m in members]
    assert "no two pictures of one size up to 2048 pixels" in checks_text(
        find_groups(large, Grouping()).checks
    )
