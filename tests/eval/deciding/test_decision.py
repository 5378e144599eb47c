"""The thresholds, what is promised of them, and what the promise is worth."""

import sys
from subprocess import run

import numpy as np
import pytest

from benchmarks.certify import Scores, redraw
from eval.deciding.answered import AnsweredTask
from eval.deciding.apply import wrong_groups
from eval.deciding.bounds import exact_interval
from eval.deciding.certificate import Promise, certify
from eval.deciding.thresholds import choose_thresholds
from llava.deciding.calls import Thresholds


def answered(defective: list[float | None], sound: list[float | None], per_group: int = 1) -> AnsweredTask:
    p_yes = [*defective, *sound]
    groups = [f"d{i // per_group}" for i in range(len(defective))]
    groups += [f"s{i // per_group}" for i in range(len(sound))]
    return AnsweredTask(
        p_yes=p_yes,
        defective=[True] * len(defective) + [False] * len(sound),
        groups=groups,
        wordings=["?"] * len(p_yes),
    )


def spread(low: float, high: float, number: int) -> list[float | None]:
    return [round(float(value), 6) for value in np.linspace(low, high, number)]


def test_as_many_are_missed_as_the_bound_allows_and_no_more() -> None:
    """Of 93 groups one may be missed: the second lowest is the last threshold under which that holds."""
    task = answered(spread(0.30, 0.9, 93), spread(0.01, 0.5, 50))
    below = choose_thresholds(task, 0.05, 0.95, None).sound_below
    assert below is not None and task.p_yes[1] is not None
    assert below == round(task.p_yes[1] * 1_000_000)
    thresholds = Thresholds(below, None)
    assert wrong_groups(thresholds, task, defective=True) == (1, 93)
    assert wrong_groups(Thresholds(below + 1, None), task, defective=True) == (2, 93)


def test_a_group_is_missed_with_any_of_its_pictures() -> None:
    """Of each group one picture is plain and one hardly looks defective: the latter decides."""
    pairs = [value for _ in range(60) for value in (0.9, 0.2)]
    certificate = certify(answered([*pairs], spread(0.01, 0.5, 50), per_group=2), Promise())
    assert certificate.misses.groups == 60
    assert certificate.sound_below == 0.2
    assert certificate.decide(0.2) == "ask" and certificate.decide(0.199999) == "sound"
    assert "have one that is called sound" in certificate.guarantee


def test_too_few_pictures_are_an_answer() -> None:
    certificate = certify(answered(spread(0.6, 0.9, 20), spread(0.01, 0.5, 20)), Promise())
    assert not certificate.certified
    assert certificate.sound_below is None and certificate.decide(0.0) == "ask"
    assert certificate.defect_from is not None and certificate.decide(0.99) == "defect"
    assert "5% at 95% takes 59 of them, 39 more" in certificate.guarantee
    # what there are can certify, is certified
    assert "(--miss 0.1392)" in certificate.guarantee
    assert certify(answered(spread(0.6, 0.9, 20), []), Promise(miss=0.1392)).certified
    assert not certify(answered(spread(0.6, 0.9, 20), []), Promise(miss=0.1390)).certified
    nothing = certify(answered([], spread(0.01, 0.5, 20)), Promise())
    assert nothing.misses.needed == 59 and nothing.sound_below is None


def test_two_promises_share_the_confidence() -> None:
    task = answered(spread(0.3, 0.99, 71), spread(0.01, 0.7, 200))
    certificate = certify(task, Promise(false_alarm=0.1))
    assert not certificate.misses.certified and certificate.misses.needed == 72
    assert certificate.false_alarms and certificate.false_alarms.certified
    assert certificate.false_alarms.confidence == 0.975
    assert "Nothing is called sound" in certificate.guarantee
    assert "at most 10% of the pictures without a defect are called a defect" in certificate.guarantee
    both = certify(answered(spread(0.3, 0.99, 72), spread(0.01, 0.7, 200)), Promise(false_alarm=0.1))
    assert both.certified and both.false_alarms and both.false_alarms.certified


def test_thresholds_that_cross_leave_nothing_to_a_person() -> None:
    certificate = certify(answered(spread(0.8, 0.99, 100), spread(0.01, 0.2, 100)), Promise(false_alarm=0.1))
    assert certificate.sound_below == certificate.defect_from
    assert certificate.sound.sound == certificate.defective.defect == 100
    assert certificate.to_person == 0


def test_pictures_without_an_answer_go_to_a_person() -> None:
    certificate = certify(answered([*spread(0.3, 0.9, 70), None], [*spread(0.01, 0.5, 50), None]), Promise())
    assert certificate.misses.groups == 71
    assert certificate.decide(None) == "ask"
    assert certificate.defective.ask >= 1 and certificate.sound.ask >= 1
    # without a probability at all nothing is called anything
    blind = certify(answered([None] * 80, [None] * 80), Promise(false_alarm=0.05))
    assert (blind.sound_below, blind.defect_from, blind.to_person) == (None, None, 1.0)


def test_a_defect_at_probability_zero_leaves_nothing_to_call_sound() -> None:
    certificate = certify(answered([0.0] * 10 + spread(0.5, 0.9, 60), spread(0.0, 0.5, 50)), Promise())
    assert not certificate.certified and certificate.sound_below is None
    assert "at every threshold too many" in certificate.guarantee


@pytest.mark.parametrize(
    "scores", [Scores("overlapping", -1, 1.5), Scores("two decimals", -2, 2, of_groups=2, decimals=2)]
)
def test_the_promise_is_broken_no_more_often_than_it_says(scores: Scores) -> None:
    """The short version of benchmarks/certify.py. A bound that ignored groups, or that took the observed rate
    for the true one, is broken in half of the calibrations or more."""
    population = scores.population(3000, np.random.default_rng(1))
    tally = redraw(population, [150, 400], 100, 0.05, 0.2, seed=2)
    for broken in (tally.broken, tally.both_broken):
        assert exact_interval(broken, tally.calibrations)[0] <= 0.05
    assert tally.certified > 90
    assert tally.missed / tally.calibrations > 0.01  # it is no bound that calls nothing sound


def test_a_decision_is_applied_without_torch() -> None:
    code = "import sys, llava.deciding.decision, eval.deciding.apply; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
