"""benchmarks.curve: what is predicted from which parts, and how it is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.curve import Predicted, Run, predict_last, summarise
from benchmarks.curve_simulated import SIZES, simulate
from benchmarks.units import add_unit, read_units
from eval.scoring.learning_curve import Range
from llava.common.errors import InputError
from llava.common.records import Record
from llava_inspect.curve import SHARES, nested_parts


def test_the_parts_are_those_that_curve_makes_of_half_the_photos() -> None:
    records = [
        Record.model_validate({
            "id": str(number),
            "image": f"{number}.jpg",
            "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}],
        })
        for number in range(64)
    ]  # fmt: skip
    *parts, everything = nested_parts(records, [], [2 * share for share in SHARES] + [1])
    assert [len(part.records) for part in parts] == [4, 8, 16, 32]
    assert len(everything.records) == 64
    assert nested_parts(parts[-1].records, []) == parts


def test_the_last_part_is_the_truth_and_does_not_enter_the_prediction() -> None:
    whole, _, _ = simulate(np.random.default_rng(3), 200, 0.0)
    found = predict_last([25, *SIZES[:-1]], whole)
    assert found.real == pytest.approx(float(whole.values[-1]), abs=1e-4)
    assert len(found.measured) == len(SIZES) - 1
    whole.values[-1], whole.draws[:, -1] = 0.0, 0.0
    changed = predict_last([25, *SIZES[:-1]], whole)
    assert (changed.expected, changed.real) == (found.expected, 0.0)
    assert found.expected is not None


def run(number: int, real: float, expected: Range | None) -> Run:
    score = Predicted(name="kind", metric="accuracy", measured=[0.5, 0.6], expected=expected, real=real)
    return Run(settings={"photos": 8}, seconds=1.0, number=number, photos=[8, 16], scores=[score])


def test_runs_without_a_prediction_are_neither_held_nor_missed() -> None:
    expected = Range(0.7, 0.6, 0.8)
    (row,) = summarise([run(0, 0.8, expected), run(1, 0.81, expected), run(2, 0.9, None)])
    assert (row["runs"], row["could_say"], row["holds"], row["aim"]) == (3, 2, 1, "missed")
    assert row["mean_width"] == pytest.approx(0.2)
    assert row["mean_error"] == pytest.approx(0.105)


def test_finished_units_are_found_again_and_not_mixed_with_others(tmp_path: Path) -> None:
    file, runs = tmp_path / "runs.jsonl", list[Run]()
    for number, expected in enumerate([Range(0.7, 0.6, 0.8), None]):
        add_unit(file, runs, run(number, 0.7, expected))
    assert read_units(file, Run, {"photos": 8}) == runs
    with pytest.raises(InputError, match="other settings"):
        read_units(file, Run, {"photos": 16})
