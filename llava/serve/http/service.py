"""The live engine as coroutines: a request's questions go in, their pieces and results come out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from fastapi import Request as HttpRequest

from llava.common.errors import InputError
from llava.inference.grammar import NOT_KEPT
from llava.inference.live import (
    CLOSED,
    OUT_OF_TIME,
    EngineClosedError,
    Handle,
    LiveEngine,
    Piece,
    QueueFullError,
)
from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.processing.vision import Pixels
from llava.serve.http.addresses import AddressFetcher
from llava.serve.http.errors import ApiError
from llava.serve.http.limits import Limits
from llava.serve.http.metrics import Metrics
from llava.serve.http.pictures import PreparedPictures, decode_picture
from llava.serve.http.token_bytes import TokenBytes

T = TypeVar("T")


class Service:
    """One model, and all that the routes share."""

    def __init__(
        self, live: LiveEngine, model_id: str, limits: Limits, fetcher: AddressFetcher | None = None
    ) -> None:
        """Serve a model that runs.

        Args:
            live: The engine; the service does not close it.
            model_id: The name that clients ask for.
            limits: The most that one request may have.
            fetcher: Fetches pictures from addresses; None where all addresses are refused.
        """
        self.live = live
        self.model_id = model_id
        self.limits = limits
        self.fetcher = fetcher or AddressFetcher((), limits)
        self.metrics = Metrics(live)
        self.pictures = PreparedPictures(self._prepare)
        self.token_bytes = TokenBytes(live.runner.tokenizer)
        self.started = int(time.time())
        self.draining = False
        """Whether the process is about to end: no request is taken any more."""
        # Decoding and resizing let go of Python's lock, so a few threads prepare pictures side by side.
        self._pool = ThreadPoolExecutor(max(2, (os.cpu_count() or 2)), "llava-prepare")

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what computes or blocks, such as decoding a picture, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _prepare(self, data: bytes, alone: bool) -> Pixels:
        def prepare() -> Pixels:
            image = decode_picture(data, self.limits.max_pixels)
            return self.live.runner.processor.pixels(image, alone=alone)

        return await self.in_thread(prepare)

    def answers(self) -> Answers:
        """Return an empty set of questions, to be used as an async context manager."""
        return Answers(self)

    async def answer(self, request: Request, options: SamplingOptions) -> Result:
        """Answer one question.

        Raises:
            ApiError: it cannot be asked, too many wait, or the answer did not end.
        """
        async with self.answers() as answers:
            await answers.add(request, options)
            async for _, event in answers:
                if isinstance(event, Result):
                    return checked(event)
        raise AssertionError("an answer always ends with its result")


class Answers:
    """The answers of one HTTP request, which end with it: those that still run on exit are cancelled.

    Iterating gives (index, event) as events come, each answer's pieces in order and then its result, until
    all that were added have ended.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._events: asyncio.Queue[tuple[int, float, Piece | Result]] = asyncio.Queue()
        self._handles: list[Handle] = []
        self._begin: list[float] = []
        self._unfinished: set[int] = set()
        self._closed = False

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for handle in self._handles:
            handle.cancel()
        self._service.metrics.answers.labels("cancelled").inc(len(self._unfinished))

    async def add(self, request: Request, options: SamplingOptions) -> int:
        """Ask a question; returns its index.

        Raises:
            ApiError: it cannot be asked (400), too many wait (429) or the service ends (503).
        """
        loop = asyncio.get_running_loop()
        index = len(self._begin)
        self._begin.append(time.monotonic())

        def receive(event: Piece | Result) -> None:  # called by the engine's thread
            loop.call_soon_threadsafe(self._events.put_nowait, (index, time.monotonic(), event))

        def submit() -> None:
            handle = self._service.live.submit(
                request, options, timeout=self._service.limits.max_seconds, listener=receive
            )
            self._handles.append(handle)
            if self._closed:  # the client went while the question was prepared
                handle.cancel()

        try:
            await self._service.in_thread(submit)
        except InputError as error:
            raise ApiError(400, str(error)) from None
        except QueueFullError as error:
            raise ApiError(
                429,
                f"{error}; try again",
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "1"},
            ) from None
        except EngineClosedError:
            raise shutting_down() from None
        self._unfinished.add(index)
        return index

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece | Result]]:
        metrics = self._service.metrics
        began: set[int] = set()
        while self._unfinished:
            index, at, event = await self._events.get()
            if index not in began:
                began.add(index)
                metrics.first_token.observe(at - self._begin[index])
            if isinstance(event, Result):
                self._unfinished.discard(index)
                metrics.answer.observe(at - self._begin[index])
                metrics.answers.labels(event.finish_reason).inc()
                metrics.tokens.labels("prompt").inc(event.prompt_tokens)
                metrics.tokens.labels("cached").inc(event.cached_tokens)
                metrics.tokens.labels("completion").inc(event.completion_tokens)
            yield index, event


async def request_answers(http_request: HttpRequest) -> AsyncIterator[Answers]:
    """Give a route its answers; they end when its reply has been sent, or cannot be."""
    async with http_request.app.state.service.answers() as answers:
        yield answers


def checked(result: Result) -> Result:
    """Return a result that is a whole answer; ApiError where the engine could not give one."""
    if result.error is None:
        return result
    if result.error == OUT_OF_TIME:
        # the OpenAI client would ask again, and wait as long
        headers = {"x-should-retry": "false"}
        raise ApiError(503, result.error, kind="server_error", code="out_of_time", headers=headers)
    if result.error.startswith(NOT_KEPT):
        raise ApiError(400, result.error, param="response_format", code="schema_not_kept")
    if result.error == CLOSED:
        raise shutting_down()
    raise ApiError(
        503, result.error, kind="server_error", code="not_answered", headers={"x-should-retry": "false"}
    )


def shutting_down() -> ApiError:
    """Return the error of requests that come, or run, when the process ends."""
    return ApiError(
        503, "the service is ending; ask again in a moment", kind="server_error", code="shutting_down",
        headers={"Retry-After": "2"},
    )  # fmt: skip
