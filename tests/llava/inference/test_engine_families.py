"""Answers of LLaVA-1.6 and OneVision, with the image read once, are those of transformers' generate."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava.inference.chat import Chat
from llava.inference.engine import Engine, Request
from llava.inference.model_runner import ModelRunner
from llava.model.builder import LoadedModel
from tests.support.family_models import FAMILIES, load_family
from tests.support.small_model import image, plain_generate, plain_text

WIDE, TALL, SQUARE = image(1, (160, 40)), image(2, (30, 140)), image(3, (50, 50))


@pytest.fixture(scope="module", params=FAMILIES[1:])
def loaded(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    return load_family(tiny_model_dir, tmp_path_factory.mktemp("family") / "model", request.param)


def test_batched_answers_equal_one_at_a_time(loaded: LoadedModel) -> None:
    questions = ["Is there a red circle?", "How many?"]
    requests = [Request(f"{q}{n}", q, [p]) for q in questions for n, p in enumerate((WIDE, TALL, SQUARE))]
    requests += [Request("both", "Which is darker?", [TALL, WIDE]), Request("text", "Hello?")]
    requests.insert(2, Request("inline", "Look at <image> and say what it is.", [WIDE]))
    results = Engine(loaded).answer(requests, batch_size=5, max_new_tokens=12)
    assert [r.error for r in results] == [None] * len(results)
    assert [r.text for r in results] == [plain_text(loaded, r.text, list(r.images), 12) for r in requests]
    assert len({r.text for r in results}) > len(results) // 2


def test_beam_search_takes_several_images(loaded: LoadedModel) -> None:
    requests = [Request("one", "What?", [WIDE]), Request("both", "Which?", [TALL, WIDE])]
    beams = Engine(loaded).answer(requests, num_beams=2, max_new_tokens=6)
    assert [r.error for r in beams] == [None, None]


def test_a_chat_equals_a_fresh_reading_when_images_join(loaded: LoadedModel) -> None:
    """To OneVision the first image is another thing once a second has joined it."""
    chat = Chat(ModelRunner(loaded), max_new_tokens=8)
    shown = []
    for shot, question in ((WIDE, "What is it?"), (None, "Sure?"), (TALL, "Which?"), (SQUARE, "And now?")):
        if shot is not None:
            chat.add_image(shot)
            shown.append(shot)
        answer = "".join(chat.ask(question))
        sizes = [(p.height, p.width) for p in shown]
        ids = loaded.processor.encode_prompt(chat.history[:-1], sizes)
        tokens = plain_generate(loaded, ids, shown, 8)
        assert answer == loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()
