"""Ask the many questions of one HTTP request, a few at a time, beside those of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.serve.http.errors import ApiError
from llava.serve.http.service import Service

LOOKAHEAD_SHARE = 4
"""One question waits for every four that run, and is prepared meanwhile."""
RETRY_SECONDS = 0.1
"""Between two tries to put a question into the engine's queue, while single ones fill it."""


class ManyQuestions:
    """Feeds questions to the engine as places come free.

    All requests of many questions together have a few more on their way than run at a time, so that a single
    question waits behind those few only. Whoever has waited longest is next, and each request waits for one
    question at a time: two requests of 500 advance side by side, and a third of 3 is done after a few more.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        running = service.live.places
        self._on_their_way = asyncio.Semaphore(running + max(1, running // LOOKAHEAD_SHARE))

    async def answer(
        self, count: int, make: Callable[[int], Awaitable[Request]], options: SamplingOptions
    ) -> list[Result]:
        """Ask `count` questions, each a conversation of its own.

        Args:
            count: How many.
            make: Gives the question of an index; called when its turn has come.
            options: How all answers are sampled.

        Returns:
            The results, in order.

        Raises:
            ApiError: one of them cannot be answered, or the engine's queue is full at the first; those that
                run are cancelled then, as they are with the task.
        """

        async def ask(index: int) -> Result:
            return await self._ask(await make(index), options, patient=index > 0)

        tasks: list[asyncio.Task[Result]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(count):
                    await self._on_their_way.acquire()
                    task = group.create_task(ask(index))
                    task.add_done_callback(lambda _: self._on_their_way.release())
                    tasks.append(task)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, request: Request, options: SamplingOptions, patient: bool) -> Result:
        """Ask a question. A patient one is tried again while the queue is full, for as long as an answer may
        take."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._service.limits.max_seconds
        while True:
            try:
                return await self._service.answer(request, options)
            except ApiError as error:
                if not patient or error.code != "queue_full" or loop.time() > end:
                    raise
            await asyncio.sleep(RETRY_SECONDS)
