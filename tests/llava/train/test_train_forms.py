"""Every form that `load_model` accepts is a training base: runs and checkpoints load and merge alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llava.common.errors import InputError
from llava.export.convert import export
from llava.export.merge import merge_adapters
from llava.inference.engine import Engine, Request
from llava.model.builder import LoadedModel, load_model
from llava.model.folder import open_model_folder
from llava.train.__main__ import main
from tests.support.family_models import save_family
from tests.support.original_folders import save_original
from tests.support.train_data import many, write_config, write_data

pytestmark = pytest.mark.slow

FORMS: dict[str, dict[str, Any]] = {
    "hugging face": {"family": "llava-llama"},
    "1.5, tower beside": {"family": "llava-llama", "original": True},
    "1.5, tower inside, bin shards": {
        "family": "llava-llama", "original": True, "tower_inside": True, "shards": 2, "form": "bin",
    },
    "1.6, tower inside, safetensors shards": {
        "family": "llava_next-llama", "original": True, "tower_inside": True, "shards": 2,
    },
    "1.6 mistral, bin": {"family": "llava_next-mistral", "original": True, "form": "bin"},
}  # fmt: skip
WIDE = Image.effect_noise((70, 30), 90).convert("RGB")


@pytest.fixture(scope="module", params=FORMS)
def trained(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A base in one of the forms, and a run of two steps on it with a checkpoint of each."""
    form = dict(FORMS[request.param])
    family, place = form.pop("family"), tmp_path_factory.mktemp("trained")
    if form.pop("original", False):
        base, _ = save_original(tiny_model_dir, place / "base", family, **form)
    else:
        base = save_family(tiny_model_dir, place / "base", family)
    write_data(place, many(2, 2))
    config = write_config(
        base, place, place / "run", max_steps=2, batch_size=1, val_path=None, keep_checkpoints=2,
        learning_rate=1e-2, warmup_ratio=0, lora={"rank": 2, "language_targets": ["q_proj", "v_proj"]},
    )  # fmt: skip
    assert main([config]) == 0
    return base, place / "run"


def logits(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.tensor(
        [loaded.processor.encode_prompt([("human", "<image>\nWhat?")], [(WIDE.height, WIDE.width)])]
    )
    pixels = loaded.processor.vision.inputs([loaded.processor.pixels(WIDE)])
    with torch.no_grad():
        found: torch.Tensor = loaded.model(input_ids=ids, **pixels).logits
    return found


def test_runs_and_checkpoints_load_answer_and_merge_alone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    base, run = trained
    plain = load_model(base, device="cpu")
    results = []
    for folder in (run, run / "checkpoint-1"):
        moved = tmp_path / folder.name / "moved"
        shutil.copytree(folder, moved)
        tuned = load_model(moved, device="cpu")
        assert tuned.template == plain.template
        text = "USER: <image>\nWhat is  it, 12?</s>"
        assert tuned.tokenizer(text).input_ids == plain.tokenizer(text).input_ids
        assert tuned.tokenizer.pad_token_id == plain.tokenizer.pad_token_id
        pixels = [loaded.processor.pixels(WIDE).patches for loaded in (tuned, plain)]
        assert torch.equal(*pixels)
        [answer] = Engine(tuned).answer([Request(1, "What?", [WIDE])], max_new_tokens=3)
        assert answer.error is None
        merge_adapters(moved, tmp_path / folder.name / "merged")
        merged = load_model(tmp_path / folder.name / "merged", device="cpu")
        assert merged.template == plain.template
        expected = logits(tuned)
        assert torch.allclose(logits(merged), expected, atol=1e-4 * float(expected.abs().max()))
        results.append(expected)
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[1], logits(plain))


def test_a_run_is_exported_to_the_originals_form(trained: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = trained
    mistral = "mistral" in load_model(run, device="cpu").template.name
    output = tmp_path / ("llava-v1.6-mistral" if mistral else "llava-v1.5-mine")
    export(run, output, "llava")
    expected = logits(load_model(run, device="cpu"))
    found = logits(load_model(output, device="cpu"))
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_what_is_no_whole_model_is_no_base(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Refused in a line, before the data or a weight is read: neither could be."""
    (tmp_path / "train.json").write_text("no JSON")
    original = {"model_type": "llava_llama", "mm_vision_tower": "tower"}
    folders = {
        "run": ({"run.json": {}, "adapter_config.json": {}}, "is a run directory; train on a whole model"),
        "peft": ({"adapter_config.json": {}}, "is an adapter; train on a whole model"),
        "lora": ({"adapter_config.json": {}, "config.json": original}, "is an adapter; train on a whole"),
        "projector": ({"mm_projector.bin": 0, "config.json": original}, "is an adapter; train on a whole"),
        "vicuna": ({"config.json": {"model_type": "llama"}}, "model_type 'llama'"),
        "nothing": ({}, "is not a LLaVA model"),
    }
    for name, (files, message) in folders.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(json.dumps(content))
        config = write_config(tmp_path / name, tmp_path, tmp_path / "out")
        with pytest.raises(InputError, match=message) as told:
            main([config])
        assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_zero_3_reads_no_original_folder(repo: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    base, _ = save_original(tiny_model_dir, tmp_path / "base")
    (tmp_path / "train.json").write_text("no JSON")
    deepspeed = str(repo / "configs" / "deepspeed" / "zero3.json")
    config = write_config(base, tmp_path, tmp_path / "out", deepspeed=deepspeed)
    with pytest.raises(InputError, match="ZeRO-3 reads no original folder"):
        main([config, "--dry-run"])


def test_a_dry_run_of_an_original_needs_its_small_files_only(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, _ = save_original(tiny_model_dir, tmp_path / "base")
    for path in [*base.glob("*.safetensors"), *base.glob("tower/*.bin")]:
        path.unlink()
    assert open_model_folder(base).is_original
    write_data(tmp_path, many(1, 2))
    assert main([write_config(base, tmp_path, tmp_path / "out"), "--dry-run"]) == 0
    assert "language_model LoRA" in capsys.readouterr().out
