"""The inference benchmark: its contenders answer alike, and it notices where they do not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors import safe_open

from benchmarks import infer_speed, infer_vllm
from benchmarks.infer_contenders import CONTENDERS, make_requests, random_model, second_turn, write_model
from benchmarks.infer_speed import measure, rate, same, table
from llava.common.files import read_json


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
        figures = {"seconds": seconds, "cpu_seconds": 2 * seconds, "texts": texts, "peak_mib": 900.0}
        return {**job, **figures, **more}

    runs = [
        result("ours", 2.0, ["a", "b"], second_turn_ms=9.0),
        result("ours", 1.0, ["a", "b"], second_turn_ms=8.0),
        result("batched generate", 4.0, ["a", "c"]),
        result("one at a time", 8.0, ["a", "b"], second_turn_ms=80.0),
        result("ours, with preprocessing", 1.5, ["a", "b"]),
        result("vLLM", 3.0, ["a", "b"]),
    ]
    assert rate(runs[0]) == 8
    assert same(runs, "ours") == 1 and same(runs, "batched generate") == 0.5
    console = Console(width=200, record=True)
    console.print(table(runs))
    lines = console.export_text().splitlines()
    assert "| 16.00 (8.00 to 16.00)" in lines[3] and "8 ms" in lines[3]
    assert "4.00 x" in lines[4] and "50%" in lines[4]
    assert "8.00 x" in lines[5] and "80 ms" in lines[5]
    assert "125" in lines[3]  # ms of the processor for each of 16 questions
    assert "2.00 x" in lines[7]  # with preprocessing in both clocks


def test_a_run_without_vllm_says_so_once_and_goes_on() -> None:
    args = argparse.Namespace(
        rounds=2, questions=[1, 2], tokens=[4], contenders=["vLLM"], device="cpu", asked=2, batch=2,
        key_heads=None, vllm_python=None,
    )  # fmt: skip
    console = Console(width=200, record=True)
    results = measure(args, "unused", console)
    assert [r["contender"] for r in results] == ["vLLM"]
    assert console.export_text().count("absent: name the Python that has vLLM with --vllm-python") == 1
    console.print(table(results))
    assert "absent" in console.export_text()


def test_a_python_without_vllm_is_absent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_vllm, "find_spec", lambda name: None)
    assert sys.executable in infer_vllm.run({"device": "cpu"})["absent"]


def test_a_python_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["infer_speed", "--vllm-python", "nowhere/python"])
    with pytest.raises(SystemExit) as ended:
        infer_speed.main()
    assert ended.value.code == 2
    assert "--vllm-python: there is no nowhere/python" in capsys.readouterr().err


def test_the_model_for_vllm_has_the_names_that_it_reads(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "cpu", None)
    assert read_json(tmp_path / "model" / "config.json")["architectures"] == ["LlavaForConditionalGeneration"]
    with safe_open(str(tmp_path / "model" / "model.safetensors"), "pt") as tensors:
        towers = [name for name in tensors.keys() if name.startswith("vision_tower.")]  # noqa: SIM118
    assert towers and all(name.startswith("vision_tower.vision_model.") for name in towers)
