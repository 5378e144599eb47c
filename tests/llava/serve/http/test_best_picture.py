"""A search finds the description that fits, in another language too, and says so where none or several do."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava.common.errors import InputError
from llava.inference.engine import Engine
from llava.model.builder import load_model
from llava.serve.http.best_picture import SIMILARITY_THAT_FITS, Ranking, TextEncoder, fit_request, rank
from tests.support.text_encoders import save_text_encoder

KOREAN = "고슴도치 사진을 찾아 줘"


def test_korean_search_among_english_descriptions(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(save_text_encoder(tmp_path / "encoder")))
    scores = encoder.similarities(KOREAN, ["a penguin on snow", "a hedgehog in a hand", "a broken insulator"])
    assert rank(scores, SIMILARITY_THAT_FITS) == Ranking([1], True)
    assert scores[1] == pytest.approx(0.957826)  # the angle between (1, 0, 0, .3) and (1, 0, 0, 0)
    scores = encoder.similarities("펭귄", ["a hedgehog in a hand", "", "a broken insulator"])
    assert not rank(scores, SIMILARITY_THAT_FITS).fits


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.2, 0.9, 0.1], Ranking([1], True)),
        ([0.7, 0.2, 0.700001], Ranking([0, 2], True)),
        ([0.1, 0.3, 0.2], Ranking([1], False)),
        ([math.nan, 0.6], Ranking([1], True)),
        ([math.nan], Ranking([0], False)),
    ],
)
def test_rank(scores: list[float], expected: Ranking) -> None:
    assert rank(scores, 0.5) == expected


def test_query_and_descriptions_are_encoded_each_in_its_own_way() -> None:
    """Models of the E5 kind want "query: " before one and "passage: " before the other."""

    class Encoder:
        def encode_query(self, inputs: list[str], **options: Any) -> Any:
            assert options["normalize_embeddings"]
            return np.array([[1.0, 0.0] for _ in inputs])

        def encode_document(self, inputs: list[str], **options: Any) -> Any:
            return np.array([[0.6, 0.8], [0.0, 1.0]])[: len(inputs)]

    assert TextEncoder(Encoder()).similarities("x", ["a", "b"]) == [0.6, 0.0]


def test_model_is_asked_about_each_description(tiny_model_dir: Path) -> None:
    """The tiny model cannot read: tested is that its probabilities come, and depend on both texts."""
    engine = Engine(load_model(tiny_model_dir, device="cpu"))
    pairs = [("a red circle", "red"), ("a red circle", KOREAN), ("two blue squares", "red")]
    requests = [fit_request(n, search, text) for n, (text, search) in enumerate(pairs)]
    results = engine.answer(requests, max_new_tokens=1)
    probabilities = [result.choices["yes"] for result in results if result.choices]
    assert len(set(probabilities)) == 3
    assert all(0 <= p <= 1 for p in probabilities)


def test_encoder_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(InputError, match=f"--text-encoder {name}: not a sentence-transformers model"):
            TextEncoder.load(name)


def test_encoder_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match="text-encoder"):
        TextEncoder.load("any")
