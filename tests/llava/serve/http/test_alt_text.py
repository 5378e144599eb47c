"""The alt-text routes: what an older service's clients send is answered in the shapes that they expect."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from llava.inference.engine import Engine
from llava.inference.live import LiveEngine
from llava.inference.requests import Request
from llava.inference.sampling import SamplingOptions
from llava.model.builder import LoadedModel, load_model
from llava.serve.http.alt_text import AltTexts, SizeSetting
from llava.serve.http.app import create_app
from llava.serve.http.best_picture import TextEncoder
from llava.serve.http.limits import Limits
from llava.serve.http.many import ManyQuestions
from llava.serve.http.service import Service
from tests.support.small_model import image
from tests.support.text_encoders import WordEncoder

PROMPT = "Describe the image"
HALF = SizeSetting(halve_rate=0.5, min_size=10)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return load_model(tiny_model_dir, device="cpu")


@pytest.fixture(scope="module")
def service(loaded: LoadedModel) -> Iterator[Service]:
    with LiveEngine(loaded, batch_size=8) as live:
        yield Service(live, "tiny-llava", Limits(max_uploads=40, max_new_tokens=16))


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    """Asks a service that compares texts by their embeddings."""
    routes = AltTexts(service, PROMPT, TextEncoder(WordEncoder()))
    with TestClient(create_app(service, None, [routes.router])) as client:
        yield client


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def descriptions(loaded: LoadedModel, pictures: list[Image.Image]) -> list[str]:
    """Return the model's descriptions, as the engine gives them without a service."""
    requests = [Request(n, PROMPT, [HALF.apply(picture)]) for n, picture in enumerate(pictures)]
    return [result.text for result in Engine(loaded).answer(requests, max_new_tokens=16)]


def test_one_picture(client: TestClient, loaded: LoadedModel) -> None:
    form = {"Id": "me", "Hash": "사진.jpg"}
    (description,) = descriptions(loaded, [image(3)])
    record = {"Hash": "사진.jpg", "Description": description, "Id": "me"}
    reply = client.post("/getAltText", data=form, files={"Image": ("any.png", png(image(3)))})
    assert reply.json() == [record]

    reply = client.post("/getAltText_time", data=form, files={"Image": png(image(3))})
    (timed,) = reply.json()
    assert timed.pop("duration") > 0
    assert timed.pop("original_size") == [160, 120]
    assert timed.pop("resized") == [80, 60]
    assert timed == record


def test_many_pictures_in_many_requests_at_once(client: TestClient, loaded: LoadedModel) -> None:
    """Each has its own description, in order, whatever the files' keys and names are."""
    expected = descriptions(loaded, [image(n) for n in range(20)])
    assert len(set(expected)) > 5

    def ask(first: int) -> Any:
        numbers = [(first + n) % 20 for n in range(20)]
        # two keys in turn: the order of the files is that of the body
        files = [("ba"[n % 2], (f"{n}.png", png(image(number)))) for n, number in enumerate(numbers)]
        data = {"Id": "me", "Hash": [str(number) for number in numbers]}
        return client.post("/getAltTexts", data=data, files=files).json()

    with ThreadPoolExecutor(4) as pool:
        for first, records in enumerate(pool.map(ask, range(4))):
            assert [record["Hash"] for record in records] == [str((first + n) % 20) for n in range(20)]
            assert [record["Description"] for record in records] == [
                expected[(first + n) % 20] for n in range(20)
            ]
            assert {record["Id"] for record in records} == {"me"}


def test_an_id_for_each_picture(client: TestClient) -> None:
    files = [("x", png(image(n))) for n in range(2)]
    reply = client.post("/getAltTexts", data={"Id": ["a", "b"], "Hash": ["1", "2"]}, files=files)
    assert [(record["Id"], record["Hash"]) for record in reply.json()] == [("a", "1"), ("b", "2")]


GOOD = png(image(0))


@pytest.mark.parametrize(
    ("hashes", "files", "message"),
    [
        (["1", "2", "3"], [GOOD, GOOD], "3 Hash fields came with 2 files; send one for each file"),
        (["1"], [], "1 Hash fields came with 0 files; send one for each file"),
        (["1", "b.jpg"], [GOOD, b"junk"], "file 2 of 2, Hash 'b.jpg': not a picture that Pillow can read"),
        (["1", "2"], [GOOD[:300], GOOD], "file 1 of 2, Hash '1': the picture is damaged or cut short"),
    ],
)
def test_pictures_that_cannot_be_described(
    client: TestClient, hashes: list[str], files: list[bytes], message: str
) -> None:
    """As the older service did, one error for all: nobody takes a description for another picture's."""
    reply = client.post(
        "/getAltTexts", data={"Id": "me", "Hash": hashes}, files=[("x", file) for file in files]
    )
    assert reply.status_code == 422
    assert message in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "data", "files", "param"),
    [
        ("getAltText", {"Id": "me", "Hash": "1"}, {}, "Image"),
        ("getAltText", {"Id": "me"}, {"Image": GOOD}, "Hash"),
        ("getAltTexts", {"Id": "me"}, {"Image": GOOD}, "Hash"),
        ("getBestPictures", {"userText": "x", "data": '[{"Hash": "1"}]'}, {}, "data.0.Description"),
        ("getBestPictures", {"userText": "x", "data": "[" * 5000}, {}, "data"),
        ("getBestPictures", {"userText": "x", "data": "[]"}, {}, "data"),
        ("config", {"halve": "0"}, {}, "halve"),
        ("config", {"halve": "nan"}, {}, "halve"),
        ("config", {"min_size": "0.5"}, {}, "min_size"),
    ],
)
def test_fields_that_are_wrong(client: TestClient, route: str, data: Any, files: Any, param: str) -> None:
    reply = client.post(f"/{route}", data=data, files=files)
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["param"] == param


def test_more_pictures_than_one_request_may_have(client: TestClient) -> None:
    reply = client.post(
        "/getAltTexts", data={"Id": "me", "Hash": ["1"] * 41}, files=[("x", GOOD) for _ in range(41)]
    )
    assert reply.status_code == 400
    assert "Maximum number of files is 40" in reply.json()["error"]["message"]


def test_no_upload_is_written_to_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def rollover(self: object) -> None:
        raise AssertionError("a file was written")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    reply = client.post(
        "/getAltText", data={"Id": "me", "Hash": "1"}, files={"Image": png(Image.fromarray(noise))}
    )
    assert reply.status_code == 200


def test_setting_of_the_size(client: TestClient) -> None:
    def resized() -> Any:
        data = {"Id": "me", "Hash": "1"}
        return client.post("/getAltText_time", data=data, files={"Image": GOOD}).json()[0]["resized"]

    try:
        reply = client.post("/config", data={"halve": "0.1", "min_size": "60"})
        assert reply.json() == {"halve_rate": 0.1, "min_size": 60}
        assert resized() == [80, 60]
        client.post("/config", data={"halve": "0.1", "min_size": "500"})
        assert resized() == [160, 120]
        client.post("/config", files={"halve": (None, "1.0")})  # a multipart form
        assert resized() == [160, 120]
    finally:
        assert client.post("/config").json() == {"halve_rate": 0.5, "min_size": 10}
    assert resized() == [80, 60]


@pytest.mark.parametrize(
    ("size", "rate", "least", "expected"),
    [
        ((1000, 1000), 0.5, 10, (500, 500)),
        ((1000, 12), 0.5, 10, (833, 10)),
        ((8, 300), 0.5, 10, (8, 300)),
        ((3, 1), 0.1, 1, (3, 1)),
    ],
)
def test_size_keeps_the_shape(size: Any, rate: float, least: int, expected: Any) -> None:
    assert SizeSetting(halve_rate=rate, min_size=least).apply(Image.new("RGB", size)).size == expected


PAIRS = [
    {"Hash": "눈.jpg", "Description": "a penguin on snow", "Id": "me"},
    {"Hash": "b.jpg", "Description": "a hedgehog in a hand", "Id": "me"},
    {"Hash": "c.jpg", "Description": "a broken insulator"},
]


def search(client: TestClient, text: str, pairs: Any = PAIRS, **more: str) -> Any:
    return client.post("/getBestPictures", data={"userText": text, "data": json.dumps(pairs), **more})


def test_best_picture_of_a_search_in_another_language(client: TestClient) -> None:
    reply = search(client, " 고슴도치 사진을 찾아 줘")
    assert (reply.text, reply.headers["x-best-picture-ties"]) == ('"b.jpg"', "1")
    assert search(client, "펭귄").content.decode()[1:-1] == "눈.jpg"  # as the older service's client reads it
    form = {"userText": (None, "애자"), "data": (None, json.dumps(PAIRS))}
    assert client.post("/getBestPictures", files=form).json() == "c.jpg"


def test_ties_and_no_fit_are_told(client: TestClient) -> None:
    twins = [*PAIRS, {"Hash": "d.jpg", "Description": "the hedgehog"}]
    reply = search(client, "hedgehog", twins)
    assert (reply.json(), reply.headers["x-best-picture-ties"]) == ("b.jpg", "2")
    whole = search(client, "hedgehog", twins, details="true").json()
    assert whole["best"] == ["b.jpg", "d.jpg"]
    assert whole["scores"][2] == {"Hash": "c.jpg", "score": 0.0}
    assert (whole["least"], whole["scored_by"]) == (0.35, "embeddings")

    reply = search(client, "picture")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "none_fits")
    assert search(client, "picture", details="true").json()["best"] == []


def test_best_picture_by_the_model_itself(service: Service) -> None:
    """The tiny model cannot read; that each description is asked about, and the same always, is tested."""
    pairs = [{"Hash": str(n), "Description": f"a red circle and {n} squares"} for n in range(30)]
    routes = AltTexts(service, PROMPT, least_score=0.0)
    with TestClient(create_app(service, None, [routes.router])) as client:
        whole = search(client, "고슴도치", pairs, details="true").json()
        scores = [picture["score"] for picture in whole["scores"]]
        assert whole["scored_by"] == "model"
        assert all(0 < score < 1 for score in scores) and len(set(scores)) > 20
        assert whole["best"][0] == str(int(np.argmax(scores)))
        assert search(client, "고슴도치", pairs).json() == whole["best"][0]


def test_all_routes_ask_for_the_key(service: Service) -> None:
    routes = AltTexts(service, PROMPT)
    with TestClient(create_app(service, "secret", [routes.router])) as client:
        assert client.post("/config", data={"halve": "1"}).status_code == 401
        reply = client.post("/config", headers={"Authorization": "Bearer secret"})
        assert reply.json() == {"halve_rate": 0.5, "min_size": 10}


def test_what_a_vanished_client_asked_is_cancelled(service: Service) -> None:
    async def make(index: int) -> Request:
        return Request(index, PROMPT, [image(index)])

    async def ask() -> None:
        task = asyncio.create_task(ManyQuestions(service).answer(200, make, SamplingOptions()))
        while not service.live.state.running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    end = time.monotonic() + 10
    while service.live.state.running or service.live.state.waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
