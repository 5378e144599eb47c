"""The drift test: right where nothing has changed, and it sees what has."""

import numpy as np
import pytest

from llava.common.errors import InputError
from llava.novelty.drift import Drift, drift_test


def pictures(rng: np.random.Generator, groups: int, shift: float = 0.0) -> tuple[np.ndarray, list[str]]:
    """Groups of 1 to 8 pictures that are alike within, around a mean that is shifted in one component."""
    sizes = rng.integers(1, 9, groups)
    centres = rng.normal(size=(groups, 4)) + np.array([shift, 0, 0, 0])
    names = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    return np.repeat(centres, sizes, axis=0) + 0.1 * rng.normal(size=(len(names), 4)), names


def drift(rng: np.random.Generator, shift: float, groups: int = 15) -> Drift:
    return drift_test(*pictures(rng, groups, shift), *pictures(rng, groups))


def test_without_drift_p_values_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.novelty.drift.PERMUTATIONS", 99)
    rng = np.random.default_rng(3)
    p_values = np.array([drift(rng, 0.0).p_value for _ in range(400)])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):  # within four standard deviations
        share, deviation = (p_values <= level).mean(), (level * (1 - level) / 400) ** 0.5
        assert abs(share - level) < 4 * deviation, f"{share} of the p-values are at most {level}"


def test_a_shift_is_seen_and_told() -> None:
    found = drift(np.random.default_rng(4), shift=3.0, groups=30)
    assert found.differs
    assert found.outside > 0.3
    assert "differ strongly" in found.message
    assert f"{found.outside:.0%} of them" in found.message


def test_no_shift_is_told_as_no_difference() -> None:
    found = drift(np.random.default_rng(4), shift=0.0, groups=40)
    assert not found.differs
    assert found.outside < 0.15
    assert "no difference is seen" in found.message


def test_many_pictures_are_compared_by_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.novelty.drift.MAX_PICTURES", 100)
    found = drift(np.random.default_rng(6), shift=3.0, groups=200)
    assert found.differs
    assert 10 < found.survey_groups < 100  # some 100 pictures of groups of 4.5


def test_too_few_groups_are_refused() -> None:
    rng = np.random.default_rng(7)
    with pytest.raises(InputError, match="the survey has 3"):
        drift_test(*pictures(rng, 3), *pictures(rng, 20))
