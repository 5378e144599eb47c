"""The odd unit of strings whose axis, period and defect are known."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.common.errors import InputError
from llava.oddone import OddResult, find_odd
from tests.support.drawn_strings import BROKEN, STAINED, DrawnString
from tests.support.paths import REPO

pytest.importorskip("cv2")
pytest.importorskip("scipy")

CPLID = REPO.parent / "shared" / "data" / "cplid"
STRING = DrawnString(odd=11)


@pytest.fixture(scope="module")
def searched() -> OddResult:
    """What is found in the whole photo."""
    return find_odd(STRING.draw())


@pytest.fixture(scope="module")
def boxed() -> OddResult:
    """What is found in the string's box."""
    return find_odd(STRING.draw(), STRING.box)


def names_the_unit(result: OddResult, string: DrawnString) -> bool:
    """Whether the odd unit lies where the odd disc does, along the string."""
    assert result.odd is not None and string.odd is not None
    place = np.array(string.place(string.odd + 0.5)[0])
    corners = np.array(result.odd.polygon)
    along = (corners[1] + corners[2] - corners[0] - corners[3]) / 2
    return bool(abs((place - corners.mean(0)) @ along) < 0.8 * along @ along)


@pytest.mark.parametrize(
    "string",
    [
        replace(STRING, angle=0),
        replace(STRING, angle=90, size=(540, 720)),
        replace(STRING, angle=37, discs=14, odd=4),
        replace(STRING, sag=30),
        replace(STRING, perspective=0.35),
        replace(STRING, defect=BROKEN),
        replace(STRING, defect=STAINED),
        replace(STRING, discs=8, period=56, odd=3),
    ],
    ids=["level", "hanging", "slanted", "sagging", "perspective", "broken", "stained", "short"],
)
def test_the_odd_unit_is_named_without_a_box(string: DrawnString) -> None:
    result = find_odd(string.draw())
    assert names_the_unit(result, string)
    assert result.axis is not None
    assert result.axis.period == pytest.approx(string.period, rel=0.12)


def test_a_clear_defect_is_called_sure_in_a_box(boxed: OddResult) -> None:
    """And a box much larger than the string gets a warning."""
    loose = find_odd(STRING.draw(), (20.0, 20.0, 700.0, 520.0))
    for result in (boxed, loose):
        assert names_the_unit(result, STRING)
        assert result.odd is not None and result.odd.sure
        warned = any("larger than the string" in warning for warning in result.warnings)
        assert warned == (result is loose)


def test_sound_strings_are_hardly_ever_called_sure() -> None:
    results = [find_odd(replace(STRING, odd=None, seed=seed).draw()) for seed in range(4)]
    assert sum(result.odd is not None and result.odd.sure for result in results) <= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.resize((image.width * 2, image.height * 2)),
        lambda image: image.point(lambda value: int(0.7 * value + 30)),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ],
    ids=["turned", "scaled", "brightness", "mirrored"],
)
def test_the_same_unit_is_odd_in_a_changed_photo(searched: OddResult, change) -> None:
    before, after = searched, find_odd(change(STRING.draw()))
    assert before.odd is not None and after.odd is not None

    def place(result: OddResult) -> float:
        """How far the odd unit is from the nearer end of those that are compared, and how many they are."""
        assert result.odd is not None
        compared = sorted(result.ranked())
        inner = compared.index(result.odd.index)
        return min(inner, len(compared) - 1 - inner)

    assert abs(place(before) - place(after)) <= 1
    assert after.odd.sure == before.odd.sure


def test_units_cover_the_string_in_order(boxed: OddResult) -> None:
    result = boxed
    assert STRING.discs <= len(result.units) <= STRING.discs + 2
    assert len(result.cuts) == len(result.units) + 1
    assert all(left < right for left, right in zip(result.cuts, result.cuts[1:], strict=False))
    assert [unit.left_out for unit in result.units].count(False) >= STRING.discs - 4


def test_the_result_is_json(boxed: OddResult) -> None:
    stated = json.loads(json.dumps(boxed.to_json()))
    assert stated["odd"]["index"] == boxed.ranked()[0]
    assert set(stated) == {"size", "axis", "period", "units", "odd", "candidates", "warnings"}


def test_another_candidate_can_be_taken(searched: OddResult) -> None:
    assert len(searched.candidates) > 1
    other = find_odd(STRING.draw(), axis=1)
    assert other.axis is not None and other.axis.points == searched.candidates[1].points
    with pytest.raises(InputError, match=r"axis 99: \d+ were found"):
        find_odd(STRING.draw(), STRING.box, axis=99)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((900, 10, 950, 40), "outside the photo of 720x540 pixels"),
        ((100, 100, 100, 300), "is empty"),
        ((100, 100, 120, 110), "too small"),
        ((float("nan"), 0, 50, 50), "is no box"),
    ],
)
def test_a_box_that_cannot_be_used_is_named(box: tuple[float, float, float, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_odd(STRING.draw(), box)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (640, 480)])
def test_no_string_is_said_not_raised(size: tuple[int, int]) -> None:
    result = find_odd(Image.new("RGB", size, (120, 140, 160)))
    assert result.odd is None and result.units == []
    assert "No string was found" in result.warnings[0]


def test_noise_of_any_shape_is_survived() -> None:
    random = np.random.default_rng(3)
    for shape in ((33, 900, 3), (300, 40, 3), (250, 260, 3)):
        find_odd(Image.fromarray(random.integers(0, 255, shape, np.uint8))).to_json()


@pytest.mark.skipif(not CPLID.is_dir(), reason="needs CPLID in ../shared/data")
def test_missing_discs_of_real_photos_are_named() -> None:
    folder = CPLID / "Defective_Insulators"
    hits = 0
    names = ("001", "024", "034", "080")
    for name in names:
        corners = {}
        for kind in ("insulator", "defect"):
            box = ElementTree.parse(folder / "labels" / kind / f"{name}.xml").find("object/bndbox")
            assert box is not None
            corners[kind] = tuple(float(box.findtext(side) or 0) for side in ("xmin", "ymin", "xmax", "ymax"))
        result = find_odd(Image.open(Path(folder / "images" / f"{name}.jpg")), corners["insulator"])
        x1, y1, x2, y2 = corners["defect"]
        assert result.odd is not None
        middle = np.mean(result.odd.part, 0)
        hits += bool(x1 - 10 <= middle[0] <= x2 + 10 and y1 - 20 <= middle[1] <= y2 + 20)
    assert hits >= 3
