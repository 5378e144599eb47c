"""The benchmark of made pictures counts what the command makes."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.synthesize import METHODS, main
from tests.support.photos import write_photos


def test_it_counts_what_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.synthesize.METHODS", METHODS[:1])
    photos = write_photos(tmp_path / "photos", 12)
    flags = ["--photos", f"{photos}:insulator", "--count", "2", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["synthesize", *flags])
    main()
    (row,) = json.loads((tmp_path / "out" / "synthesize.json").read_text())
    assert row["made"] == 2 and row["per_minute"] == pytest.approx(60 / row["seconds"], rel=0.1)
    assert f"| photos | paste | {row['made']} |" in capsys.readouterr().out
