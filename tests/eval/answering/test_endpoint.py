"""`python -m eval.infer --endpoint` against a small server that speaks OpenAI's chat completions."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.small_model import image

pytest.importorskip("openai", reason="scripts/setup.sh endpoint")

from eval.answering.endpoint import MAX_FAILURES, choice_probabilities, data_url, message_parts
from eval.infer import main
from llava.common.errors import InputError

Reply = tuple[int, Any]


class Server:
    """Answers every question with its own text; `behave` may answer a request otherwise."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0
        self.behave: Callable[[dict, int], Reply | None] = lambda body, times: None
        self.models: Reply = (200, {"object": "list", "data": [model("tuned"), model("other")]})
        self._lock, self._now = threading.Lock(), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(*outer.models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.add(self.headers["Authorization"])
                self.reply(*outer.answer(body))

            def reply(self, status: int, value: Any) -> None:
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json" if data[:1] == b"{" else "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After-Ms", "10")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, body: dict) -> Reply:
        with self._lock:
            times = sum(text_of(earlier) == text_of(body) for earlier in self.asked)
            self.asked.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(0.02)
            return self.behave(body, times) or (200, completion(text_of(body)))
        finally:
            with self._lock:
                self._now -= 1


def model(name: str) -> dict:
    return {"id": name, "object": "model", "created": 0, "owned_by": "test"}


def text_of(body: dict) -> str:
    return "|".join(part.get("text", "") for part in body["messages"][0]["content"] if part["type"] == "text")


def completion(text: str, reason: str = "stop", tops: dict[str, float] | None = None) -> dict:
    alternatives = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in (tops or {}).items()]
    logprobs = {"content": [{**alternatives[0], "top_logprobs": alternatives}]} if tops else None
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "tuned",
        "choices": [{"index": 0, "finish_reason": reason, "logprobs": logprobs,
                     "message": {"role": "assistant", "content": text}}],
    }  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Four pictures, three questions about each, one without."""
    (tmp_path / "images").mkdir()
    for index in range(4):
        image(index).save(tmp_path / "images" / f"{index}.png")
    rows: list[dict] = [
        {"question_id": f"{index}/{number}", "image": f"{index}.png", "text": f"Q{index}{number}?"}
        for number in range(3)
        for index in range(4)
    ]
    rows.append({"question_id": 7, "image": None, "text": "Two and two?"})
    write_questions(tmp_path, rows)
    return tmp_path


def write_questions(work: Path, rows: list[dict]) -> None:
    (work / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def arguments(server: Server | str, work: Path, *more: str) -> list[str]:
    url = server if isinstance(server, str) else server.url
    return [
        "--endpoint", url, "--image-folder", str(work / "images"),
        "--question-file", str(work / "q.jsonl"), "--answers-file", str(work / "out" / "a.jsonl"), *more,
    ]  # fmt: skip


def answers(work: Path) -> dict[str | int, dict]:
    rows = [json.loads(line) for line in (work / "out" / "a.jsonl").read_text().splitlines()]
    return {row["question_id"]: row for row in rows}


def test_questions_are_asked_as_they_would_be_here(server: Server, work: Path) -> None:
    decoding = ["--temperature", "0.5", "--top-p", "0.9", "--max-new-tokens", "9", "--seed", "3"]
    assert main(arguments(server, work, "--concurrency", "3", *decoding)) == 0
    rows = answers(work)
    assert list(rows) == [json.loads(line)["question_id"] for line in (work / "q.jsonl").open()]
    assert all(row["text"] == row["prompt"] and row["model_id"] == "tuned" for row in rows.values())
    assert all(row["metadata"] == {} for row in rows.values())
    assert 2 <= server.most_at_once <= 3
    assert len(server.asked) == 13
    body = next(body for body in server.asked if text_of(body) == "Q21?")
    image, text = body.pop("messages")[0]["content"]
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert data == (work / "images" / "2.png").read_bytes() and text == {"type": "text", "text": "Q21?"}
    assert body == {"model": "tuned", "temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "seed": 3}


def test_key_and_model_are_those_asked_for(
    server: Server, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.behave = lambda body, _: (200, completion("long", "length"))
    assert main(arguments(server.url + "/v1/", work, "--endpoint-model", "other")) == 0
    assert {body["model"] for body in server.asked} == {"other"} and server.keys == {"Bearer secret"}
    assert all(row["metadata"] == {"truncated": True} for row in answers(work).values())
    assert "secret" not in (work / "out" / "a.jsonl").read_text()


def test_a_busy_server_is_asked_again_and_a_failing_question_has_an_error(
    server: Server, work: Path, capsys: pytest.CaptureFixture
) -> None:
    def behave(body: dict, times: int) -> Reply | None:
        if text_of(body) == "Q11?":
            return 500, {"error": {"message": "out of luck"}}
        if text_of(body) == "Q02?" and times < 2:
            return 429, {"error": {"message": "slow down"}}
        return None

    server.behave = behave
    (work / "images" / "3.png").write_bytes(b"no picture")
    assert main(arguments(server, work)) == 0
    rows = answers(work)
    assert rows["0/2"]["text"] == "Q02?"
    assert rows["1/1"]["text"] == "" and "out of luck" in rows["1/1"]["metadata"]["error"]
    assert "not a picture" in rows["3/0"]["metadata"]["error"]
    assert sum("error" in row["metadata"] for row in rows.values()) == 4
    assert "4 of them are empty" in capsys.readouterr().err
    assert not any("Q3" in text_of(body) for body in server.asked)


def test_it_goes_on_where_the_server_went_away(server: Server, work: Path) -> None:
    def behave(body: dict, times: int) -> Reply | None:
        return (404, {"error": {"message": "the model is gone"}}) if text_of(body) == "Q30?" else None

    server.behave = behave
    with pytest.raises(InputError, match=r"the model is gone.*the same command goes on"):
        main(arguments(server, work, "--concurrency", "1"))
    assert not (work / "out" / "a.jsonl").exists()
    kept = (work / "out" / "a.jsonl.partial").read_text().count("\n") - 1
    assert kept >= 3
    time.sleep(0.3)  # one more question may be on its way
    asked = len(server.asked)
    server.behave = lambda body, times: None
    assert main(arguments(server, work)) == 0
    assert len(server.asked) - asked == 13 - kept and len(answers(work)) == 13
    with pytest.raises(InputError, match="exists already"):
        main(arguments(server, work))


def test_a_server_that_always_fails_is_no_result(server: Server, work: Path) -> None:
    server.behave = lambda body, times: (400, {"error": {"message": "tuned is no multimodal model"}})
    with pytest.raises(InputError, match=r"no question could be answered; .*no multimodal model"):
        main(arguments(server, work))
    assert list((work / "out").iterdir()) == []
    many = [{"question_id": n, "image": None, "text": f"{n}?"} for n in range(5 * MAX_FAILURES)]
    write_questions(work, many)
    asked = len(server.asked)
    with pytest.raises(InputError, match=f"the first {MAX_FAILURES} questions failed; .*no multimodal"):
        main(arguments(server, work))
    assert len(server.asked) - asked < 3 * MAX_FAILURES
    assert list((work / "out").iterdir()) == []


def test_probabilities_of_choices_only_where_they_are_exact(
    server: Server, work: Path, capsys: pytest.CaptureFixture
) -> None:
    rows: list[dict] = [
        {"question_id": 1, "image": "0.png", "text": "Yes?", "choices": ["yes", "no"]},
        {"question_id": 2, "image": "0.png", "text": "Which?", "choices": ["flashover", "no"]},
    ]
    write_questions(work, rows)
    server.behave = lambda body, _: (200, completion("no", tops={" no": 0.5, "yes": 0.2, " yes": 0.1}))
    assert main(arguments(server, work)) == 0
    assert all(body["logprobs"] is True and body["top_logprobs"] == 20 for body in server.asked)
    assert answers(work)[1]["metadata"]["choices"] == {"yes": 0.375, "no": 0.625}
    assert "choices" not in answers(work)[2]["metadata"]
    assert capsys.readouterr().err.count("1 answers have no probabilities") == 1

    server.behave = lambda body, _: (400, {"error": {"message": "logprobs?"}}) if "logprobs" in body else None
    assert main(arguments(server, work, "--overwrite", "--concurrency", "1")) == 0
    assert all(row["text"] and row["metadata"] == {} for row in answers(work).values())
    assert "2 answers have no probabilities" in capsys.readouterr().err
    assert sum("logprobs" in body for body in server.asked[2:]) == 1  # found out once


def test_probabilities_are_not_guessed() -> None:
    tops = [("A", math.log(0.6)), (" B", math.log(0.3)), ("Bx", math.log(0.1))]
    assert choice_probabilities(["A", "B"], tops) == pytest.approx({"A": 2 / 3, "B": 1 / 3})
    assert choice_probabilities(["A", "C"], tops) is None
    assert choice_probabilities(["B", "Bx"], tops) is None  # "B" may be the beginning of "Bx"
    assert choice_probabilities(["A", "B"], [*tops[:1], ("B", -9999.0)]) is None
    assert choice_probabilities([], tops) is None


def test_marks_place_the_images() -> None:
    def shape(text: str, count: int) -> list[str]:
        parts = message_parts(text, [f"u{index}" for index in range(count)])
        return [part["text"] if part["type"] == "text" else part["image_url"]["url"] for part in parts]

    assert shape("What?", 0) == ["What?"]
    assert shape("What?", 2) == ["u0", "u1", "What?"]
    assert shape("<image>\nWhat?", 1) == ["u0", "What?"]
    assert shape("Is <image> darker than <image>?", 2) == ["Is ", "u0", " darker than ", "u1", "?"]
    with pytest.raises(InputError, match="1 <image> mark"):
        shape("<image> What?", 2)


def test_an_image_goes_as_its_file_unless_it_must_be_changed(tmp_path: Path) -> None:
    def sent(path: Path) -> tuple[str, bytes]:
        head, data = data_url(path).split(";base64,")
        return head, base64.b64decode(data)

    upright = tmp_path / "a.jpg"
    image(1).save(upright)
    assert sent(upright) == ("data:image/jpeg", upright.read_bytes())
    turned = tmp_path / "b.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    image(1, (160, 120)).save(turned, exif=exif)
    kind, data = sent(turned)
    again = Image.open(BytesIO(data))
    assert kind == "data:image/jpeg" and again.size == (120, 160) and 0x0112 not in again.getexif()
    clear = tmp_path / "c.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear)
    kind, data = sent(clear)
    assert kind == "data:image/png" and Image.open(BytesIO(data)).getpixel((0, 0)) == (255, 255, 255)
    bitmap = tmp_path / "d.bmp"
    image(1).save(bitmap)
    kind, data = sent(bitmap)
    assert kind == "data:image/png" and Image.open(BytesIO(data)).tobytes() == image(1).tobytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--endpoint", "localhost:8000"), "expected an address like http"),
        (("--model-path", "x"), "--model-path is for a model loaded here"),
        (("--load-4bit",), "--load-4bit is for a model loaded here"),
        (("--num-beams", "3"), "no beam search"),
        (("--concurrency", "0"), "--concurrency must be at least 1"),
        (("--ray-workers", "2"), "--ray-workers is for --ray"),
        (("--answers-file", "."), "--answers-file . is a folder"),
    ],
)
def test_flags_that_do_not_go_together(
    server: Server, work: Path, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        main(arguments(server, work, *more))
    assert not (work / "out").exists() and not server.asked


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": {"message": "bad key"}}), "refuses the key in OPENAI_API_KEY: .*bad key"),
        ((404, {"error": {"message": "nothing here"}}), "lists no models"),
        ((200, "<html>a page</html>"), "lists no models"),
        ((200, {"object": "list", "data": []}), "lists no models; name one with --endpoint-model"),
    ],
)
def test_a_server_that_is_none_is_told_before_anything_is_written(
    server: Server, work: Path, reply: Reply, message: str
) -> None:
    server.models = reply
    with pytest.raises(InputError, match=message):
        main(arguments(server, work))
    assert not (work / "out").exists()


def test_an_unreachable_server_is_one_line_and_exit_code_2(work: Path) -> None:
    command = [sys.executable, "-m", "eval.infer", *arguments("http://127.0.0.1:9", work)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "http://127.0.0.1:9/v1 cannot be reached" in done.stderr
    assert not (work / "out").exists()


ERROR_200 = {"error": {"message": "CUDA out of memory"}}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("<html>a proxy's page</html>", "no chat completion: <html>a proxy's page</html>"),
        (ERROR_200, "no chat completion: .*CUDA out of memory"),
        ({**completion("yes"), "choices": []}, "no chat completion: no text in `choices`"),
        ({**completion("yes"), "choices": [{"index": 0}]}, "no chat completion: no text in `choices`"),
        ('{"id": "1", "choices": [{"ind', "the reply is not JSON"),
    ],
)
def test_a_reply_that_is_none_is_said_as_such(server: Server, work: Path, reply: Any, said: str) -> None:
    server.behave = lambda body, _: (200, reply) if text_of(body) == "Q21?" else None
    assert main(arguments(server, work)) == 0
    assert re.search(said, answers(work)["2/1"]["metadata"]["error"])
    assert answers(work)["2/0"]["text"] == "Q20?"


@pytest.mark.parametrize("logprob", [None, 5000.0, math.nan, "much"])
def test_probabilities_that_are_none_are_left_out(server: Server, work: Path, logprob: Any) -> None:
    rows = [{"question_id": 1, "image": "0.png", "text": "Broken?", "choices": ["yes", "no"]}]
    write_questions(work, rows)
    made = completion("yes", tops={"yes": 0.9, "no": 0.1})
    made["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = logprob
    server.behave = lambda *_: (200, made)
    assert main(arguments(server, work)) == 0
    assert answers(work)[1]["text"] == "yes" and answers(work)[1]["metadata"] == {}
    made["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = None
    assert main(arguments(server, work, "--overwrite")) == 0
    assert answers(work)[1]["metadata"] == {}


def test_what_the_server_refuses_to_say_is_its_answer(server: Server, work: Path) -> None:
    made = completion("")
    made["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I would rather not."}
    server.behave = lambda *_: (200, made)
    assert main(arguments(server, work)) == 0
    assert answers(work)[7]["text"] == "I would rather not."
