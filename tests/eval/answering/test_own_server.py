"""`--endpoint` at our own service gives the answers file that `--model-path` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.infer import main
from llava.model.builder import load_model
from tests.support.paths import REPO
from tests.support.served import served
from tests.support.small_model import image

pytest.importorskip("openai", reason="scripts/setup.sh endpoint")

TINY = REPO / "playground" / "tiny-llava"


@pytest.mark.parametrize("decoding", [[], ["--temperature", "1.3", "--top-p", "0.9", "--seed", "5"]])
def test_the_answers_file_is_the_same(tmp_path: Path, decoding: list[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        image(index, (160, 120)).save(images / f"{index}.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    image(3).save(images / "turned.jpg", exif=turned)
    image(4).convert("I;16").save(images / "deep.png")
    (images / "broken.jpg").write_bytes((images / "0.jpg").read_bytes()[:900])
    names = ["0.jpg", "1.jpg", "2.jpg", "turned.jpg", "deep.png", "broken.jpg", ["0.jpg", "1.jpg"], None]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        rows += [
            {
                "question_id": f"{number}/a",
                "image": name,
                "text": "Is there a circle?",
                "choices": ["yes", "no"],
            },
            {"question_id": 2 * number, "image": name, "text": "Describe the picture.\nWhat is on the left?"},
        ]
    rows += [
        {
            "question_id": "marked",
            "image": "1.jpg",
            "text": "In <image>\nwhat is red?",
            "choices": ["it", "none"],
        },
        {"question_id": "long", "image": "1.jpg", "text": "word " * 4000},
        {"question_id": "special", "image": "1.jpg", "text": "a </s> b"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(name: str, *flags: str) -> list[dict[str, Any]]:
        asked = ["--image-folder", str(images), "--question-file", str(tmp_path / "q.jsonl")]
        out = tmp_path / name
        assert main([*flags, *asked, "--answers-file", str(out), "--max-new-tokens", "24", *decoding]) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    here = answer("here.jsonl", "--model-path", str(TINY))
    with served(load_model(str(TINY), device="cpu")) as server:
        there = answer("there.jsonl", "--endpoint", server.url, "--concurrency", "6")
    probabilities = [[row["metadata"].pop("choices", {}) for row in rows] for rows in (here, there)]
    assert there == here
    assert sum("error" in row["metadata"] for row in here) == 4
    assert sum(map(bool, probabilities[0])) == 8
    for ours, theirs in zip(*probabilities, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)
