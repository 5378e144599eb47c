"""The models that words are asked of are loaded or reached as their flags say."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from llava.common.errors import InputError
from llava_inspect.making.words import find_asker, find_writer
from tests.support.chat_server import fake_chat


def flags(**named: object) -> Namespace:
    nothing = dict.fromkeys(("keyword_model", "keyword_name", "language_model", "language_name"))
    return Namespace(**{**nothing, "device": "cpu", "load_8bit": False, "load_4bit": False, **named})


def test_no_flag_is_no_model() -> None:
    assert find_asker(flags()) is find_writer(flags()) is None


def test_a_folder_gives_keywords(tiny_model_dir: Path) -> None:
    ask = find_asker(flags(keyword_model=str(tiny_model_dir)))
    assert ask is not None
    assert len(ask(Image.new("RGB", (40, 30), "teal"), ["Which mood?"])) == 1


def test_servers_are_asked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_chat() as chat:
        ask = find_asker(flags(keyword_model=chat.url, keyword_name="sees"))
        write = find_writer(flags(language_model=chat.url, language_name="writes"))
        assert ask is not None and write is not None
        assert ask(Image.new("RGB", (40, 30)), ["Which mood?"]) == ["calm"]
        assert write("Say it.") == "calm"
        assert [body["model"] for body in chat.asked] == ["sees", "writes"]
        chat.status = 404
        with pytest.raises(InputError, match=r"^--language-model: http.* lists no models"):
            find_writer(flags(language_model=chat.url))


def test_folders_without_a_model_are_named_by_their_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--keyword-model: .*no such model folder"):
        find_asker(flags(keyword_model=str(tmp_path / "absent")))
    with pytest.raises(InputError, match=r"^--language-model: .*no such model folder"):
        find_writer(flags(language_model=str(tmp_path / "absent")))
