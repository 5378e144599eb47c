"""The embedded base model, and the generic scenes that it is made from."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from tests.support.paths import REPO

FOLDER = REPO / "playground" / "tiny-llava"
PIECES = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="▁<\x00"), max_size=40)
)
def test_both_tokenizers_agree(text: str) -> None:
    """tokenizer.json, which we read, and tokenizer.model, which the original LLaVA and llama.cpp read."""
    text = "x" + text  # a leading space is the one place where they differ, and no prompt begins with one
    assert TOKENIZER.encode(text) == [PIECES.bos_id(), *PIECES.encode(text)]


def test_plain_transformers_loads_it() -> None:
    model, report = LlavaForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (FOLDER / "model.safetensors").stat().st_size <= 25e6
    assert model.config.image_token_id == TOKENIZER.convert_tokens_to_ids("<image>") == len(PIECES)


def test_scenes_are_pure_functions_of_seed_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPO / "scripts"), *sys.path])
    from tiny_base.canvas import CHANNELS
    from tiny_base.questions import questions
    from tiny_base.scenes import render

    for index in range(12):
        first, again = render(7, index), render(7, index)
        assert first.image.tobytes() == again.image.tobytes()
        assert np.array_equal(first.labels, again.labels)
        if first.row and first.row.condition:  # what is asked about is what is labelled
            assert first.labels[..., CHANNELS.index("element")].any()
            answers = {answer for family, _, answer in questions(first, np.random.default_rng(0))
                       if family == "row_whole"}  # fmt: skip
            assert answers == {"no"}
    assert render(7, 0).image.tobytes() != render(8, 0).image.tobytes()
