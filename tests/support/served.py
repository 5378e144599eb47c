"""The HTTP service in the test's own process, on a real socket."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import uvicorn
from PIL import Image

from llava.inference.live import LiveEngine
from llava.model.builder import LoadedModel
from llava.serve.api import PROMPT, listen
from llava.serve.http.alt_text import AltTexts
from llava.serve.http.app import create_app
from llava.serve.http.limits import Limits
from llava.serve.http.service import Service


@dataclass
class Served:
    """A service that runs: `url` ends before /v1."""

    url: str
    service: Service


@contextmanager
def served(
    loaded: LoadedModel, limits: Limits | None = None, api_key: str | None = None, **engine: Any
) -> Iterator[Served]:
    """Serve a model inside the block.

    Args:
        loaded: The model.
        limits: Of requests.
        api_key: What clients must send.
        engine: Arguments of LiveEngine.
    """
    listening = listen("127.0.0.1", 0)
    with LiveEngine(loaded, **engine) as live:
        service = Service(live, loaded.model_id, limits or Limits())
        app: Any = create_app(service, api_key, [AltTexts(service, PROMPT).router])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
        finally:
            server.should_exit = True
            thread.join()


def data_url(image: Image.Image) -> str:
    """Return a picture as a data URL, without loss."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def user_message(text: str, *images: Image.Image) -> dict[str, Any]:
    """Return a user's message with pictures."""
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}
