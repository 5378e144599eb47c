"""The inference benchmark: its contenders answer alike, and it notices where they do not."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from benchmarks.infer_contenders import CONTENDERS, make_requests, random_model, second_turn
from benchmarks.infer_speed import rate, same, table


@pytest.mark.slow
@pytest.mark.parametrize("questions", [1, 3])
def test_all_contenders_do_the_same_job(questions: int) -> None:
    loaded = random_model("cpu")
    requests = make_requests(loaded, 2, questions)
    answers = [
        CONTENDERS[name](loaded, requests, {"tokens": 3, "batch": 4})
        for name in ("ours", "batched generate", "one at a time")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 1 or questions == 1
    if questions == 1:
        assert second_turn(loaded, "ours") > 0


def test_the_table_compares_best_rounds() -> None:
    def result(contender: str, seconds: float, texts: list[str], **more: Any) -> dict[str, Any]:
        job = {"contender": contender, "questions": 8, "tokens": 4, "pictures": 2, "batch": 16}
        return {**job, "seconds": seconds, "texts": texts, "peak_mib": 900.0, **more}

    runs = [
        result("ours", 2.0, ["a", "b"], second_turn_ms=9.0),
        result("ours", 1.0, ["a", "b"], second_turn_ms=8.0),
        result("batched generate", 4.0, ["a", "c"]),
        result("one at a time", 8.0, ["a", "b"], second_turn_ms=80.0),
    ]
    assert rate(runs[0]) == 8
    assert same(runs, "ours") == 1 and same(runs, "batched generate") == 0.5
    console = Console(width=200, record=True)
    console.print(table(runs))
    lines = console.export_text().splitlines()
    assert "| 16.00 (8.00 to 16.00)" in lines[3] and "8 ms" in lines[3]
    assert "4.00 x" in lines[4] and "50%" in lines[4]
    assert "8.00 x" in lines[5] and "80 ms" in lines[5]
