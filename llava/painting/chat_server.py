"""Asks a server with OpenAI's chat completions (Ollama, vLLM, our own) for keywords and prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from PIL.Image import Image

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.html.page import jpeg_uri

_MAX_TOKENS = 1024  # a model that thinks needs them before it answers
_QUALITY = 95
_RETRIES = 3


def is_address(model: str) -> bool:
    """Tell whether a model is named by the address of its server, not by a folder or Hub name."""
    return "://" in model


class ChatServer:
    """A model on a server. `see` answers questions about a picture, `write` an instruction."""

    def __init__(self, url: str, model: str | None = None) -> None:
        """Look which model is there.

        Args:
            url: Such as http://localhost:11434/v1; without a path, /v1 is meant.
            model: Its name there; None takes the first that the server lists.

        Raises:
            InputError: The server cannot be reached, or names no model.
        """
        try:
            from openai import OpenAI
        except ImportError:
            raise InputError(f"a server's models need: {how_to_install('endpoint')}") from None
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise InputError(f"{url}: expected an address like http://localhost:11434/v1")
        self.url = url.rstrip("/") + ("" if address.path.strip("/") else "/v1")
        key = os.environ.get("OPENAI_API_KEY") or "none"  # the client wants one; most servers do not
        self._client = OpenAI(base_url=self.url, api_key=key, max_retries=_RETRIES)
        self.model = model or self._first_model()

    def see(self, picture: Image, questions: Sequence[str]) -> list[str]:
        """Answer each question about a picture."""
        shown = {"type": "image_url", "image_url": {"url": jpeg_uri(picture.convert("RGB"), _QUALITY)}}
        return [self._answer([shown, {"type": "text", "text": text}]) for text in questions]

    def write(self, instruction: str) -> str:
        """Answer an instruction."""
        return self._answer(instruction)

    def _first_model(self) -> str:
        import openai

        try:
            return next(iter(self._client.models.list().data)).id
        except (openai.OpenAIError, AttributeError, TypeError, ValueError, StopIteration) as error:
            raise InputError(
                f"{self.url} lists no models ({_reason(error)}); is the server running, the address right?"
            ) from None

    def _answer(self, content: Any) -> str:
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                temperature=0,
                max_tokens=_MAX_TOKENS,
            )
            return reply.choices[0].message.content or ""
        except (openai.OpenAIError, AttributeError, TypeError, ValueError, LookupError) as error:
            raise InputError(f"{self.url}: {self.model} gives no answer ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return one_line(error.__cause__ or error)
