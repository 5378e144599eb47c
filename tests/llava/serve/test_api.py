"""The service as a user starts it: `python -m llava.serve.api`."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llava.serve.api import listen, main
from tests.support.commands import run_here
from tests.support.paths import REPO
from tests.support.served import user_message
from tests.support.small_model import image
from tests.support.warm import WarmProcess

TINY = REPO / "playground" / "tiny-llava"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def started(port: int, log: Path) -> Iterator[WarmProcess]:
    with log.open("w") as stderr:
        process = WarmProcess("-m", "llava.serve.api", "--model-path", TINY, "--port", port, stderr=stderr)
    try:
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def client(port: int, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", **({"api_key": "none"} | options))


def ask(port: int, number: int, **options: Any) -> str:
    messages: Any = [user_message(f"Is there a circle in picture {number}?", image(number % 3))]
    body: Any = {"model": "tiny-llava", "messages": messages, "max_tokens": 16}
    return client(port, **options).chat.completions.create(**body).choices[0].message.content or ""


@pytest.mark.slow
def test_killed_and_started_again_under_load_no_client_lacks_an_answer(tmp_path: Path) -> None:
    port = free_port()
    answers: dict[int, list[str]] = {number: [] for number in range(24)}

    def ask_some(numbers: range) -> None:
        for number in numbers:
            answers[number].append(ask(port, number, max_retries=12, timeout=30))

    with started(port, tmp_path / "first") as first:
        expected = {number: ask(port, number) for number in range(24)}
        clients = [threading.Thread(target=ask_some, args=(range(n, 24, 4),)) for n in range(4)]
        for thread in clients:
            thread.start()
        time.sleep(0.15)
        first.kill()
        first.wait()
    assert any(not found for found in answers.values()), "it was killed in the middle"
    with started(port, tmp_path / "second") as second:
        for thread in clients:
            thread.join()
        assert answers == {number: [text] for number, text in expected.items()}
        # at the end, what runs may end, nothing new begins, and the log has no content
        body = {
            "model": "tiny-llava", "stream": True, "temperature": 2, "max_tokens": 200,
            "messages": [user_message("Describe the picture.", image(1))],
        }  # fmt: skip
        with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            second.send_signal(signal.SIGTERM)
            assert list(lines)[-2] == "data: [DONE]"
        assert second.wait(20) == 0
        log = (tmp_path / "second").read_text()
        assert f"serving tiny-llava at http://127.0.0.1:{port}/v1" in log and "req-" in log
        assert "picture" not in log and "base64" not in log and "Traceback" not in log


def test_the_first_words_of_a_stream_do_not_wait_for_an_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_bad_flags_are_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    def refused(*flags: object) -> str:
        done = run_here(main, "--model-path", tmp_path / "none", *flags)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        return done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: Address already in use" in refused("--port", port)
    assert "--port 99999" in refused("--port", 99999)
    assert "invalid number above 0 value: '0'" in refused("--max-pictures", 0)
    assert "cannot be read" in refused("--api-key-file", tmp_path / "key")
    (tmp_path / "key").write_text(" \n")
    assert "expected one line" in refused("--api-key-file", tmp_path / "key")
    assert "none" in refused("--port", 0)
