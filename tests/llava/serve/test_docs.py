"""What docs/serving.md says is true: its examples run, its limits are those of the flags."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llava.model.builder import load_model
from llava.serve.api import parse_arguments
from tests.support.paths import REPO
from tests.support.served import served
from tests.support.small_model import image

TEXT = (REPO / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_examples_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is absent")
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        image(len(name)).save(tmp_path / name)
    with served(load_model(tiny_model_dir, device="cpu")) as server:

        def run(*command: str) -> str:
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        python, shells = (
            re.findall(r"```python\n(.*?)```", TEXT, re.S),
            re.findall(r"```bash\n(.*?)```", TEXT, re.S),
        )
        assert len(python) == 1
        here = [example.replace("http://127.0.0.1:8000", server.url) for example in (*python, *shells)]
        assert "{'yes': 0." in run(sys.executable, "-c", here[0])
        chat, alt_texts = (example for example in here[1:] if example.startswith("curl"))
        said = run("bash", "-c", chat.replace('"merged"', f'"{server.service.model_id}"'))
        assert '"choice_probabilities":{"yes":' in said
        results = run("bash", "-ec", alt_texts.replace("curl", "curl -s"))
        assert results.count('"Description"') == 3 and '"Hash":"005"' in results
        assert results.endswith('{"halve_rate":1.0,"min_size":100}')


def test_the_limits_are_those_of_the_flags() -> None:
    args = vars(parse_arguments(["--model-path", "m"]))
    rows = re.findall(r"^\| (`--max-.*?) \| (.*?) \|", TEXT, re.M)
    stated = {
        name.strip("`- ").replace("-", "_"): value.strip()
        for names, values in rows
        for name, value in zip(names.split(","), values.split(","), strict=True)
    }
    assert stated.pop("max_prompt_tokens") == "the model's context"
    limits = {name: value for name, value in args.items() if name.startswith("max_")}
    assert limits.pop("max_prompt_tokens") is None
    assert stated == {name: f"{value:g}" for name, value in limits.items()}
