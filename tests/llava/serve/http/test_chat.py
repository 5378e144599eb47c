"""/v1/chat/completions, asked by the openai client over a socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from llava.inference.engine import Engine, Request
from llava.inference.requests import Result
from llava.model.builder import LoadedModel
from llava.serve.http.limits import Limits
from llava.serve.http.token_bytes import TokenBytes
from tests.support.family_models import FAMILIES, load_family
from tests.support.served import Served, data_url, served, user_message
from tests.support.small_model import image, random_model

TEXTS = ["What?", "Is there a red circle on the left?", "How many are there, and which is the largest?"]


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return random_model(tiny_model_dir)


@pytest.fixture(scope="module")
def server(loaded: LoadedModel) -> Iterator[Served]:
    with served(loaded, Limits(max_json_mib=2, max_megapixels=1, max_pictures=4)) as running:
        yield running


def client(server: Served, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", **({"api_key": "none", "max_retries": 0} | options))


def alone(loaded: LoadedModel, request: Request, **options: Any) -> Result:
    (result,) = Engine(loaded).answer([request], **options)
    return result


def ask(server: Served, text: str = "What?", *images: Any, **body: Any) -> Any:
    messages = [user_message(text, *images)]
    return client(server).chat.completions.create(**({"model": "random", "messages": messages} | body))


def joined(stream: Any) -> tuple[dict[int, str], dict[int, str], Any]:
    """Return the texts of a stream, how each ended, and the usage."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            assert choice.index not in reasons, "nothing comes after the end"
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


@pytest.mark.parametrize("text", TEXTS)
def test_answers_are_those_of_the_engine(server: Served, loaded: LoadedModel, text: str) -> None:
    shown = image(3)
    expected = alone(loaded, Request(0, text, [shown], ["yes", "no"]), max_new_tokens=30)
    reply = ask(server, text, shown, max_tokens=30, extra_body={"choices": ["yes", "no"]})
    choice = reply.choices[0]
    assert choice.message.content == expected.text
    assert choice.finish_reason == ("length" if expected.truncated else "stop")
    assert choice.choice_probabilities == pytest.approx(expected.choices, abs=1e-5)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (
        expected.prompt_tokens, expected.completion_tokens,
    )  # fmt: skip
    again = ask(server, text, shown, max_tokens=30, stream=True, stream_options={"include_usage": True})
    texts, reasons, usage = joined(again)
    assert (texts, reasons) == ({0: expected.text}, {0: choice.finish_reason})
    assert usage.prompt_tokens_details.cached_tokens > 20, "the picture was read before"
    assert usage.total_tokens == expected.prompt_tokens + expected.completion_tokens


def test_a_conversation_with_its_own_system_text(server: Served, loaded: LoadedModel) -> None:
    first, second = image(1), image(2)
    messages: list[Any] = [
        {"role": "system", "content": "Answer briefly."},
        user_message("What is it?", first),
        {"role": "assistant", "content": "a disc"},
        # as most clients write it; a picture comes before the words all the same
        {"role": "user", "content": list(reversed(user_message("And now?", second)["content"]))},
    ]
    request = Request(
        0, "<image>\nAnd now?", [first, second], system="Answer briefly.",
        history=[("human", "<image>\nWhat is it?"), ("gpt", "a disc")],
    )  # fmt: skip
    expected = alone(loaded, request, max_new_tokens=20)
    assert ask(server, messages=messages, max_tokens=20).choices[0].message.content == expected.text
    del messages[0]
    without = alone(
        loaded, Request(0, request.text, request.images, history=request.history), max_new_tokens=20
    )
    assert (
        ask(server, messages=messages, max_tokens=20).choices[0].message.content
        == without.text
        != expected.text
    )
    marked = user_message("<image> or <image>?", first, second)
    expected = alone(loaded, Request(0, "<image> or <image>?", [first, second]), max_new_tokens=20)
    assert ask(server, messages=[marked], max_tokens=20).choices[0].message.content == expected.text


def test_several_sampled_answers(server: Served, loaded: LoadedModel) -> None:
    options: Any = {"temperature": 1.5, "seed": 7, "max_tokens": 12}
    reply = ask(server, TEXTS[1], image(4), n=3, **options)
    texts = [choice.message.content for choice in reply.choices]
    assert len(set(texts)) == 3 and [choice.index for choice in reply.choices] == [0, 1, 2]
    request = Request(0, TEXTS[1], [image(4)])
    assert texts[0] == alone(loaded, request, temperature=1.5, seed=7, max_new_tokens=12).text
    streamed, reasons, _ = joined(ask(server, TEXTS[1], image(4), n=3, stream=True, **options))
    assert [streamed[index] for index in range(3)] == texts and len(reasons) == 3
    unseeded = {
        ask(server, TEXTS[1], image(4), temperature=1.5, max_tokens=12).choices[0].message.content
        for _ in range(4)
    }
    assert len(unseeded) > 1


def test_stop_and_logprobs(server: Served, loaded: LoadedModel) -> None:
    whole = ask(server, TEXTS[2], image(5), max_tokens=30, logprobs=True, top_logprobs=2).choices[0]
    expected = alone(loaded, Request(0, TEXTS[2], [image(5)]), max_new_tokens=30, top_logprobs=2)
    assert [entry.logprob for entry in whole.logprobs.content] == pytest.approx(
        [entry.logprob for entry in expected.logprobs], abs=1e-4
    )
    written = b"".join(bytes(entry.bytes) for entry in whole.logprobs.content)
    assert written.decode(errors="replace").strip() == expected.text
    stream = ask(server, TEXTS[2], image(5), max_tokens=30, logprobs=True, top_logprobs=2, stream=True)
    streamed = [entry for chunk in stream for choice in chunk.choices if choice.logprobs
                for entry in choice.logprobs.content]  # fmt: skip
    assert [entry.token for entry in streamed] == [entry.token for entry in whole.logprobs.content]
    middle = expected.text[len(expected.text) // 2 :][:3]
    stopped = ask(server, TEXTS[2], image(5), max_tokens=30, stop=[middle]).choices[0]
    assert stopped.message.content == expected.text[: expected.text.index(middle)].strip()
    assert stopped.finish_reason == "stop"


class Finding(BaseModel):
    """What a client's program wants to know."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["crack", "rust", "обрыв"]
    row: int = Field(ge=0, le=99)
    sure: bool | None


def test_answers_in_the_form_of_a_json_schema(server: Served) -> None:
    """With the client's own helper for Pydantic models, as a stream, and any JSON object."""
    messages = [user_message("What?", image(2))]
    asked: dict[str, Any] = {"model": "random", "temperature": 1.5, "seed": 3, "max_tokens": 60}
    parse = client(server).chat.completions.parse
    found = parse(messages=messages, response_format=Finding, **asked).choices[0].message
    assert isinstance(found.parsed, Finding)
    schema = {"name": "finding", "schema": Finding.model_json_schema(), "strict": True}
    for form in ({"type": "json_schema", "json_schema": schema}, {"type": "json_object"}):
        texts, reasons, _ = joined(ask(server, "What?", image(2), response_format=form, stream=True, **asked))
        assert texts[0].startswith("{")
        if form["type"] == "json_schema":
            assert (texts[0], reasons[0]) == (found.content, "stop")


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
REFUSED: list[tuple[str, dict[str, Any], int, str | None, str]] = [
    ("another model", {"model": "gpt-4o"}, 404, "model", "there is no model 'gpt-4o'"),
    ("no message", {"messages": []}, 400, "messages", "at least 1"),
    ("no question", {"messages": [{"role": "system", "content": "a"}]}, 400, "messages", "must be the"),
    ("an open answer", {"messages": [user_message("a"), {"role": "assistant", "content": "b"}]}, 400,
     "messages", "last message"),
    ("two questions", {"messages": [user_message("a"), user_message("b")]}, 400,
     "messages.1", "take turns"),
    ("another role", {"messages": [{"role": "tool", "content": "b"}]}, 400, "messages.0.role", "role"),
    ("no picture", {"messages": [{"role": "user", "content": [PICTURE]}]}, 400,
     "messages.0.content.0.image_url.url", "not a picture"),
    ("an address", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://localhost/a.jpg"}}]}]}, 400,
     "messages.0.content.0.image_url.url", ""),
    ("marks", {"messages": [user_message("<image> <image>", image(1))]}, 400,
     "messages.0", "2 <image> mark(s)"),
    ("too many pictures", {"messages": [user_message("a", *[image(1)] * 5)]}, 400, "messages", "at most 4"),
    ("a large picture", {"messages": [user_message("a", image(1, (1001, 1000)))]}, 400,
     "messages.0.content.0.image_url.url", "1001x1000 pixels"),
    ("a long question", {"messages": [user_message("word " * 3000)]}, 400, None, "the model's context is"),
    ("a special token", {"messages": [user_message("</s>")]}, 400, None, "special token"),
    ("temperature", {"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
    ("long answer", {"max_completion_tokens": 10**6}, 400, "max_completion_tokens", "at most"),
    ("tools", {"tools": [{"type": "function", "function": {"name": "a"}}]}, 400, None, "not supported"),
    ("empty stop", {"stop": ""}, 400, None, "stop string is empty"),
    ("no schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
        "type": "word"}}}}, 400, None, "JSON schema: Invalid type: word"),
    ("endless schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
        "$ref": "#"}}}}, 400, "response_format", "no answer can be held to the JSON schema"),
    ("stop in a schema", {"response_format": {"type": "json_object"}, "stop": "a"}, 400, None,
     "do not go together"),
    ("choices twice", {"extra_body": {"choices": ["a", "a"]}}, 400, None, "twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "body", "status", "param", "words"), REFUSED, ids=[row[0] for row in REFUSED]
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_told_in_one_sentence(
    server: Served, name: str, body: dict[str, Any], status: int, param: str | None, words: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, stream=stream, **body)
    error = caught.value
    assert error.status_code == status and isinstance(error.body, dict)
    assert words in error.body["message"] and "\n" not in error.body["message"]
    assert error.body["param"] == param
    assert error.body["request_id"] == error.request_id


@pytest.mark.parametrize("data", [b"", b'{"a', b"\xff\xfe", b"[" * 100_000, b'{"model": 1}', b"null", b"NaN"])
def test_a_body_that_is_no_request(server: Served, data: bytes) -> None:
    reply = httpx.post(
        f"{server.url}/v1/chat/completions", content=data, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"
    assert "pydantic" not in reply.text and "Traceback" not in reply.text


def test_a_large_and_a_slow_request(loaded: LoadedModel) -> None:
    with served(loaded, Limits(max_json_mib=1, max_receive_seconds=0.3)) as server:
        url = f"{server.url}/v1/chat/completions"
        reply = httpx.post(url, content=b"a" * (2**20 + 1))
        assert reply.status_code == 413 and reply.json()["error"]["code"] == "request_too_large"

        for headers, part, status in (
            ("Content-Length: 9", b"{", 408),
            ("Transfer-Encoding: chunked", b"100001\r\n" + bytes(0x100001) + b"\r\n", 413),
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as raw:
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"
                raw.sendall(head.encode() + part)
                assert raw.recv(100).startswith(f"HTTP/1.1 {status}".encode())


def test_the_key(loaded: LoadedModel) -> None:
    with served(loaded, api_key="correct horse") as server:
        for key in ("none", "correct hors", "correct horse_"):
            with pytest.raises(openai.AuthenticationError):
                client(server, api_key=key).models.list()
        assert client(server, api_key="correct horse").models.list().data[0].id == "random"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 401


@pytest.fixture
def endless(tiny_model_dir: Path) -> LoadedModel:
    """Answers end only at their longest length."""
    loaded = random_model(tiny_model_dir)
    loaded.model.generation_config.eos_token_id = 2
    return loaded


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_leaves_its_place(endless: LoadedModel, stream: bool) -> None:
    with served(endless, batch_size=1) as server:
        body = {"model": "random", "messages": [user_message("What?")], "max_tokens": 1900, "stream": stream}
        url = f"{server.url}/v1/chat/completions"
        patience = httpx.Timeout(10, read=0.3)
        with (
            suppress(httpx.ReadTimeout),
            httpx.Client(timeout=patience) as gone,
            gone.stream("POST", url, json=body) as reply,
        ):
            next(reply.iter_lines())
        assert ask(server, max_tokens=2).choices[0].finish_reason == "length"
        until(lambda: server.service.live.state.running == 0)
        assert 'llava_answers_total{reason="cancelled"} 1.0' in httpx.get(f"{server.url}/metrics").text


def test_more_than_may_wait_are_told_to_come_again(endless: LoadedModel) -> None:
    with served(endless, batch_size=1, max_waiting=1) as server:
        streams = [ask(server, max_tokens=400, stream=True)]
        waiting = threading.Thread(target=ask, args=(server,), kwargs={"max_tokens": 2})
        waiting.start()
        until(lambda: server.service.live.state.waiting == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(server, max_tokens=2)
        assert caught.value.response.headers["Retry-After"] == "1"
        assert httpx.get(f"{server.url}/ready").status_code == 200
        patient = client(server, max_retries=20)
        messages: Any = [user_message("What?")]
        reply = patient.chat.completions.create(model="random", messages=messages, max_tokens=2)
        assert reply.choices[0].finish_reason == "length"
        waiting.join()
        for stream in streams:
            assert joined(stream)[1] == {0: "length"}


def test_an_answer_that_takes_too_long(endless: LoadedModel) -> None:
    with served(endless, Limits(max_seconds=0.2)) as server:
        with pytest.raises(openai.InternalServerError) as caught:
            client(server, max_retries=3).chat.completions.create(
                model="random",
                messages=[user_message("What?")],
                max_tokens=1900,  # type: ignore[list-item]
            )
        assert caught.value.code == "out_of_time"
        events = []
        with pytest.raises(openai.APIError, match="time limit"):
            for chunk in ask(server, max_tokens=1900, stream=True):
                events.append(chunk)
        assert events, "what there was has come before the error"


def test_when_the_service_ends(endless: LoadedModel) -> None:
    with served(endless) as server:
        stream = ask(server, max_tokens=300, stream=True)
        server.service.draining = True
        for path in ("/ready", "/v1/models"):
            assert httpx.get(server.url + path).status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert joined(stream)[1] == {0: "length"}


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_of_tokens_joined_are_the_text(tiny_model_dir: Path, tmp_path: Path, family: str) -> None:
    tokenizer = load_family(tiny_model_dir, tmp_path / "model", family).tokenizer
    text = "Zwölf Äpfel, 고슴도치 🦔\n\tand  two spaces"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    made = TokenBytes(tokenizer)
    assert b"".join(made.of(token) for token in ids).decode().strip() == text.strip()
    assert all(json.dumps(made.describe(token)) for token in range(len(tokenizer) + 5))
    assert data_url(image(1)).startswith("data:image/png")
