"""`llava.train` on LLaVA-1.6 and OneVision: a run directory that answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.common.images import open_image
from llava.export.merge import merge_adapters
from llava.inference.engine import Engine, Request
from llava.model.builder import load_model
from llava.train.__main__ import main
from tests.support.family_models import save_family
from tests.support.train_data import ask, many, write_data


@pytest.mark.parametrize("family", ["llava_next-mistral", "llava_onevision-qwen2"])
def test_a_run_trains_validates_and_answers(tiny_model_dir: Path, tmp_path: Path, family: str) -> None:
    base = save_family(tiny_model_dir, tmp_path / "base", family, scale=0.05)
    both = ask("both", None, "<image> or <image>?", "Yes.") | {"image": ["p0.png", "p1.png"]}
    data = write_data(tmp_path, [*many(2, 3), ask("text", None, "Hello?", "Hi.")])
    data.write_text(json.dumps([*json.loads(data.read_text()), both]))
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "model_name_or_path": str(base), "data_path": str(data), "val_path": str(data),
                "image_folder": str(tmp_path), "output_dir": str(tmp_path / "run"), "max_steps": 2,
                "max_length": 400, "gradient_accumulation_steps": 1, "eval_max_new_tokens": 4,
                "dtype": "float32", "augment": {"flip_horizontal": 0.5, "shrink": 0.2},
                "lora": {"language_targets": ["q_proj"], "vision_targets": ["q_proj"], "rank": 2},
            }
        )
    )  # fmt: skip
    assert main([str(config)]) == 0
    merge_adapters(tmp_path / "run", tmp_path / "merged")
    answers = []
    for folder in ("run", "merged"):
        loaded = load_model(tmp_path / folder, device="cpu")
        assert loaded.template.name == "vicuna_v1"  # the base's own chat template, no conv_mode was given
        image = open_image(tmp_path / "p0.png")
        answers += Engine(loaded).answer([Request(1, "What?", [image])], max_new_tokens=3)
    run, merged = answers
    assert run.error is None and (run.text, run.error) == (merged.text, merged.error)
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert type(loaded.model).__name__ in card and "padded" not in card
