"""The many questions of one request: in order, bounded, fair to others, and gone with their client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.serve.http.errors import ApiError
from llava.serve.http.many import ManyQuestions

OPTIONS = SamplingOptions()


class SlowService:
    """Answers each question after a moment, the later ones sooner; keeps the order in which they came."""

    def __init__(self, places: int) -> None:
        self.live = SimpleNamespace(places=places)
        self.limits = SimpleNamespace(max_seconds=5.0)
        self.asked: list[str] = []
        self.running = self.most = self.cancelled = 0
        self.refusals = 0
        self.broken: str | None = None

    async def answer(self, request: Request, options: SamplingOptions) -> Result:
        if self.refusals:
            self.refusals -= 1
            raise ApiError(429, "full", code="queue_full")
        self.asked.append(request.text)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.02 / (1 + len(self.asked) % 3))
            if request.text == self.broken:
                raise ApiError(503, "broken", code="not_answered")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return Result(request.question_id, request.text)


def questions(name: str) -> Any:
    async def make(index: int) -> Request:
        return Request(index, f"{name}{index}")

    return make


def test_in_order_and_a_few_more_at_a_time_than_run() -> None:
    service: Any = SlowService(4)
    results = asyncio.run(ManyQuestions(service).answer(30, questions("q"), OPTIONS))
    assert [result.text for result in results] == [f"q{n}" for n in range(30)]
    assert service.most == 5


def test_a_small_request_is_not_kept_waiting_by_a_large_one() -> None:
    service: Any = SlowService(2)

    async def ask() -> None:
        many = ManyQuestions(service)
        large = asyncio.create_task(many.answer(100, questions("large"), OPTIONS))
        await asyncio.sleep(0.01)
        await many.answer(3, questions("small"), OPTIONS)
        assert len(service.asked) < 20
        large.cancel()

    asyncio.run(ask())


@pytest.mark.parametrize("why", ["client", "failure"])
def test_what_is_left_is_cancelled(why: str) -> None:
    """...where the client goes away or one question fails, and the places are free for others."""
    service: Any = SlowService(4)
    service.broken = "q5" if why == "failure" else None

    async def ask() -> None:
        many = ManyQuestions(service)
        task = asyncio.create_task(many.answer(100, questions("q"), OPTIONS))
        if why == "client":
            await asyncio.sleep(0.03)
            task.cancel()
        with pytest.raises(asyncio.CancelledError if why == "client" else ApiError):
            await task
        assert service.running == 0
        assert service.cancelled
        assert len(service.asked) < 50
        assert len(await many.answer(10, questions("other"), OPTIONS)) == 10
        assert service.most == 5

    asyncio.run(ask())


def test_a_full_queue_refuses_a_request_only_at_its_first_question() -> None:
    service: Any = SlowService(4)
    service.refusals = 1
    with pytest.raises(ApiError, match="full"):
        asyncio.run(ManyQuestions(service).answer(3, questions("q"), OPTIONS))

    async def first_then_refusals() -> list[Result]:
        many = ManyQuestions(service)
        make = questions("q")

        async def refused_later(index: int) -> Request:
            if index == 1:
                service.refusals = 3
            request: Request = await make(index)
            return request

        return await many.answer(3, refused_later, OPTIONS)

    assert [result.text for result in asyncio.run(first_then_refusals())] == ["q0", "q1", "q2"]
