"""The service that `benchmarks.hostile` asks, and how a connection to it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0  # seconds for a reply
SECRET = "hostile-7f3a"  # in each question: no log may have it
CHAT = "/v1/chat/completions"
Pieces = bytes | AsyncIterator[bytes]


@dataclass(frozen=True)
class Target:
    """The service that is asked, and a server of ours whose address it may fetch from."""

    port: int
    key: str
    model: str
    trap_port: int

    async def send(self, pieces: Pieces, *, linger: float = PATIENCE) -> str:
        """Send bytes on a connection of their own; returns how it ended.

        Args:
            pieces: What is sent, while the reply is read.
            linger: How long to wait for more after the first bytes of the reply. The connection is read to
                its end, for which most requests ask (`Connection: close`).
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        sending = asyncio.create_task(_write(writer, pieces))
        data = b""
        try:
            while part := await asyncio.wait_for(reader.read(2**20), linger if data else PATIENCE):
                data += part
        except TimeoutError:
            if not data:
                return "no reply"
        except ConnectionError:
            pass
        finally:
            sending.cancel()
            writer.transport.abort()
        return outcome(data)

    async def leave(self, data: bytes, read: int = 0) -> str:
        """Send bytes, read some of the reply, and go."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            if read:
                await asyncio.wait_for(reader.readexactly(read), PATIENCE)
        except (ConnectionError, asyncio.IncompleteReadError):
            return "closed"
        finally:
            writer.transport.abort()
        return "left"

    def request(
        self, path: str, body: bytes = b"", method: str = "POST", close: bool = True, **headers: str
    ) -> bytes:
        """Return a request; underscores in the names of headers stand for hyphens."""
        fields = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.key}"}
        if close:
            fields["Connection"] = "close"
        if body or method == "POST":
            fields |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body

    def chat(self, body: Any = None, **changes: Any) -> bytes:
        """Return a request for an answer: of `body`, or of an ordinary one with some fields changed."""
        if body is None:
            body = {"model": self.model, "max_tokens": 8, "messages": [user(SECRET)]} | changes
        return self.request(CHAT, body if isinstance(body, bytes) else json.dumps(body).encode())

    def look(self, url: str) -> bytes:
        """Return a request about the picture at `url`."""
        part = {"type": "image_url", "image_url": {"url": url}}
        return self.chat(messages=[user([part, {"type": "text", "text": SECRET}])])

    def look_at(self, picture: bytes) -> bytes:
        """Return a request about a picture that comes with it."""
        return self.look("data:image/png;base64," + base64.b64encode(picture).decode())


def user(content: Any) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": content}


async def _write(writer: asyncio.StreamWriter, pieces: Pieces) -> None:
    with suppress(ConnectionError):
        if isinstance(pieces, bytes):
            writer.write(pieces)
            await writer.drain()
            return
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()


def outcome(data: bytes) -> str:
    """Return how a connection ended whose replies are `data`."""
    if not data:
        return "closed"
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", data)
    code = re.search(rb'"code": ?"(\w+)"', data)
    return ", ".join(status.decode() for status in statuses) + (f" {code[1].decode()}" if code else "")
