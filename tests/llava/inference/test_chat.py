"""A chat with memory answers as a fresh reading of the whole conversation would, whatever interrupts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.inference.chat import Chat
from llava.inference.engine import Engine, Request
from llava.inference.model_runner import ModelRunner
from llava.model.builder import LoadedModel, load_model
from tests.support.small_model import image, plain_generate, random_model


@pytest.fixture(scope="module", params=["random", "tiny"])
def loaded(request: pytest.FixtureRequest, tiny_model_dir: Path) -> LoadedModel:
    return (
        random_model(tiny_model_dir)
        if request.param == "random"
        else load_model(tiny_model_dir, device="cpu")
    )


@pytest.fixture(scope="module")
def random_loaded(tiny_model_dir: Path) -> LoadedModel:
    return random_model(tiny_model_dir)


def fresh(loaded: LoadedModel, chat: Chat, images: list, limit: int) -> str:
    """What a full reading of the chat's prompt, its last answer left out, generates."""
    ids = loaded.processor.encode_prompt(chat.history[:-1])
    tokens = plain_generate(loaded, ids, images, limit)
    return str(loaded.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def test_every_turn_equals_a_fresh_reading(loaded: LoadedModel) -> None:
    chat, first, second = Chat(ModelRunner(loaded), max_new_tokens=12), image(1), image(2)
    read: list[int] = []
    hook = loaded.model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len(args[0] if args else kwargs["pixel_values"])),
        with_kwargs=True,
    )
    try:
        chat.add_image(first)
        answers = ["".join(chat.ask(text)) for text in ("Is there a circle?", "And where?", "Sure?")]
        assert read == [1]  # three turns, one reading
        chat.add_image(second)
        answers.append("".join(chat.ask("Which of both is darker?")))
        assert read == [1, 1]
    finally:
        hook.remove()
    assert [text for speaker, text in chat.history if speaker == "gpt"] == answers
    history = chat.history
    for turns, images in ((2, [first]), (4, [first]), (6, [first]), (8, [first, second])):
        ids = loaded.processor.encode_prompt(history[: turns - 1])
        tokens = plain_generate(loaded, ids, images, 12)
        assert history[turns - 1][1] == loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_a_second_question_reads_only_itself(
    random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the image nor anything else that the first prompt held is read again."""
    read: list[int] = []
    forward = ModelRunner.forward

    def counting(self: ModelRunner, ids: Tensor, *rest: Any, **more: Any) -> Tensor:
        read.append(ids.shape[1])
        return forward(self, ids, *rest, **more)

    monkeypatch.setattr(ModelRunner, "forward", counting)
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=5)
    chat.add_image(image(1))
    prompts = []
    for text in ("Is there a circle?", "And where?"):
        read.clear()
        "".join(chat.ask(text))
        prompts.append(len(random_loaded.processor.encode_prompt(chat.history[:-1])))
        if len(prompts) == 1:
            assert prompts[0] <= sum(read) < prompts[0] + 5  # image included, and the answer but its last
    assert sum(read) < prompts[1] - prompts[0] + 5


def test_a_question_aside_is_no_part_of_the_chat(random_loaded: LoadedModel) -> None:
    """It gets the engine's probabilities for it alone, and the chat goes on as if it had not been asked."""
    runner = ModelRunner(random_loaded)
    chats = [Chat(runner, max_new_tokens=8) for _ in range(2)]
    assert chats[0].probabilities_alone("Is it?", ("yes", "no")) is None
    answers: list[list[str]] = [[], []]
    for seed in (1, 2):
        request = Request(0, "Is it?", [image(seed)], ("yes", "no"))
        (expected,) = Engine(random_loaded).answer([request], max_new_tokens=1)
        for chat, said in zip(chats, answers, strict=True):
            chat.add_image(image(seed))
            said += ["".join(chat.ask("What is it?")), "".join(chat.ask("Sure?"))]
        aside = chats[0].probabilities_alone("Is it?", ("yes", "no"))
        assert aside == pytest.approx(expected.choices, abs=1e-5)
        assert chats[0].history == chats[1].history
    assert "".join(chats[0].ask("And?")) == "".join(chats[1].ask("And?"))
    assert answers[0] == answers[1]
    with pytest.raises(InputError, match="context"):
        chats[0].probabilities_alone("Is it? " * 2000, ("yes", "no"))
    assert "".join(chats[0].ask("So?")) == "".join(chats[1].ask("So?"))


def test_undo_takes_the_last_exchange_back(random_loaded: LoadedModel) -> None:
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=8)
    assert chat.undo() is None
    tower: list[int] = []
    hook = random_loaded.model.model.vision_tower.register_forward_pre_hook(lambda *_: tower.append(1))
    try:
        chat.add_image(image(1))
        first = "".join(chat.ask("What is it?"))
        after_first = chat.history
        "".join(chat.ask("Really?"))
        assert chat.undo() == "Really?"
        assert chat.history == after_first
        assert "".join(chat.ask("And where?")) == fresh(random_loaded, chat, [image(1)], 8)
        tower.clear()
        assert [chat.undo(), chat.undo(), chat.undo()] == ["And where?", "What is it?", None]
        assert chat.history == []
        assert "".join(chat.ask("What is it?")) == first
        assert chat.history[0] == ("human", "<image>\nWhat is it?")  # its image waited
        assert not tower
    finally:
        hook.remove()
    chat.undo()
    chat.add_image(image(2))  # behind the one that waits
    assert "".join(chat.ask("Which?")) == fresh(random_loaded, chat, [image(1), image(2)], 8)


def test_reset_may_keep_the_last_image(random_loaded: LoadedModel) -> None:
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=8)
    chat.reset(keep_image=True)
    assert "".join(chat.ask("Hello?")) == fresh(random_loaded, chat, [], 8)
    chat.reset()
    chat.add_image(image(1))
    first = "".join(chat.ask("What is it?"))
    "".join(chat.ask("Really?"))
    hook = random_loaded.model.model.vision_tower.register_forward_pre_hook(_interrupt)
    try:  # the image is not read again
        chat.reset(keep_image=True)
        assert chat.history == [] and "".join(chat.ask("What is it?")) == first
    finally:
        hook.remove()
    chat.add_image(image(2))
    "".join(chat.ask("And this?"))
    chat.reset(keep_image=True)
    assert "".join(chat.ask("What is it?")) == fresh(random_loaded, chat, [image(2)], 8)
    chat.reset()
    assert "".join(chat.ask("What is it?")) == fresh(random_loaded, chat, [], 8)


def test_another_image_is_not_taken_for_the_first(random_loaded: LoadedModel) -> None:
    """Both prompts have the same ids; what the cache holds of one image must not serve the other."""
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=8)
    chat.add_image(image(1))
    before = "".join(chat.ask("What is it?"))
    chat.reset()
    chat.add_image(image(2))
    assert "".join(chat.ask("What is it?")) == fresh(random_loaded, chat, [image(2)], 8) != before


def test_stop_keeps_what_was_said(random_loaded: LoadedModel) -> None:
    random_loaded.model.generation_config.eos_token_id = 2
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=60)
    chat.add_image(image(1))
    pieces = chat.ask("Describe it.")
    streamed = next(pieces) + next(pieces)
    chat.stop()
    streamed += "".join(pieces)
    assert chat.history[-1] == ("gpt", streamed)
    assert len(streamed) < len(fresh(random_loaded, chat, [image(1)], 60))
    assert "".join(chat.ask("Go on.")) == fresh(random_loaded, chat, [image(1)], 60)


def test_a_closed_stream_keeps_what_was_said(random_loaded: LoadedModel) -> None:
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=60)
    chat.add_image(image(1))
    pieces = chat.ask("Describe it.")
    streamed = next(pieces)
    pieces.close()
    assert chat.history[-1] == ("gpt", streamed)
    assert "".join(chat.ask("Go on.")) == fresh(random_loaded, chat, [image(1)], 60)


@pytest.mark.parametrize("forwards", [0, 3])
def test_an_interrupt_inside_the_model_leaves_the_chat_usable(
    random_loaded: LoadedModel, forwards: int
) -> None:
    """Ctrl-C between two layers: the cache's layers are uneven, and the next turn must not notice."""
    random_loaded.model.generation_config.eos_token_id = 2
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=20)
    chat.add_image(image(1))
    "".join(chat.ask("What is it?"))
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > forwards:
            raise KeyboardInterrupt

    hook = random_loaded.model.model.language_model.layers[1].mlp.register_forward_pre_hook(interrupt)
    streamed = ""
    try:
        with pytest.raises(KeyboardInterrupt):
            for piece in chat.ask("Describe it."):
                streamed += piece
    finally:
        hook.remove()
    if streamed:
        assert chat.history[-2:] == [("human", "Describe it."), ("gpt", streamed)]
    else:
        assert len(chat.history) == 2  # interrupted before its first word: the question is taken back
    assert "".join(chat.ask("Go on.")) == fresh(random_loaded, chat, [image(1)], 20)


def test_an_interrupted_first_question_keeps_the_image(random_loaded: LoadedModel) -> None:
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=8)
    chat.add_image(image(1))
    hook = random_loaded.model.model.vision_tower.register_forward_pre_hook(_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(chat.ask("What is it?"))
    finally:
        hook.remove()
    assert chat.history == []
    assert "".join(chat.ask("What is it?")) == fresh(random_loaded, chat, [image(1)], 8)
    assert chat.history[0] == ("human", "<image>\nWhat is it?")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_oldest_exchanges_are_forgotten_and_the_image_is_not(tiny_model_dir: Path) -> None:
    loaded = random_model(tiny_model_dir, context=160)
    chat = Chat(ModelRunner(loaded), max_new_tokens=12)
    chat.add_image(image(1))
    for index in range(8):
        text = "".join(chat.ask(f"What about part {index} of the picture?"))
        assert text == fresh(loaded, chat, [image(1)], 12)
        assert chat.history[0][1].startswith("<image>\n")
        assert len(loaded.processor.encode_prompt(chat.history[:-1])) + 12 <= 160
    assert chat.forgotten > 0
    assert len(chat.history) == 2 * (8 - chat.forgotten)
    with pytest.raises(InputError, match="context is 160"):
        list(chat.ask("far too long " * 80))
    assert "".join(chat.ask("Still there?")) == fresh(loaded, chat, [image(1)], 12)


def test_sampled_chats_repeat_with_their_seed(random_loaded: LoadedModel) -> None:
    def run_chat(seed: int) -> list[tuple[str, str]]:
        chat = Chat(ModelRunner(random_loaded), max_new_tokens=10, temperature=1.0, seed=seed)
        for text in ("What is it?", "Sure?"):
            list(chat.ask(text))
        return chat.history

    assert run_chat(1) == run_chat(1) != run_chat(2)


def test_no_gradient_is_kept(random_loaded: LoadedModel) -> None:
    chat = Chat(ModelRunner(random_loaded), max_new_tokens=3)
    for _ in chat.ask("yes"):
        assert torch.is_grad_enabled()  # the caller's own mode between pieces
    states = [layer for segment in chat._store._segments for layer in segment.states]
    assert states and not any(part.requires_grad for layer in states for part in layer)
