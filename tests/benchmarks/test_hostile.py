"""The service under hostile requests, beside honest clients: a short version of the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hostile import main


@pytest.mark.slow
def test_hostile_requests_cost_honest_clients_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    code = main(["--requests", "60", "--warm-up", "1", "--calm", "1", "--output", str(output)])
    assert code == 0, capsys.readouterr().out
    assert output.is_file()
