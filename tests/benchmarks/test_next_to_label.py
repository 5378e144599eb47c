"""benchmarks.next_to_label: that the three ways are compared fairly, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import next_to_label
from benchmarks.next_to_label import (
    FIRST,
    WAYS,
    Benchmark,
    Round,
    area_between,
    choose_uncertain,
    do_first,
    do_way,
)
from benchmarks.units import add_unit
from eval.survey.findings import Finding


def finding(photo: str, p_yes: float | None, about: str = "defect") -> Finding:
    return Finding(id=photo, photo=photo, photos=[photo], decision="ask", p_yes=p_yes, about=about)


def test_plain_uncertainty_takes_photos_whose_presence_is_nearest_to_half() -> None:
    findings = [finding("a", 0.9), finding("a", 0.5, "flashover"), finding("b", 0.45), finding("c", None)]
    assert choose_uncertain(findings, 5) == ["b", "a"]
    assert choose_uncertain(findings, 1) == ["b"]


def test_area_is_a_mean_difference_with_students_interval() -> None:
    low = np.array([[0.5, 0.6, 0.7], [0.4, 0.6, 0.8]])
    gains = np.array([[0.0, 0.1, 0.2], [0.0, 0.2, 0.2]])
    area = area_between(low + gains, low)
    assert area["seeds"] == [0.1, 0.15]
    # of two seeds the t quantile is 12.706, and the standard error half of what they differ by
    assert (area["mean"], area["low"], area["high"]) == (0.125, -0.1927, 0.4427)
    assert area_between(low[:1], low[:1])["low"] is None


def test_all_ways_begin_with_the_same_photos_and_label_as_many_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Benchmark(tmp_path, pool=40, test_photos=5, each=5, rounds=3, overrides=[])
    labelled_in: dict[tuple[str, int], list[str]] = {}

    def do_round(bench: Benchmark, seed: int, way: str, number: int, labelled: Sequence[str]) -> Round:
        labelled_in[way, number] = list(labelled)
        free = sorted(f"scene_1000_{index:05d}.jpg" for index in range(bench.pool))
        free = [photo for photo in free if photo not in labelled]
        ways = [name for name in ("next", "uncertain") if way in (FIRST, name)]
        chosen = {"next": free[: bench.each], "uncertain": free[-bench.each :]}
        done = Round(
            settings=bench.settings,
            seconds=1.0,
            seed=seed,
            way=way,
            number=number,
            questions="same",
            scores={},
            chosen={name: chosen[name] for name in ways},
        )
        add_unit(bench.file(seed, way), bench.done(seed, way), done)
        return done

    monkeypatch.setattr(next_to_label, "do_round", do_round)
    monkeypatch.setattr(next_to_label, "render", lambda *_: None)
    do_first(bench, 0)
    for way in WAYS:
        do_way(bench, 0, way)
    assert set(labelled_in) == {(FIRST, 0), *((way, number) for way in WAYS for number in (1, 2, 3))}
    for way in WAYS:
        before = labelled_in[FIRST, 0]
        for number in (1, 2, 3):
            photos = labelled_in[way, number]
            assert photos[: len(before)] == before
            assert len(set(photos)) == 5 * (number + 1)
            before = photos
    assert len({tuple(labelled_in[way, 3]) for way in WAYS}) == 3
