"""The README's commands, run as a newcomer would: in a fresh folder, block by block."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.common.settings import load_settings
from llava.train.config import TrainSettings

OWN = {"playground", "runs", "build", ".git"}


@pytest.fixture
def checkout(repo: Path, tmp_path: Path) -> Path:
    """A folder that looks like a clone, so that nothing in the developer's own playground is touched."""
    for entry in repo.iterdir():
        if entry.name not in OWN:
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "playground").mkdir()
    (tmp_path / "playground" / "tiny-llava").symlink_to(repo / "playground" / "tiny-llava")
    return tmp_path


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def blocks(page: Path, title: str, language: str = "bash") -> list[str]:
    """The blocks of `language` under the page's heading `title`, or under its first one."""
    text = page.read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0] if title else text
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found


@pytest.mark.slow
def test_python_and_settings(checkout: Path, repo: Path) -> None:
    """The Python block runs, and the YAML for a GPU is a valid training configuration."""
    [snippet] = blocks(repo / "docs" / "models.md", "From Python, with LLaVA's names", "python")
    (checkout / "snippet.py").write_text(snippet)
    run("python snippet.py", checkout)
    settings = checkout / "my.yaml"
    settings.write_text(blocks(repo / "docs" / "gpu.md", "", "yaml")[0], encoding="utf-8")
    assert load_settings(TrainSettings, settings).model_name_or_path == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.slow
def test_own_photos(checkout: Path, repo: Path) -> None:
    """README's one command and the commands that it consists of, then those of docs/own_photos.md that are
    not among them and of handing the model on, with few photos and steps."""
    run("python -m data_prep scenes --output playground/data_train --count 40 --seed 5", checkout)
    photo = next((checkout / "playground" / "data_train").rglob("*.jpg"))
    (checkout / "photo.jpg").symlink_to(photo)
    (checkout / "playground" / "data_infer").mkdir()
    (checkout / "playground" / "data_infer" / "new.jpg").write_bytes(photo.read_bytes())
    whole, parts = blocks(repo / "README.md", "Your own photos")
    whole = whole.replace(". .venv/bin/activate\n", "")
    whole = whole.replace("run playground/data_train", "run playground/data_train max_steps=3")
    whole, serve, web = re.split("# or let other programs ask|# or people who", whole)
    said = run(whole, checkout)
    assert "May you rely on it?" in said
    assert_serves(serve, "serving merged at http://127.0.0.1:", checkout)
    assert_serves(web, "open http://127.0.0.1:", checkout)
    findings = (checkout / "runs/survey-data_infer/findings.csv").read_text(encoding="utf-8-sig")
    assert "new.jpg" in findings

    run(few_steps(parts), checkout)
    scores = json.loads((checkout / "runs" / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert {"presence", "kind"} <= {task["task"] for task in scores["tasks"]}

    [detailed] = blocks(repo / "docs" / "own_photos.md", "")
    kept = [part for part in detailed.split("\n\n") if re.search("llava-inspect (inspect|chat)", part)]
    assert len(kept) == 2
    said = run("\n".join(kept).replace("photo.jpg", "photo.jpg <<< 'Is there a defect?'"), checkout)
    assert "ASSISTANT" in said
    run(blocks(repo / "docs" / "models.md", "Merge and export")[0], checkout)
    assert same_tensors(checkout / "runs" / "merged", checkout / "runs" / "hf")
    assert {path.name for path in (checkout / "runs" / "gguf").glob("*.gguf")} == {
        "model-f16.gguf",
        "mmproj-f16.gguf",
    }


def assert_serves(block: str, line: str, folder: Path) -> None:
    """Start the service of a block's last command, until it says where, and end it."""
    command = block.strip().splitlines()[-1].split()
    process = subprocess.Popen([*command, "--port", "0"], cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any(line in said for said in process.stderr)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def few_steps(commands: str) -> str:
    assert "llava-inspect train tiny_cpu" in commands
    return commands.replace("train tiny_cpu", "train tiny_cpu max_steps=3")


def same_tensors(first: Path, second: Path) -> bool:
    """Whether two model folders hold the same tensors."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("argument", ["epochs", "epoch=3", "epochs=0", "output_dir=elsewhere", "--help"])
def test_quickstart_refuses_before_it_removes_anything(checkout: Path, argument: str) -> None:
    kept = checkout / "playground" / "quickstart" / "kept"
    kept.parent.mkdir()
    kept.touch()
    done = subprocess.run(
        ["scripts/quickstart.sh", argument], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr == "usage: scripts/quickstart.sh [epochs=N]\n"
    assert kept.exists()


@pytest.mark.slow
def test_quickstart_learns(checkout: Path, repo: Path) -> None:
    """The whole quickstart but for three of its five epochs (they take as long as a tenth of all tests): on
    pictures that training never saw the tuned model must know its job. The questions and their truth are,
    to the byte, those of the scores that README shows."""
    said = run("scripts/quickstart.sh epochs=2", checkout)
    assert "llava-inspect chat" in said
    scores = json.loads(
        (checkout / "playground/quickstart/run/scores/scores.json").read_text(encoding="utf-8")
    )
    shown = json.loads((repo / "docs" / "scores" / "quickstart.json").read_text(encoding="utf-8"))
    assert scores["truth"]["sha256"] == shown["truth"]["sha256"]
    tasks = {task["task"]: task for task in scores["tasks"]}
    presence, kind = ({who: tasks[name][who]["metrics"]["balanced_accuracy"] for who in ("base", "tuned")}
                      for name in ("presence", "kind"))  # fmt: skip
    # Blind answers earn 0.5 and 0.17. When this was written it reached 0.81 and 0.63; 150 pictures leave some
    # 0.06 to either side, and another processor rounds otherwise.
    assert presence["base"]["value"] < 0.65
    assert presence["tuned"]["value"] >= 0.72 and presence["tuned"]["low"] > 0.65
    assert kind["tuned"]["value"] >= 0.5
