"""The tables of README.md and docs/results.md are those of the scores that are kept beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_tables_are_those_of_their_scores(repo: Path) -> None:
    command = [sys.executable, str(repo / "scripts" / "results.py"), "--check"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page, kind, tables in (("README.md", "brief", 1), ("docs/results.md", "scores", 5)):
        text = (repo / page).read_text(encoding="utf-8")
        assert text.count(f"<!-- {kind} ") == tables
        assert text.count(f"<!-- {kind} ") + text.count("<!-- all ") == text.count("<!-- end -->")
