"""Exact bounds, against scipy's and a count of all outcomes."""

import math

import pytest
from scipy.stats import beta, binom

from eval.deciding.bounds import (
    allowed_wrong,
    binomial_tail,
    exact_interval,
    fixed_sequence,
    groups_needed,
    upper_bound,
)


@pytest.mark.parametrize(("wrong", "groups", "rate"), [(0, 59, 0.05), (3, 200, 0.01), (40, 1000, 0.05)])
def test_the_tail_is_the_binomial_distribution_s(wrong: int, groups: int, rate: float) -> None:
    assert binomial_tail(wrong, groups, rate) == pytest.approx(binom.cdf(wrong, groups, rate), rel=1e-9)


def test_bounds_are_clopper_and_pearson_s() -> None:
    for wrong, groups in [(0, 20), (1, 20), (20, 20), (7, 300)]:
        expected = 1.0 if wrong == groups else float(beta.ppf(0.95, wrong + 1, groups - wrong))
        assert upper_bound(wrong, groups, 0.95) == pytest.approx(expected, abs=1e-7)
        low, high = exact_interval(wrong, groups)
        assert low == pytest.approx(beta.ppf(0.025, wrong, groups - wrong + 1) if wrong else 0, abs=1e-7)
        assert high == pytest.approx(
            1 if wrong == groups else beta.ppf(0.975, wrong + 1, groups - wrong), abs=1e-7
        )


def test_59_groups_certify_5_percent_and_58_do_not() -> None:
    assert groups_needed(0.05, 0.95) == 59
    assert (allowed_wrong(58, 0.05, 0.95), allowed_wrong(59, 0.05, 0.95)) == (-1, 0)
    assert allowed_wrong(92, 0.05, 0.95) == 0 and allowed_wrong(93, 0.05, 0.95) == 1
    for groups in (100, 457):
        allowed = allowed_wrong(groups, 0.05, 0.95)
        assert binom.cdf(allowed, groups, 0.05) <= 0.05 < binom.cdf(allowed + 1, groups, 0.05)
    assert allowed_wrong(0, 0.05, 0.95) == -1
    for rate in (0.001, 0.05, 0.3, 1 - math.sqrt(0.05)):
        needed = groups_needed(rate, 0.95)
        assert allowed_wrong(needed, rate, 0.95) >= 0 > allowed_wrong(needed - 1, rate, 0.95)


def test_testing_ends_at_the_first_failure() -> None:
    assert fixed_sequence([0, 0, 1, 0], 60, 0.05, 0.95) == 2
    assert fixed_sequence([0, 0], 58, 0.05, 0.95) == 0
