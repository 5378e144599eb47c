"""Keywords of a picture, from answers of any form, of a model here or on a server."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from llava.common.errors import InputError
from llava.painting.chat_server import ChatServer
from llava.painting.keywords import QUESTIONS, find_keywords, parse_keywords
from tests.support.chat_server import fake_chat

PICTURE = Image.new("RGB", (40, 30), "teal")


@pytest.mark.parametrize(
    ("answer", "keywords"),
    [
        ("Calm, serene, misty.", ["calm", "serene", "misty"]),
        ("1. Calm\n2. Serene\n3. calm", ["calm", "serene"]),
        ("- **Calm**\n- blue-grey sky", ["calm", "blue-grey sky"]),
        ("Keywords: steel, wet glass", ["steel", "wet glass"]),
        ("The mood of the image can be described as calm and serene.", ["calm", "serene"]),
        ("The weather is sunny, with blue sky", ["sunny", "with blue sky"]),
        ("맑음, 산", ["맑음", "산"]),
        ("晴朗，山、铁塔。", ["晴朗", "山", "铁塔"]),
        ("I'm sorry, I cannot see the weather.", []),
        ("Unknown", []),
        ("calm, a very long remark about what one may see there", ["calm"]),
        ("", []),
    ],
)
def test_an_answer_is_read(answer: str, keywords: list[str]) -> None:
    assert parse_keywords(answer) == keywords


def test_keywords_of_all_questions_are_joined_once() -> None:
    asked: list[str] = []

    def ask(picture: Image.Image, questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        return ["calm, grey", "steel, glass, calm, rust, moss", "grey, rain", ""]

    assert find_keywords(PICTURE, ask) == ["calm", "grey", "steel", "glass", "rust", "rain"]
    assert tuple(asked) == QUESTIONS and "mood" in asked[0]


def test_a_server_sees_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_chat() as chat:
        server = ChatServer(chat.url)
        assert server.model == "first" and server.url == f"{chat.url}/v1"
        assert find_keywords(PICTURE, server.see) == ["calm"]
        first, text = chat.asked[0]["messages"][0]["content"]
        assert first["image_url"]["url"].startswith("data:image/jpeg;base64,")
        assert text["text"] == QUESTIONS[0] and len(chat.asked) == len(QUESTIONS)
        assert ChatServer(f"{chat.url}/v1/", "named").write("Say it.") == "calm"
        assert chat.asked[-1]["model"] == "named"
        assert chat.asked[-1]["messages"] == [{"role": "user", "content": "Say it."}]
        chat.status = 404
        with pytest.raises(InputError, match="named gives no answer"):
            ChatServer(chat.url, "named").write("Say it.")
        with pytest.raises(InputError, match="lists no models"):
            ChatServer(chat.url)
    with pytest.raises(InputError, match="expected an address"):
        ChatServer("localhost:11434")
