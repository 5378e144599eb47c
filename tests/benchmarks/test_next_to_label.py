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
    Learned,
    area_between,
    choose_uncertain,
    do_first,
    do_way,
)
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

    def learn(
        bench: Benchmark, seed: int, way: str, number: int, labelled: Sequence[str], surveyed: bool
    ) -> Learned:
        labelled_in[way, number] = list(labelled)
        assert surveyed == (way != "random" and number < bench.rounds)
        photos = sorted(bench.order(seed)) if surveyed else []
        # those of the first half are of a kind of their own, which comes in turn, but surer than the others
        kinds = ["nest"] * (len(photos) // 2) + ["crack"] * (len(photos) // 2)
        findings = [
            finding(photo, 0.9 - 0.01 * rank).model_copy(update={"kind": kind})
            for rank, (photo, kind) in enumerate(zip(photos, kinds, strict=True))
        ]
        return Learned("same", {}, findings)

    monkeypatch.setattr(next_to_label, "train", learn)
    monkeypatch.setattr(next_to_label, "render", lambda *_: None)
    do_first(bench, 0)
    for way in WAYS:
        do_way(bench, learn, 0, way)
    assert set(labelled_in) == {(FIRST, 0), *((way, number) for way in WAYS for number in (1, 2, 3))}
    for way in WAYS:
        before = labelled_in[FIRST, 0]
        for number in (1, 2, 3):
            photos = labelled_in[way, number]
            assert photos[: len(before)] == before
            assert len(set(photos)) == 5 * (number + 1)
            before = photos
    assert len({tuple(labelled_in[way, 3]) for way in WAYS}) == 3
