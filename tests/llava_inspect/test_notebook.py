"""docs/tutorials/road.ipynb, cell by cell as Jupyter runs it, with few photos and steps of training.

Its commands start warm.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import REPO
from tests.support.warm import warm_program

SMALLER = {
    "--count 300": "--count 24",
    "--count 60": "--count 6",
    "epochs=8": "max_steps=2 eval_generate_samples=2",
}


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(REPO / "docs" / "tutorials" / "road.ipynb", as_version=4)
    nbformat.validate(notebook)
    written = "".join(cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        for long, short in SMALLER.items():
            assert long in written
            cell.source = cell.source.replace(long, short)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    with warm_program(tmp_path / "bin" / "llava-inspect", "-m", "llava_inspect"):
        client.execute()  # a cell that fails is an error
    said = {cell.source.partition("\n")[0]: str(cell.get("outputs")) for cell in notebook.cells}
    assert "24 photos; format voc" in said["from pathlib import Path"]
    assert "| presence | 6 |" in said["from IPython.display import Markdown"]
    talk = said["from llava.eval.run_llava import load_image"]
    assert talk.count("  ->  ") == 3 and "image/jpeg" in talk
    assert (tmp_path / "road" / "scores" / "report.html").is_file()
