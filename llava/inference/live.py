"""The engine live: questions come at any time, from any thread, and join the batch that runs.

    live = LiveEngine(loaded)
    handle = live.submit(Request("1", "What is it?", [image]), SamplingOptions(max_new_tokens=64))
    for piece in handle:
        print(piece.text, end="", flush=True)
    handle.result()
    live.close(grace=10)

One thread owns the model and steps the batch (batching.py) while there is work. In asyncio, a listener takes
what comes into the loop: `lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread
from types import TracebackType

from llava.common.errors import InputError
from llava.inference.batching import ContinuousBatch
from llava.inference.encoding import make_branch, make_result, request_turns, with_pixels
from llava.inference.model_runner import ModelRunner
from llava.inference.prefix_store import PrefixStore
from llava.inference.requests import Branch, Request, Result
from llava.inference.sampling import SamplingOptions, TokenLogprobs
from llava.model.builder import LoadedModel
from llava.processing.vision import image_size

logger = logging.getLogger(__name__)

MAX_WAITING = 128
"""How many requests may wait besides those that run, where no number is given."""
MAX_FAILED_STEPS = 20
"""One after the other: then it is not a question that the model fails on, and the engine gives up."""
MAX_CHARACTERS = 32
"""For each token of the context. No text comes near it; what is longer would be tokenised for minutes."""
OUT_OF_TIME = "the answer took longer than its time limit"
CLOSED = "the engine was closed before the answer ended"
"""Errors of results."""


class QueueFullError(Exception):
    """As many requests wait as may; try again later."""


class EngineClosedError(Exception):
    """The engine takes no requests any more."""


@dataclass(frozen=True)
class Piece:
    """The next part of an answer; `logprobs` are those of the tokens that came with it, where asked for."""

    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True)
class LiveState:
    """What a live engine does at the moment."""

    running: int
    waiting: int
    prefix_bytes: int
    """What the prefix store holds."""


class Handle:
    """An answer that is on its way. It can be used from any thread.

    Iterating gives the pieces as they come, once, where `submit` was given no listener. Their texts, joined,
    are the result's.
    """

    def __init__(
        self, branch: Branch, deadline: float | None, listener: Callable[[Piece | Result], None] | None
    ) -> None:
        self._branch = branch
        self._deadline = deadline
        self._events: SimpleQueue[Piece | Result] = SimpleQueue()
        self._listener = listener
        self._sent = 0  # characters of the answer
        self._sent_logprobs = 0
        self._cancelled = False
        self._ended = Event()
        self._result: Result | None = None

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has, images included."""
        return len(self._branch.prompt_ids)

    def __iter__(self) -> Iterator[Piece]:
        while isinstance(event := self._events.get(), Piece):
            yield event
        self._events.put(event)  # another iteration ends too

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end of the answer, at most `timeout` seconds. TimeoutError where it has not come."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"no answer within {timeout} s")
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """End the answer within a step; the result then has what there is of it."""
        self._cancelled = True

    def _send(self, event: Piece | Result) -> None:
        """Hand something out; a listener that fails cancels the answer."""
        if isinstance(event, Result):
            self._result = event
            self._ended.set()
        if self._listener is None or isinstance(event, Result):
            self._events.put(event)
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:
                logger.warning("the listener of a request failed; the request is cancelled", exc_info=True)
                self._cancelled = True

    def _send_new(self) -> None:
        """Hand out what has come of the answer since the last time."""
        answer = self._branch.answer_text
        assert answer is not None
        if text := answer.text[self._sent :]:
            logprobs = tuple(self._branch.logprobs[self._sent_logprobs :])
            self._sent += len(text)
            self._sent_logprobs += len(logprobs)
            self._send(Piece(text, logprobs))


class LiveEngine:
    """Answers requests as they come, first come first served, with one loaded model that it owns.

    Answers are those of `Engine.answer` and `Chat` (greedy, and sampled with the same seed and question id),
    whatever else runs. Where memory runs out, fewer run at a time; no request is lost by it. It is a context
    manager that closes without grace.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        batch_size: int | None = None,
        max_waiting: int = MAX_WAITING,
        max_prompt_tokens: int | None = None,
        max_prefix_bytes: int | None = None,
    ) -> None:
        """Start the thread that runs the model.

        Args:
            loaded: The model.
            batch_size: How many requests may run at a time; None for as many as the free memory holds.
            max_waiting: How many may wait besides.
            max_prompt_tokens: The longest prompt; None for the model's context.
            max_prefix_bytes: How much memory prefixes may take that are kept from one request to the next;
                None for a share of the free memory, which bounds it in any case.

        Raises:
            InputError: the batch size is below 1.
        """
        self.runner = ModelRunner(loaded)
        device = self.runner.model.device
        self._store = PrefixStore(device, max_prefix_bytes) if max_prefix_bytes != 0 else None
        self._batch = ContinuousBatch(self.runner, batch_size, self._store, live=True)
        self._max_requests = max_waiting + self._batch.places
        self._max_prompt_tokens = max_prompt_tokens
        self._encoding = Lock()  # fast tokenizers must not be set up by two threads at once
        self._changed = Condition()  # guards what follows
        self._entering: deque[Handle] = deque()
        self._handles: dict[Branch, Handle] = {}  # in the batch; changed by the worker only
        self._failed_steps = 0
        self._forgetting = False
        self._closed = False
        self._aborted = False
        self._worker = Thread(target=self._work, name="llava-live-engine", daemon=True)
        self._worker.start()

    def submit(
        self,
        request: Request,
        options: SamplingOptions,
        *,
        timeout: float | None = None,
        kept: bool = False,
        listener: Callable[[Piece | Result], None] | None = None,
    ) -> Handle:
        """Put a request at the end of the queue. The images are prepared in the calling thread.

        Args:
            request: The question; its `question_id` takes part in the seed, and need not be unique.
            options: How the answer is sampled.
            timeout: After so many seconds, waiting included, the answer ends with an error.
            kept: Whether the conversation is expected to go on: its text is kept besides its images.
            listener: Called by the engine's thread with each piece and at last with the result; it must
                return at once.

        Returns:
            The answer's handle.

        Raises:
            InputError: the request cannot be asked.
            QueueFullError: too many wait already.
            EngineClosedError: the engine is closed, or has failed.
        """
        (handle,) = self._submit([request], options, timeout=timeout, kept=kept, listener=listener)
        return handle

    def check(self, request: Request, options: SamplingOptions) -> None:
        """Raise the InputError that `submit` would, and put nothing in the queue."""
        self._make_branch(request, options, kept=False, once=False)

    def submit_together(self, requests: Sequence[Request], options: SamplingOptions) -> list[Handle]:
        """Put several questions about one image in the queue that are its only ones.

        They run together, so that the image is read once, and the prefix store does not keep it: a thousand
        windows of a photo would drive out what others need.

        Args:
            requests: The questions. Their images are the same objects, best `Pixels`.
            options: How the answers are sampled.

        Returns:
            A handle for each.

        Raises:
            InputError, QueueFullError, EngineClosedError: as for `submit`; none is put in the queue then.
        """
        return self._submit(requests, options, once=True)

    def _submit(
        self,
        requests: Sequence[Request],
        options: SamplingOptions,
        *,
        timeout: float | None = None,
        kept: bool = False,
        once: bool = False,
        listener: Callable[[Piece | Result], None] | None = None,
    ) -> list[Handle]:
        self._check_open(len(requests))
        if options.num_beams > 1:
            raise InputError("beam search does not run live: use num_beams 1")
        # all of the template's ends as text too, as in a chat: a model may spell one out
        options = options.with_ends(self.runner.loaded.template.stop)
        branches = [self._make_branch(request, options, kept, once) for request in requests]
        deadline = None if timeout is None else time.monotonic() + timeout
        handles = [Handle(branch, deadline, listener) for branch in branches]
        with self._changed:
            self._check_open(len(handles))
            self._entering.extend(handles)
            self._changed.notify()
        return handles

    def _make_branch(self, request: Request, options: SamplingOptions, kept: bool, once: bool) -> Branch:
        """Encode a request. InputError where it cannot be asked."""
        _check_texts(request, options, self.runner.context_len)
        request = with_pixels(self.runner, request)
        with self._encoding:
            branch = make_branch(self.runner, request, options, streamed=True, kept=kept)
        branch.once = once
        if branch.error is not None:
            raise InputError(branch.error)
        count, most = len(branch.prompt_ids), self._max_prompt_tokens
        if most is not None and count > most:
            raise InputError(f"the question has {count} tokens, at most {most} are taken")
        if (count := sum(map(len, branch.choice_ids))) > self.runner.context_len:
            # all are scored in one pass, which holds up the others
            raise InputError(
                f"the choices have {count} tokens together, at most {self.runner.context_len} are taken"
            )
        return branch

    def count_tokens(self, request: Request) -> int:
        """Return how many tokens the prompt of a request has, images included.

        Raises:
            InputError: the request cannot be asked.
        """
        _check_texts(request, SamplingOptions(), self.runner.context_len)
        sizes = [image_size(image) for image in request.images]
        with self._encoding:
            ids = self.runner.processor.encode_prompt(request_turns(request), sizes, request.system)
        return len(ids)

    def forget(self) -> None:
        """Drop, before the next step, what is kept of the images and conversations that were read."""
        with self._changed:
            self._forgetting = True
            self._changed.notify()

    def _check_open(self, count: int) -> None:
        """Raise unless `count` more requests are taken."""
        if self._closed:
            raise EngineClosedError("the engine is closed")
        if len(self._entering) + len(self._handles) + count > self._max_requests:
            raise QueueFullError(f"{self._max_requests} requests are on their way already")

    @property
    def closed(self) -> bool:
        """Whether no requests are taken any more: it was closed, or has failed."""
        return self._closed

    @property
    def places(self) -> int:
        """How many requests run at a time at most; fewer once memory has run out."""
        return self._batch.places

    @property
    def state(self) -> LiveState:
        """What the engine does at the moment."""
        store_bytes = 0 if self._store is None else self._store.bytes
        return LiveState(self._batch.running, self._batch.waiting + len(self._entering), store_bytes)

    def close(self, grace: float = 0.0) -> None:
        """Take no more requests, and end.

        Args:
            grace: How many seconds the requests that are on their way have to end by themselves; then they
                end with an error.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join(grace)
        self._aborted = True
        self._worker.join()

    def __enter__(self) -> LiveEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the worker's thread --------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            with self.runner.eval_mode():
                while self._take_requests():
                    self._end_unwanted()
                    if self._batch.has_work:
                        self._step()
        except BaseException:
            logger.exception("the live engine failed")
            raise
        finally:
            with self._changed:
                self._closed = True
                left = [*self._handles.values(), *self._entering]
                self._entering.clear()
            for handle in left:
                if not handle._branch.finished:
                    handle._branch.fail("the engine has failed")
                handle._send(make_result(self.runner, handle._branch))

    def _take_requests(self) -> bool:
        """Wait for work, and move new requests into the batch; false where the engine is closed and done."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._entering or self._batch.has_work or self._closed or self._forgetting
            )
            if self._forgetting and self._store is not None:
                self._store.clear()
            self._forgetting = False
            while self._entering:
                handle = self._entering.popleft()
                self._handles[handle._branch] = handle
                self._batch.add(handle._branch)
        return self._batch.has_work or not self._closed

    def _end_unwanted(self) -> None:
        """Cancel the requests that nobody wants, or that are out of time or of the closed engine's grace."""
        now = time.monotonic()
        for branch, handle in self._handles.items():
            if handle._cancelled:
                self._batch.cancel(branch)
            elif self._aborted:
                self._batch.cancel(branch, CLOSED)
            elif handle._deadline is not None and now > handle._deadline:
                self._batch.cancel(branch, OUT_OF_TIME)

    def _step(self) -> None:
        """Advance the batch, and hand out what has come.

        Whatever goes wrong in the model is treated as want of memory is: fewer run at a time, until the one
        that fails by itself is found.
        """
        finished: list[Branch] = []
        try:
            finished = self._batch.step()
            self._failed_steps = 0
        except Exception:
            self._failed_steps += 1
            if self._failed_steps > MAX_FAILED_STEPS:
                raise
            logger.exception("a step of the engine failed; fewer requests are tried at a time")
        if self._failed_steps:  # outside the handler, which keeps the tensors of the failed pass alive
            self._batch.preempt("the model failed on this question")
        for handle in self._handles.values():
            handle._send_new()
        for branch in finished:
            self._handles.pop(branch)._send(make_result(self.runner, branch))


def _check_texts(request: Request, options: SamplingOptions, context_len: int) -> None:
    """Refuse, before it costs anything, what is no text or what no context holds.

    Raises:
        InputError: a text has half a character, or all together are too long.
    """
    texts = [request.text, request.system or "", *(text for _, text in request.history),
             *(request.choices or ()), *options.stop, str(request.question_id)]  # fmt: skip
    if (count := sum(map(len, texts))) > MAX_CHARACTERS * context_len:
        raise InputError(
            f"the question has {count} characters; the model's context of {context_len} tokens does not"
            " hold them"
        )
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise InputError("the question has half a character (a lone surrogate, \\ud800 to \\udfff)") from None
