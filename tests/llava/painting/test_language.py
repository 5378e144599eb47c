"""A language model in a folder writes; the model that answers questions gives keywords."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llava.common.errors import InputError
from llava.inference.engine import Engine
from llava.model.builder import load_model
from llava.painting.keywords import engine_asker
from llava.painting.language import LanguageModel
from llava.painting.prompts import write_prompt
from tests.support.tiny_models import TOKENIZER_FOLDER, save_base

TEMPLATE = "{% for m in messages %}USER: {{ m['content'] }} ASSISTANT:{% endfor %}"


def save_language_model(folder: Path, template: str | None) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_folder_writes_the_same_again(
    tmp_path: Path, template: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.painting.language._MAX_TOKENS", 12)
    monkeypatch.setattr("llava.painting.language._MAX_CONTINUED", 12)
    model = LanguageModel(save_language_model(tmp_path / "lm", template), device="cpu")
    first = model.write("Write a prompt.")
    assert first and first == model.write("Write a prompt.") != model.write("Another one.")
    assert "a nest on a tower" in write_prompt("a nest on a tower", ["fog"], model.write, "{wish}")


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(InputError, match="no language model that can be loaded"):
        LanguageModel(tmp_path, device="cpu")
    with pytest.raises(InputError, match="no such model folder"):
        LanguageModel(tmp_path / "absent", device="cpu")


def test_a_llava_answers_about_a_picture(tmp_path: Path) -> None:
    engine = Engine(load_model(save_base(tmp_path / "llava"), device="cpu"))
    ask = engine_asker(engine)
    answers = ask(Image.new("RGB", (40, 30), "teal"), ["What is it?", "Which mood?"])
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
