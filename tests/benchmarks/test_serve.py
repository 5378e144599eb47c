"""The benchmark of the service: both contenders give the engine's answers, and every figure is there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import serve
from tests.support.warm import warm_popen


@pytest.mark.slow
def test_all_cases_run_and_give_the_same_answers(
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", warm_popen)
    monkeypatch.setattr(serve, "CROWD", 3)
    monkeypatch.setattr(serve, "PROBES", 1)
    output = tmp_path / "results.json"
    case = ["--model-path", str(tiny_model_dir), "--questions", "2", "--clients", "1", "3"]
    assert serve.main([*case, "--requests", "4", "--tokens", "3", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert [(run["contender"], run["clients"], run["same"]) for run in found["runs"]] == [
        (name, clients, 1) for name in ("ours", "one at a time", "transformers serve") for clients in (1, 3)
    ]
    assert all(len(run["first"]) == 4 and min(run["first"]) > 0 for run in found["runs"])
    assert found["crowd"]["wait"] > 0
    assert "| 2                   | 3       | ours " in capsys.readouterr().out
