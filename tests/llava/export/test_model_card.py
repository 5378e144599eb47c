"""The card of a merged folder says what it is of, how well it does and how to use it, and nothing false."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from eval.score import main as score_command
from llava.export.merge import merge_adapters
from llava_inspect.merge import main as merge_command
from tests.support.commands import run_here
from tests.support.other_adapters import other_tools_adapter
from tests.support.tiny_models import save_base, save_run

VALUES = {"learning_rate": 0.0002, "lora": {"rank": 4, "language_targets": ["q_proj", "v_proj"]}}


def describe(run: Path, **values: object) -> Path:
    """More facts in run.json, as training writes them."""
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return run


def card_of(folder: Path) -> tuple[dict, str]:
    """The front matter and the text."""
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("card") / "base")


def test_a_run(base, tmp_path):
    run = describe(
        save_run(tmp_path / "run", base, use_dora=True),
        config=VALUES,
        data={"data/train.json": "abc"},
        versions={"torch": "2.13.0"},
        git_commit="0123",
    )
    info = json.loads((run / "run.json").read_text())
    describe(run, base=info["base"] | {"name": "llava-hf/llava-1.5-7b-hf", "revision": "deadbeef"})
    merge_adapters(run, tmp_path / "insulator", dtype="float16")
    front, text = card_of(tmp_path / "insulator")
    assert front["base_model"] == "llava-hf/llava-1.5-7b-hf" and front["library_name"] == "transformers"
    assert "# insulator\n" in text and "Its weights are float16." in text
    assert f"revision `deadbeef` (fingerprint `{info['base']['fingerprint']}`)" in text
    assert "run `run`, step 3: DoRA, rank 4, alpha 8; 4 layers adapted in the vision tower" in text
    assert "4 tensors trained whole in the projector" in text
    assert "torch 2.13.0; code at `0123`" in text
    assert "- `data/train.json` (sha256 `abc`)" in text
    assert "Not measured when this was written" in text
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == VALUES  # as `llava-inspect train` would read it
    assert "--model-path insulator --image-file" in text and "LlavaForConditionalGeneration" in text


def test_in_the_originals_format_it_names_no_other_program(base, tmp_path):
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "llava-v1.5-mine", save_format="llava")
    front, text = card_of(tmp_path / "llava-v1.5-mine")
    assert "library_name" not in front and "base_model" not in front  # the base is a folder here
    assert "transformers" not in text.partition("## Use")[2]
    assert "--model-path llava-v1.5-mine --image-file picture.jpg --conv-mode vicuna_v1" in text


def test_several_and_another_tools(base, tmp_path):
    runs = [describe(save_run(tmp_path / name, base), config=VALUES) for name in ("a", "b")]
    runs.append(describe(save_run(tmp_path / "c", base), config={"learning_rate": 0.5}))
    merge_adapters(runs, tmp_path / "mixed", weights=[0.5, 0.25, 0.25])
    _, text = card_of(tmp_path / "mixed")
    assert "`a`, step 3, weight 0.5: LoRA" in text and "`c`, step 3, weight 0.25: LoRA" in text
    assert "Of `a`, `b`, for" in text and "Of `c`, for" in text and text.count("```yaml") == 2
    other_tools_adapter(base, tmp_path / "theirs", use_rslora=True)
    merge_adapters(tmp_path / "theirs", tmp_path / "foreign")
    _, text = card_of(tmp_path / "foreign")
    assert "- Adapter: `theirs`: rsLoRA, rank 4, alpha 6; 6 layers adapted in the vision tower" in text
    assert text.count("Not recorded.") == 2


def test_scores_come_from_eval_score(base, tmp_path):
    run = save_run(tmp_path / "run", base)
    rows = [("1", "yes", "yes"), ("2", "no", "yes")]
    questions = [
        {"question_id": key, "answer": truth, "task": "presence", "type": "yesno", "group": key}
        for key, truth, _ in rows
    ]
    answers = [
        {"question_id": key, "prompt": "?", "text": text, "answer_id": key, "model_id": "m", "metadata": {}}
        for key, _, text in rows
    ]
    for name, lines in (("truth", questions), ("answers", answers)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = ["--answers-file", tmp_path / "answers.jsonl", "--truth-file", tmp_path / "truth.jsonl"]
    done = run_here(score_command, *files, "--output", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    merge = ["--model-path", run, "--save-model-path", tmp_path / "out", "--scores"]
    wrong = run_here(merge_command, *merge, base / "config.json")
    assert wrong.returncode == 2 and wrong.stderr.startswith(f"error: {base / 'config.json'}: ")
    assert not (tmp_path / "out").exists()
    done = run_here(merge_command, *merge, tmp_path / "scores" / "scores.json")
    assert done.returncode == 0, done.stderr
    _, text = card_of(tmp_path / "out")
    assert "| presence | balanced_accuracy | 2 | - | 0.50 " in text and "`answers.jsonl`" in text
