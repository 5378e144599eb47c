"""Versions of one photo and photos of one moment share a group, by their names and clocks."""

import numpy as np
import pytest

from data_prep.recipe.schema import Grouping
from data_prep.splits.checks import checks_text
from data_prep.splits.groups import find_groups
from data_prep.splits.member import GroupMember
from data_prep.splits.named import propose_gap


def members(*keys: str, taken: dict[str, float] | None = None) -> list[GroupMember]:
    random = np.random.default_rng(0)
    return [
        GroupMember(key, random.integers(0, 256, 1024, np.uint8).tobytes(), taken=(taken or {}).get(key))
        for key in keys
    ]


def joined(found: list[GroupMember], rule: Grouping) -> list[list[str]]:
    names = find_groups(found, rule).names
    return sorted([m.key for m, n in zip(found, names, strict=True) if n == name] for name in set(names))


def test_versions_by_name() -> None:
    found = members(
        "train/images/a1_augmented_1_jpg.rf.x",
        "test/images/a1_png.rf.z",
        "crack/7_flip",
        "crack/7",
        "hole/7_flip",
        "train/hole/7",
        "b2",
        "b2 (1)",
        "c (1)",
        "c (2)",
        "train/001",
        "test/001",
        "augmented/d4_aug_1",
        "images/d4",
    )
    assert joined(found, Grouping()) == [
        ["augmented/d4_aug_1", "images/d4"],
        ["b2", "b2 (1)"],
        ["c (1)"],
        ["c (2)"],
        ["crack/7_flip", "crack/7"],
        ["hole/7_flip", "train/hole/7"],
        ["test/001"],
        ["train/001"],
        ["train/images/a1_augmented_1_jpg.rf.x", "test/images/a1_png.rf.z"],
    ]
    text = checks_text(find_groups(found, Grouping()).checks)
    assert "versions of one photo by name: 10 pictures" in text


def test_numbers_of_photos_are_no_versions() -> None:
    apart = [f"cam2_gray_{n:03}" for n in range(40)] + ["images", *(f"images ({n})" for n in range(1, 9))]
    assert joined(members(*apart), Grouping()) == sorted([name] for name in apart)
    versions = ["p7", "p7_blur_3", "p7_noise_12"]
    assert joined(members(*versions), Grouping()) == [versions]
    # Of two versions of an absent photo, only the numbers that nothing else can mean join.
    assert joined(members("p8_noise_12", "p8_aug_1", "p8_aug_2"), Grouping()) == [
        ["p8_aug_1", "p8_aug_2"],
        ["p8_noise_12"],
    ]


def test_moments_by_names_and_exif() -> None:
    times = {"x/p1": 1685983684.5, "x/p2": 1685983690.0}  # the first 1.5 s after b
    found = members("a/IMG20230605164800", "b/IMG20230605164803", "x/p1", "x/p2", "none", taken=times)
    assert joined(found, Grouping(time=3)) == [
        ["a/IMG20230605164800", "b/IMG20230605164803", "x/p1"],
        ["none"],
        ["x/p2"],
    ]
    assert len(joined(found, Grouping())) == 5
    assert "group.time is not set; 4 pictures tell when they were taken" in checks_text(
        find_groups(found, Grouping()).checks
    )


@pytest.mark.parametrize(
    ("seconds", "gap"),
    [
        ([0, 1, 60, 61, 62, 200, 201, 300], 10.0),  # bursts
        ([0, 1, 5, 6, 10, 11, 15, 16], 2.0),  # bursts that follow each other quickly
        ([0, 2, 4, 6, 8, 10, 12, 14], None),  # a flight without a pause: one moment would be no split
        ([0, 60, 120, 180], None),  # one by one
    ],
)
def test_a_gap_is_proposed_where_there_are_bursts(seconds: list[int], gap: float | None) -> None:
    keys = [f"p{number}" for number in range(len(seconds))]
    found = members(*keys, taken=dict(zip(keys, map(float, seconds), strict=True)))
    assert propose_gap(found) == gap
    assert propose_gap([*found, *members(*(f"no{n}" for n in range(len(keys) + 1)))]) is None
