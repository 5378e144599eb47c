"""docs/interop.md shows what the checks of tests/interop measured, and stale tables are noticed."""

import json
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def copy(repo, tmp_path):
    for name in ("docs/interop", "tests/interop"):
        shutil.copytree(repo / name, tmp_path / name)
    shutil.copyfile(repo / "docs" / "interop.md", tmp_path / "docs" / "interop.md")
    return tmp_path


def table(folder, *flags):
    command = [sys.executable, str(folder / "tests" / "interop" / "table.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_page_shows_the_results(copy):
    done = table(copy, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    path = copy / "docs" / "interop" / "original.json"
    found = json.loads(path.read_text())
    found["rows"][0]["largest_difference"] = 0.25
    path.write_text(json.dumps(found))
    assert table(copy, "--check").returncode == 1
    assert table(copy).returncode == 0
    assert "2.5e-01" in (copy / "docs" / "interop.md").read_text()
    assert table(copy, "--check").returncode == 0


def test_every_form_but_rounded_ones_is_within_the_bound(repo):
    sys.path.insert(0, str(repo / "tests" / "interop"))
    from results import FOLDER, Check

    checks = [Check.model_validate_json(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    exact = [row for check in checks for row in check.rows if not row.form.startswith("GGUF")]
    assert len(exact) >= 8
    assert all(row.largest_difference is not None and row.largest_difference <= 1e-3 for row in exact)
