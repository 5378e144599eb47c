"""Small training sets for the tests of llava.train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def ask(name: str, image: str | None, question: str, answer: str) -> dict[str, Any]:
    mark = "<image>\n" if image else ""
    record: dict[str, Any] = {
        "id": name,
        "conversations": [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}],
    }
    return record | ({"image": image} if image else {})


def write_data(folder: Path, records: list[dict[str, Any]]) -> Path:
    """The records as train.json, with a picture of noise for each that they name."""
    rng = np.random.default_rng(0)
    for name in sorted({record["image"] for record in records if "image" in record}):
        noise = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    path = folder / "train.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_config(base: Path, data: Path, run: Path, **settings: object) -> str:
    """run.yaml beside the folder `run`: trains and validates on `data`, logs, validates and saves every step
    with a rank-2 adapter on each tower, unless `settings` say otherwise."""
    values = {
        "model_name_or_path": str(base),
        "data_path": str(data / "train.json"),
        "val_path": str(data / "train.json"),
        "image_folder": str(data),
        "output_dir": str(run),
        "lora": {"rank": 2, "language_targets": ["q_proj"], "vision_targets": ["fc1"]},
        "gradient_accumulation_steps": 1,
        "max_length": 512,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_steps": 1,
    }
    path = run.parent / f"{run.name}.yaml"
    path.write_text(json.dumps(values | settings), encoding="utf-8")  # JSON is YAML
    return str(path)


def many(images: int, questions: int) -> list[dict[str, Any]]:
    return [
        ask(f"r{p}-{q}", f"p{p}.png", f"Question {q}?", "Yes." if q % 2 else "No.")
        for p in range(images)
        for q in range(questions)
    ]
