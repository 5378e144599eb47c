"""LLaVA's own way to ask one question, from Python and as a command; images by address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.eval import run_llava
from llava.eval.run_llava import eval_model, load_image, main
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_model
from tests.support.small_model import image, plain_text, save_random_model


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tiny_model_dir, tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    for seed in (1, 2):
        image(seed).save(tmp_path / f"{seed}.png")
    return [str(tmp_path / "1.png"), str(tmp_path / "2.png")]


@pytest.fixture
def address() -> Iterator[str]:
    """A web server with an image at /a.png, a text at /text and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stream = BytesIO()
            image(1).save(stream, "PNG")
            body = {"/a.png": stream.getvalue(), "/text": b"hello"}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def llava_arguments(model: Path, image_file: str, query: str) -> object:
    """The object that LLaVA's README builds."""
    return type(
        "Args",
        (),
        {
            "model_path": str(model),
            "model_base": None,
            "model_name": get_model_name_from_path(str(model)),
            "query": query,
            "conv_mode": None,
            "image_file": image_file,
            "sep": ",",
            "temperature": 0,
            "top_p": None,
            "num_beams": 1,
            "max_new_tokens": 8,
        },
    )()


def test_eval_model_prints_the_answer(
    model: Path, photos: list[str], capsys: pytest.CaptureFixture, address: str
) -> None:
    loaded = load_model(model, device="cpu")
    both = [image(1), image(2)]
    for image_file, query, question, shown in [
        (photos[0], "What is it?", "What is it?", both[:1]),
        (f"{address}/a.png", "What is it?", "What is it?", both[:1]),
        (",".join(photos), "Which is darker?", "Which is darker?", both),
        (photos[0], "In <image-placeholder>, what?", "In <image>, what?", both[:1]),
    ]:
        eval_model(llava_arguments(model, image_file, query))
        assert capsys.readouterr().out == plain_text(loaded, question, shown, 8) + "\n"


def test_the_command_takes_both_spellings(
    model: Path, photos: list[str], capsys: pytest.CaptureFixture
) -> None:
    outputs = []
    for mark in "-_":
        flags = f"--model{mark}path {model} --image{mark}file {photos[0]} --max{mark}new{mark}tokens=8"
        assert main([*flags.split(), "--query", "What is it?", "--device", "cpu"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_an_answer_that_follows_a_json_schema(
    model: Path, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"kind": {"enum": ["crack", "rust"]}}}')
    ask = ["--model-path", str(model), "--image-file", photos[0], "--query", "What is it?", "--device", "cpu"]
    assert main([*ask, "--json-schema", str(schema), "--temperature", "1.5", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.startswith("{")
    schema.write_text('{"type": "word"}')
    with pytest.raises(InputError, match="JSON schema: Invalid type: word"):
        main([*ask, "--json-schema", str(schema)])


def test_images_that_cannot_be_had_are_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"/absent\.png: cannot be fetched \(Not Found\)"):
        load_image(f"{address}/absent.png")
    with pytest.raises(InputError, match=r"/text: .*not a picture"):
        load_image(f"{address}/text")
    with pytest.raises(InputError, match="http://: cannot be fetched"):
        load_image("http://")
    with pytest.raises(InputError, match="http://a b/: cannot be fetched"):
        load_image("http://a b/")
    monkeypatch.setattr(run_llava, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(InputError, match="larger than"):
        load_image(f"{address}/a.png")


def test_a_question_that_cannot_be_asked(model: Path, photos: list[str]) -> None:
    with pytest.raises(InputError, match="special token"):
        eval_model(llava_arguments(model, photos[0], "say </s> now"))
