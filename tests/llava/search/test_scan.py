"""A scan finds what a simulated answerer sees, wherever it lies, and has ranked places at any moment."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
import pytest

from benchmarks.search import simulate
from benchmarks.search_simulated import simulated
from llava.search import scan as scan_module
from llava.search.ranking import EvidenceMap, Place, mean_probability, ranked
from llava.search.scan import scan
from llava.search.windows import Box, centre_in

SIZE = (2000, 1300)


@pytest.mark.parametrize("size", [(3000, 1902), (5520, 3680)])
def test_a_noisy_answerer_finds_most_things_first(size: tuple[int, int]) -> None:
    assert simulate(size, trials=60, lures=0)["first"] >= 0.95


@pytest.mark.parametrize("corner", [(0, 0), (1960, 0), (0, 1260), (1960, 1260), (985, 640)])
def test_a_thing_in_any_corner_is_found(corner: tuple[int, int]) -> None:
    thing = (*corner, corner[0] + 40, corner[1] + 40)
    *_, last = scan(SIZE, 300, simulated(thing, 150, seed=1), 5)
    assert centre_in(thing, last.places[0].box)
    rows, columns = last.heat.shape
    row, column = corner[1] * rows // SIZE[1], corner[0] * columns // SIZE[0]
    assert last.heat[row, column] > 0.5 > 0.3 > np.median(last.heat)


def test_a_scan_that_is_stopped_has_ranked_places_and_ends_the_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan_module, "EVENT_SECONDS", 0)
    monkeypatch.setattr(scan_module, "EVENT_SHARE", np.inf)
    asked: list[Box] = []
    ended = []

    def ask(boxes: Iterable[Box]) -> Generator[tuple[Box, float]]:
        try:
            for box in boxes:
                asked.append(box)
                yield box, 0.9 if box[:2] == (0, 0) else 0.1
        finally:
            ended.append(True)

    events = scan(SIZE, 300, ask, 5)
    early = [next(events) for _ in range(7)]
    events.close()
    assert len(asked) == 7 and ended == [True]
    assert early[-1].done == 7 < early[-1].total
    assert early[-1].places[0].p_yes == pytest.approx(0.9)
    assert [place.p_yes for place in early[-1].places] == sorted(
        (place.p_yes for place in early[-1].places), reverse=True
    )
    assert np.isnan(early[-1].heat).any()


def test_neighbouring_windows_are_one_place() -> None:
    evidence = EvidenceMap((1000, 200), 200)
    for x in range(0, 801, 100):
        evidence.add((x, 0, x + 200, 200), 0.9 if x in (300, 400) else 0.1, 200)
    first, *others = evidence.places(5)
    assert first.box == (350, 0, 550, 200)  # what both see
    assert first.p_yes == pytest.approx(0.9)
    assert all(not centre_in(other.box, first.box) for other in others)
    assert all(other.p_yes < 0.6 for other in others)


def test_of_places_that_hold_each_other_the_tightest_counts_unless_it_is_far_less_likely() -> None:
    small, large, elsewhere = (400, 400, 600, 600), (300, 300, 700, 700), (0, 0, 200, 200)
    places = [Place(large, 0.95), Place(small, 0.9), Place(elsewhere, 0.5)]
    assert [place.box for place in ranked(places, 5)] == [small, elsewhere]
    places = [Place(large, 0.95), Place(small, 0.55), Place(elsewhere, 0.5)]
    assert [place.box for place in ranked(places, 5)] == [large, elsewhere]
    assert [place.box for place in ranked(places, 1)] == [large]
    beside = (450, 400, 650, 600)
    for unlikely, p in ((beside, 0.1), (large, 0.1)):
        places = [Place(small, 0.3), Place(unlikely, p), Place(elsewhere, 0.05)]
        assert [place.box for place in ranked(places, 5)] == [small, elsewhere]


def test_probabilities_are_joined_by_their_odds() -> None:
    assert mean_probability([0.8, 0.2]) == pytest.approx(0.5)
    assert mean_probability([1.0, 0.0, 0.9]) == pytest.approx(mean_probability([0.5, 0.5, 0.9]))
