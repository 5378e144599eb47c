"""The service under hostile requests, beside honest clients: a short version of the benchmark."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.hostile import main
from tests.support.warm import warm_popen


@pytest.mark.slow
def test_hostile_requests_cost_honest_clients_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", warm_popen)
    output = tmp_path / "figures.json"
    # so short a warm-up does not bring memory to its level yet
    few = ["--requests", "40", "--warm-up", "1", "--calm", "0.5", "--clients", "2", "--growth", "500"]
    code = main([*few, "--output", str(output)])
    assert code == 0, capsys.readouterr().out
    assert output.is_file()
