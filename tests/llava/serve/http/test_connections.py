"""What comes over a connection, byte by byte: heads that do not end, and bodies with two ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from llava.serve.api import listen
from llava.serve.http.connections import Connection
from tests.support.served import Served, served
from tests.support.small_model import random_model

WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def impatient() -> Iterator[int]:
    """The port of an application that waits a second for a head."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, http=Connection, timeout_keep_alive=1, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("before", [b"", WHOLE, WHOLE * 2])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_head_that_does_not_end_closes_the_connection(impatient: int, before: bytes, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=10) as client:
        begin = time.monotonic()
        client.sendall(before)
        while before and b"204" not in client.recv(4096):
            pass
        client.sendall(sent)
        client.settimeout(0.2)
        for _ in range(40):
            try:
                if sent:
                    client.sendall(b"X: y\r\n")
                if not client.recv(4096):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection is still open")
        assert 0.8 < time.monotonic() - begin < 6


def test_a_connection_is_kept_for_requests_that_end(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=10) as client:
        for _ in range(4):
            client.sendall(WHOLE[:10])
            time.sleep(0.5)
            client.sendall(WHOLE[10:])
            assert b"204" in client.recv(4096)


@pytest.fixture(scope="module")
def server(tiny_model_dir: Path) -> Iterator[Served]:
    with served(random_model(tiny_model_dir), api_key="key") as running:
        yield running


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Authorization: Bearer key\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"400"),
        ("Authorization: Bearer key\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", b"400"),
        ("Authorization: Bearer other\r\nTransfer-Encoding: chunked", b"401"),
    ],
)
def test_behind_a_request_that_is_refused_unread_no_other_is_answered(
    server: Served, fields: str, status: bytes
) -> None:
    inner = "GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key\r\n\r\n"
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{inner}"
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request.encode())
        reply = b""
        while part := client.recv(4096):
            reply += part
    assert reply.startswith(b"HTTP/1.1 " + status)
    assert reply.count(b"HTTP/1.1 ") == 1
