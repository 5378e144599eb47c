"""The talk of a visitor: memory and what it forgets, undo, stop, boxes, closed questions, limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.common.errors import InputError
from llava.deciding.in_talk import decide_in_talk
from llava.inference.chat import Chat
from llava.inference.live import LiveEngine
from llava.inference.model_runner import ModelRunner
from llava.inference.sampling import SamplingOptions
from llava.model.builder import LoadedModel, load_model
from llava.serve.http.limits import Limits
from llava.serve.page.pictures import ShownPictures
from llava.serve.page.talk import PageTalk, boxes_on
from tests.support.certified import certified
from tests.support.small_model import image, random_model

GREEDY = SamplingOptions(max_new_tokens=12)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return load_model(tiny_model_dir)


@pytest.fixture(scope="module")
def live(loaded: LoadedModel) -> Iterator[LiveEngine]:
    with LiveEngine(loaded) as engine:
        yield engine


def new_talk(live: LiveEngine, **limits: Any) -> PageTalk:
    return PageTalk(live, ShownPictures(), Limits(**limits))


def ask(talk: PageTalk, question: str, options: SamplingOptions = GREEDY) -> Any:
    exchange = talk.ask(question, options)
    while talk.wait(0.1):
        pass
    return exchange


def test_its_answers_are_those_of_a_chat(loaded: LoadedModel, live: LiveEngine) -> None:
    talk, chat = new_talk(live), Chat(ModelRunner(loaded), max_new_tokens=12)
    for question in ("Is there a circle?", "And where?", "Sure?", "Describe it.", "What else?", "Why?"):
        if question in ("Is there a circle?", "Describe it."):
            talk.add_photo(image(len(talk.exchanges)))
            chat.add_image(image(len(talk.exchanges)))
        assert ask(talk, question).answer == "".join(chat.ask(question))
    assert len(talk.exchanges) == 6
    assert talk.undo() == "Why?" and chat.undo() == "Why?"
    assert ask(talk, "Why not?").answer == "".join(chat.ask("Why not?"))


def test_it_says_what_it_has_forgotten(live: LiveEngine) -> None:
    talk = new_talk(live)
    talk.add_photo(image(1))
    words = "circle square star " * (live.runner.context_len // 40)
    while not ask(talk, words).forgotten:
        assert len(talk.exchanges) < 40
    assert talk.exchanges[-1].answer or talk.exchanges[-1].cut
    for _ in range(len(talk.exchanges) - talk.exchanges[-1].forgotten):
        assert talk.undo() is not None
    assert talk.undo() is None and talk.exchanges  # shown, but the model does not know them any more
    talk.clear()
    assert not talk.exchanges and not talk.has_photo


def test_a_stopped_answer_stays_and_the_talk_goes_on(tiny_model_dir: Path) -> None:
    with LiveEngine(random_model(tiny_model_dir)) as live:
        talk = new_talk(live)
        talk.add_photo(image(1))
        exchange = talk.ask("Describe it.", SamplingOptions(max_new_tokens=200))
        while not exchange.answer:
            assert talk.wait(10)
        talk.end()
        assert exchange.stopped and not exchange.cut and talk.exchanges == [exchange]
        assert ask(talk, "And now?").answer
        exchange = talk.ask("Once more?", SamplingOptions(max_new_tokens=200))
        talk.end()  # perhaps before the first word: then it is as if it had not been asked
        assert len(talk.exchanges) == 2 + bool(exchange.answer)
        assert ask(talk, "And now?").answer


def test_a_closed_question_has_probabilities(live: LiveEngine) -> None:
    talk = new_talk(live)
    talk.add_photo(Image.new("RGB", (200, 150), "gray"))
    closed = ask(talk, "Is there a red star? Answer yes or no.")
    assert closed.yes_no is not None and sum(closed.yes_no.values()) == pytest.approx(1)
    assert max(closed.yes_no, key=closed.yes_no.__getitem__) == closed.answer
    assert ask(talk, "Describe the picture.").yes_no is None


def test_a_decision_is_made_where_its_question_is_asked(
    loaded: LoadedModel, live: LiveEngine, tiny_model_dir: Path
) -> None:
    """Of the photo shown last by itself, as in a chat in the terminal."""
    wording = "Is there a defect?"
    decision = certified(tiny_model_dir, sound_below=None, defect_from=0.0)
    talk = PageTalk(live, ShownPictures(), Limits(), decision)
    assert ask(talk, wording).decided is None, "no photo yet"
    for seed in (1, 2):
        talk.add_photo(image(seed))
        assert ask(talk, "Describe it.").decided is None
        chat = Chat(ModelRunner(loaded), max_new_tokens=12)
        chat.add_image(image(seed))
        "".join(chat.ask(wording))
        alone = decide_in_talk(decision, chat, wording)
        decided = ask(talk, wording).decided
        assert alone is not None and decided.call == alone.call == "defect"
        assert decided.p_yes == pytest.approx(alone.p_yes, abs=1e-5)


def test_boxes_of_an_answer_lie_on_the_photo() -> None:
    # a photo of 200x100 in LLaVA-1.5's square has a quarter of padding above it and below
    answer = "Here [0.5, 0.25, 1.0, 0.75], not [0.1, 0.0, 0.2, 0.2] (padding), nor [10, 20, 30, 40]."
    assert boxes_on(answer, (200, 100), "padded") == [(0.5, 0.0, 1.0, 1.0)]
    assert len(boxes_on(answer, (200, 100), "whole")) == 2


def test_pictures_are_limited_and_dropped_with_the_talk(live: LiveEngine) -> None:
    talk = new_talk(live, max_pictures=2)
    talk.add_photo(image(1))
    talk.add_photo(image(2))
    with pytest.raises(InputError, match="at most 2 photos"):
        talk.add_photo(image(3))
    ask(talk, "Which?")
    address = talk.exchanges[0].photos[0]
    pictures = talk._pictures
    assert pictures.get(address.rpartition("/")[2])
    talk.clear()
    assert pictures.get(address.rpartition("/")[2]) is None


def test_what_the_model_has_read_can_be_forgotten(live: LiveEngine) -> None:
    ask(new_talk(live), "Describe the picture.")
    assert live.state.prefix_bytes
    live.forget()
    end = time.monotonic() + 5
    while live.state.prefix_bytes and time.monotonic() < end:
        time.sleep(0.01)
    assert not live.state.prefix_bytes
