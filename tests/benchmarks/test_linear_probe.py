"""benchmarks.linear_probe: that both measurements run on features that tell the kinds apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.curve import Run
from benchmarks.linear_probe import (
    KINDS,
    Photos,
    Probe,
    measure_choice,
    measure_interval,
    truths_of,
)
from benchmarks.next_to_label import NEXT, RANDOM, Benchmark, score
from llava.common.files import read_json, read_jsonl


def make_pool(seed: int, count: int = 160) -> Photos:
    """Make photos, half of them sound, whose features tell their kinds, with noise."""
    generator = np.random.default_rng(seed)
    kinds = [frozenset({KINDS[index % 5]}) if index % 2 else frozenset[str]() for index in range(count)]
    features = generator.normal(size=(count, 6))
    for row, of_photo in zip(features, kinds, strict=True):
        for kind in of_photo:
            row[KINDS.index(kind)] += 4
    names = [f"scene_{1000 + seed}_{index:05d}.jpg" for index in range(count)]
    return Photos(names, features.astype(np.float32), kinds)


def test_a_probe_answers_and_surveys_what_it_learned() -> None:
    pool, test = make_pool(0), make_pool(1)
    probe = Probe(pool)
    scores = score(probe.answer(test, "probe"), truths_of(test))
    assert scores["presence"] > 0.8 and scores["kind"] > 0.6
    findings = probe.survey(test)
    called = [finding.kind for finding, kinds in zip(findings, test.kinds, strict=True) if kinds]
    right = [kind in kinds for kind, kinds in zip(called, filter(None, test.kinds), strict=True)]
    assert np.mean(right) > 0.8
    assert [finding.decision == "defect" for finding in findings] == [
        (finding.p_yes or 0) >= 0.5 for finding in findings
    ]


def test_photos_of_several_kinds_are_asked_about_presence_alone() -> None:
    pool = make_pool(0, 10)
    both = Photos(pool.names, pool.features, [frozenset(KINDS[:2]), *pool.kinds[1:]])
    asked = [truth.task for truth in truths_of(both)]
    assert (asked.count("presence"), asked.count("kind")) == (10, 9)


def test_both_measurements_come_out(tmp_path: Path) -> None:
    pools = [make_pool(seed) for seed in range(2)]
    bench = Benchmark(tmp_path, 160, 160, 20, 2, [])
    measure_choice(bench, pools)
    found = read_json(tmp_path / "next_to_label.json")
    assert found["seeds"] == 2
    assert found["scores"]["kind"][NEXT][0] == found["scores"]["kind"][RANDOM][0]
    assert len(found["areas"]["presence"][f"{NEXT} - {RANDOM}"]["seeds"]) == 2
    measure_interval(bench, pools, runs=4, photos=40, test_photos=60)
    runs = read_jsonl(tmp_path / "runs.jsonl", Run)
    assert [run.number for run in runs] == [0, 1, 2, 3]
    assert runs[0].photos == [5, 10, 20, 40, 80]
    assert {"presence", "kind"} <= {score.name for score in runs[0].scores}
