"""What stands before all routes: request ids, the key, the limits of bodies, clients that vanish, the log."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from llava.serve.http.errors import ApiError
from llava.serve.http.service import Service, shutting_down

logger = logging.getLogger("llava.serve")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/ready")
"""Answered without the key and while the service ends: what watches the process has no key."""
MAX_HELD_REQUESTS = 4
"""The bodies that are held at a time may be so many of the largest together."""


@dataclass
class _Body:
    """What has come of a request's body, until it is handed on; its size is remembered."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0


class Guard:
    """ASGI middleware that reads each body whole, within its limits, before any route sees the request.

    A route's task is cancelled as soon as its client is gone. Nothing of a request but its method, its path
    where that is a route's, its status and its time goes to the log.
    """

    def __init__(self, app: App, service: Service, api_key: str | None) -> None:
        self._app = app
        self._service = service
        self._key = api_key.encode() if api_key else None
        self._held_bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:  # no web sockets here
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        begin = time.monotonic()
        request_id = scope["request_id"] = f"req-{uuid.uuid4().hex}"
        status = 499  # as nginx logs that the client was gone before the reply

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        body = _Body()
        try:
            try:
                self._check_access(scope)
                gone = await self._read_body(scope, receive, body)
            except ApiError as error:
                # what is left of the body is not read, so nothing else may come on the connection
                error.headers["Connection"] = "close"
                await error_response(error, request_id)(scope, receive, send_with_id)
                return
            if not gone:
                await self._run(scope, receive, send_with_id, body)
        finally:
            self._held_bytes -= body.size
            # a refusal's traceback holds the frame that read it, until the garbage is collected
            body.chunks.clear()
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._service.metrics.requests.labels(path, str(status)).inc()
            logger.info(
                "%s %s %s %d %.3f s", request_id, scope["method"], path, status, time.monotonic() - begin
            )

    def _check_access(self, scope: Message) -> None:
        """Raise ApiError where the key is wrong or the service ends."""
        if scope["path"] in OPEN_PATHS:
            return
        if self._key is not None:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                message = "the key is absent or wrong: send Authorization: Bearer KEY"
                headers = {"WWW-Authenticate": "Bearer"}
                raise ApiError(
                    401, message, kind="authentication_error", code="invalid_api_key", headers=headers
                )
        if self._service.draining:
            raise shutting_down()

    async def _read_body(self, scope: Message, receive: Receive, body: _Body) -> bool:
        """Read the whole body into `body`; returns whether the client was gone before its end.

        Raises:
            ApiError: it is too large (413), too slow (408), or too much is held for others (503).
        """
        headers = dict(scope["headers"])
        limits = self._service.limits
        is_form = headers.get(b"content-type", b"").startswith(b"multipart/")
        most = (limits.max_request_mib if is_form else limits.max_json_mib) * 2**20
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # a proxy in front may see another end of the body than we do, and a request behind it
            text = "the request states both Content-Length and Transfer-Encoding; send one of them"
            raise ApiError(400, text, code="two_lengths")
        stated = headers.get(b"content-length", b"0")
        too_large = ApiError(
            413, f"the request is larger than {most / 2**20:g} MiB", code="request_too_large"
        )
        if stated.isdigit() and int(stated) > most:
            raise too_large
        try:
            async with asyncio.timeout(limits.max_receive_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return True
                    chunk = message.get("body", b"")
                    body.chunks.append(chunk)
                    body.size += len(chunk)
                    self._held_bytes += len(chunk)
                    if body.size > most:
                        raise too_large
                    if self._held_bytes > MAX_HELD_REQUESTS * limits.max_request_mib * 2**20:
                        text = "too many large requests at a time; try again"
                        raise ApiError(
                            503, text, kind="server_error", code="busy", headers={"Retry-After": "2"}
                        )
                    more = message.get("more_body", False)
        except TimeoutError:
            seconds = limits.max_receive_seconds
            raise ApiError(408, f"the request did not arrive within {seconds:g} s", code="too_slow") from None
        return False

    async def _run(self, scope: Message, receive: Receive, send: Send, body: _Body) -> None:
        """Run the route, until it ends or the client is gone."""
        pending = [{"type": "http.request", "body": b"".join(body.chunks), "more_body": False}]
        body.chunks.clear()  # the route holds what it needs of it
        gone = asyncio.Event()

        async def receive_again() -> Message:
            if pending:
                return pending.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        route = asyncio.ensure_future(self._app(scope, receive_again, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({route, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not route.done():
                route.cancel()
            with suppress(asyncio.CancelledError):
                await route
        finally:
            route.cancel()
            watcher.cancel()


def error_response(error: ApiError, request_id: str) -> JSONResponse:
    """Return an error in the shape of OpenAI's."""
    return JSONResponse({"error": error.content(request_id)}, error.status, error.headers)
