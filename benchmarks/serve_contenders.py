"""Run one contender of benchmarks/serve.py, or find the answers that all must give: `STEP JOB`, as JSON.

Steps: `ours` and `plain` serve at the job's port; `reference` answers its questions with `Engine.answer`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from benchmarks.infer_contenders import random_model
from llava.common.records import IMAGE_PLACEHOLDER
from llava.inference.engine import Engine, Request
from llava.inference.live import LiveEngine
from llava.inference.sampling import decode_text
from llava.model.builder import LoadedModel, load_model
from llava.serve.api import listen, serve
from llava.serve.http.app import create_app
from llava.serve.http.limits import Limits
from llava.serve.http.pictures import decode_picture, read_data_url
from llava.serve.http.service import Service

MAX_PIXELS = 10**8
Job = dict[str, Any]


def load(job: Job) -> LoadedModel:
    """Load the model of the job, or make the random one of benchmarks/infer_speed.py."""
    if job["model_path"]:
        return load_model(job["model_path"], device=job["device"])
    return random_model(job["device"])


def serve_ours(job: Job) -> None:
    """Serve as `python -m llava.serve.api` does."""
    listening = listen("127.0.0.1", job["port"])
    live = LiveEngine(load(job))
    service = Service(live, job["model"], Limits())
    serve(service, live, create_app(service, None), listening, grace=1)


def serve_plain(job: Job) -> None:
    """Serve one request at a time by transformers' `generate`, streamed."""
    import uvicorn

    loaded = load(job)
    app, turn = FastAPI(), asyncio.Lock()

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/v1/chat/completions")
    async def answer(body: dict[str, Any]) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            async with turn:
                async for text in in_thread(lambda push: generate(loaded, body, push)):
                    yield f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    uvicorn.run(app, port=job["port"], log_level="warning", access_log=False)


async def in_thread(work: Callable[[Callable[[str], None]], None]) -> AsyncIterator[str]:
    """Give what `work` pushes in a thread of its own, as it comes."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def push(item: str | None) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def run() -> None:
        try:
            work(push)
        finally:
            push(None)

    threading.Thread(target=run, daemon=True).start()
    while (item := await queue.get()) is not None:
        yield item


class Streamer:
    """Pushes the text of every token that `generate` chooses."""

    def __init__(self, loaded: LoadedModel, push: Callable[[str], None]) -> None:
        self._tokenizer, self._push = loaded.tokenizer, push
        self._ids: list[int] | None = None  # the prompt comes first
        self._sent = ""

    def put(self, tokens: torch.Tensor) -> None:
        if self._ids is None:
            self._ids = []
            return
        self._ids += tokens.flatten().tolist()
        text = decode_text(self._tokenizer, self._ids).lstrip()
        if text.startswith(self._sent) and not text.endswith("\ufffd"):  # else the character is not whole yet
            self._push(text[len(self._sent) :])
            self._sent = text

    def end(self) -> None:
        """Do nothing; `generate` calls it."""


@torch.inference_mode()
def generate(loaded: LoadedModel, body: dict[str, Any], push: Callable[[str], None]) -> None:
    """Answer a request for a chat completion with one picture and one text."""
    picture, text = body["messages"][0]["content"]
    image = decode_picture(read_data_url(picture["image_url"]["url"]), MAX_PIXELS)
    pixels = loaded.processor.pixels(image)
    prompt = loaded.processor.encode_prompt(
        [("human", f"{IMAGE_PLACEHOLDER}\n{text['text']}")], [(image.height, image.width)]
    )
    model: Any = loaded.model
    inputs = loaded.processor.vision.inputs([pixels])
    inputs["pixel_values"] = inputs["pixel_values"].to(model.device, model.dtype)
    ids = torch.tensor([prompt], device=model.device)
    model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, do_sample=False,
        max_new_tokens=body["max_tokens"], pad_token_id=loaded.tokenizer.pad_token_id,
        eos_token_id=loaded.tokenizer.eos_token_id, streamer=Streamer(loaded, push),
    )  # fmt: skip


def find_reference(job: Job) -> None:
    """Answer the job's questions, and write the answers to its file."""
    pictures: dict[str, Any] = {}
    requests = []
    for number, (picture, text) in enumerate(job["questions"]):
        if picture not in pictures:
            pictures[picture] = decode_picture(Path(picture).read_bytes(), MAX_PIXELS)
        requests.append(Request(number, text, [pictures[picture]]))
    results = Engine(load(job)).answer(requests, max_new_tokens=job["tokens"])
    Path(job["answers"]).write_text(json.dumps([result.text for result in results]), encoding="utf-8")


STEPS = {"ours": serve_ours, "plain": serve_plain, "reference": find_reference}

if __name__ == "__main__":
    STEPS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
