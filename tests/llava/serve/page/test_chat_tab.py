"""The tab that talks: nothing of a talk is lost to a refusal, and any limit of answers has a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from llava.inference.live import LiveEngine
from llava.inference.sampling import SamplingOptions
from llava.model.builder import load_model
from llava.serve.http.limits import Limits
from llava.serve.page.private_folder import PrivateFolder
from tests.support.certified import certified
from tests.support.small_model import image

if TYPE_CHECKING:
    from llava.serve.page.visitors import Visitors

gr = pytest.importorskip("gradio")


@pytest.fixture
def visitors(tiny_model_dir: Path) -> Iterator[Visitors]:
    from llava.serve.page.visitors import Visitors

    folder = PrivateFolder()
    with LiveEngine(load_model(tiny_model_dir)) as live:
        visitors = Visitors(live, folder, Limits(), idle_seconds=60, per_address=1)
        yield visitors
        visitors.close()
    folder.wipe()


def test_an_answer_stays_where_it_may_not_be_asked_for_again(
    visitors: Visitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava.serve.page.chat_tab import ChatTab

    warnings: list[str] = []
    monkeypatch.setattr(gr, "Warning", warnings.append)
    with gr.Blocks():
        tab = ChatTab(visitors)
    mine, other = (visitors.get(session, "::1") for session in ("mine", "other"))
    exchange = mine.talk.ask("What do you see?", SamplingOptions(max_new_tokens=2))
    while mine.talk.wait(1):
        pass
    running: Any = SimpleNamespace(running=True, end=lambda: None)
    other.jobs.append(running)
    request: Any = SimpleNamespace(session_hash="mine", client=SimpleNamespace(host="::1"), headers={})
    assert len(list(tab._retry(0.0, 1.0, 2, request))) == 1
    assert "answers are on their way" in warnings[0]
    assert mine.talk.exchanges == [exchange]


def test_short_answers_have_a_page_too(visitors: Visitors) -> None:
    from llava.serve.page.chat_tab import ChatTab

    visitors.limits = Limits(max_new_tokens=2)
    with gr.Blocks():
        ChatTab(visitors)


def test_a_decision_stands_below_its_answer(visitors: Visitors, tiny_model_dir: Path) -> None:
    from llava.serve.page.chat_tab import ChatTab
    from llava.serve.page.words import Words

    visitors.decision = certified(tiny_model_dir, sound_below=None, defect_from=None, guarantee="5% < 6%.")
    with gr.Blocks():
        tab = ChatTab(visitors)
    visitor = visitors.get("mine", "::1")
    visitor.talk.add_photo(image(1))
    for question in ("Is there a defect?", "What is it?"):
        visitor.talk.ask(question, SamplingOptions(max_new_tokens=2))
        while visitor.talk.wait(1):
            pass
    _, decided, _, other = (message["content"] for message in tab._messages(visitor, Words("en")))
    assert "<b>Decision: a person must look.</b> P(yes) 0." in decided and "5% &lt; 6%." in decided
    assert "Decision" not in other
