"""P-values of distances: valid for pictures of new groups, whatever the groups' sizes."""

import numpy as np
import pytest

from llava.novelty.pvalue import PValues


def test_one_picture_a_group_is_the_conformal_p_value() -> None:
    p_value = PValues([1.0, 2.0, 2.0, 4.0], ["a", "b", "c", "d"])
    assert [p_value(d) for d in (5.0, 4.0, 2.0, 0.5)] == pytest.approx([1 / 5, 2 / 5, 4 / 5, 1.0])
    assert p_value.smallest == 1 / 5


def test_a_group_of_many_pictures_counts_once() -> None:
    p_value = PValues([9.0, 9.0, 9.0, 1.0, 1.0, 9.0], ["burst", "burst", "burst", "burst", "b", "c"])
    assert p_value.groups == 3
    assert p_value(5.0) == pytest.approx((1 + 3 / 4 + 0 + 1) / 4)


def test_false_alarms_keep_their_rate_where_groups_depend() -> None:
    """Groups of 1 to 8 pictures that are nearly alike; a picture at random of a new group."""
    rng = np.random.default_rng(5)
    alarms, trials, rate = 0, 2000, 0.1
    for _ in range(trials):
        sizes = rng.integers(1, 9, 20)
        groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
        # large groups lie nearer, so that counting pictures one by one would call too many new
        centres = rng.normal(size=21) - 0.3 * np.append(sizes, new := rng.integers(1, 9))
        distances = np.repeat(centres[:-1], sizes) + 0.1 * rng.normal(size=sizes.sum())
        alarms += PValues(list(distances), groups)(centres[-1] + 0.1 * rng.normal()) <= rate
        assert new
    assert alarms / trials <= rate + 3 * (rate * (1 - rate) / trials) ** 0.5
