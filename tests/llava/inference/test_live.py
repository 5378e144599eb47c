"""Whatever comes and goes beside it, a live answer is the one that the request gets alone."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from llava.common.errors import InputError
from llava.inference import batching
from llava.inference.batching import ContinuousBatch
from llava.inference.chat import Chat
from llava.inference.encoding import make_branch, make_result, with_pixels
from llava.inference.engine import Engine, Request
from llava.inference.live import EngineClosedError, LiveEngine, Piece, QueueFullError
from llava.inference.model_runner import ModelRunner
from llava.inference.prefix_store import PrefixStore
from llava.inference.requests import Branch, Result
from llava.inference.sampling import SamplingOptions
from llava.model.builder import LoadedModel
from tests.support.family_models import FAMILIES, load_family
from tests.support.paths import REPO
from tests.support.small_model import image, random_model

TEXTS = ["What?", "Is there a red circle on the left?", "How many are there, and which is the largest?"]
SIZES = [(160, 120), (120, 160), (50, 50)]


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return random_model(tiny_model_dir)


@pytest.fixture(scope="module")
def endless(tiny_model_dir: Path) -> LoadedModel:
    """Answers end only at their longest length."""
    loaded = random_model(tiny_model_dir)
    loaded.model.generation_config.eos_token_id = 2
    return loaded


def random_request(rng: Random, number: int) -> tuple[Request, SamplingOptions]:
    """Make a request: none to three images of five, up to three turns, any options."""
    shown = [image(n, SIZES[n % 3]) for n in rng.choices(range(5), k=rng.choice([0, 1, 1, 1, 2, 3]))]
    history: list[Any] = []
    for _ in range(rng.choice([0, 0, 1, 2])):
        marks = "<image>\n" * (1 if shown and not history else 0)
        history += [
            ("human", marks + rng.choice(TEXTS)),
            ("gpt", rng.choice(["no", "two red ones", "It is."])),
        ]
    options = SamplingOptions(
        max_new_tokens=rng.randint(1, 14),
        temperature=rng.choice([0.0, 0.0, 1.0]),
        top_p=rng.choice([None, 0.8]),
        stop=tuple(rng.sample(["e", "th", "on"], rng.choice([0, 0, 1]))),
        seed=rng.randint(0, 3),
        top_logprobs=rng.choice([None, None, 0, 3]),
    )
    choices = ["yes", "no", "a broken disc"] if rng.random() < 0.25 else None
    return Request(number, rng.choice(TEXTS), shown, choices, history), options


def alone(loaded: LoadedModel, request: Request, options: SamplingOptions) -> Result:
    (result,) = Engine(loaded).answer([request], **vars(options))
    return result


def assert_same(found: Result, expected: Result) -> None:
    assert (found.text, found.finish_reason, found.error) == (
        expected.text,
        expected.finish_reason,
        expected.error,
    )
    assert found.prompt_tokens == expected.prompt_tokens
    assert found.completion_tokens == expected.completion_tokens
    assert (found.choices or {}) == pytest.approx(expected.choices or {}, abs=1e-4)
    assert [entry.token for entry in found.logprobs] == [entry.token for entry in expected.logprobs]
    for ours, theirs in zip(found.logprobs, expected.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [t for t, _ in ours.top] == [t for t, _ in theirs.top]


@pytest.mark.parametrize("store_bytes", [None, 60_000, 0])
@pytest.mark.parametrize("family", FAMILIES[:3])
def test_any_schedule_is_answered_as_one_at_a_time(
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    store_bytes: int | None,
) -> None:
    """30 requests come at random steps; some are cancelled; some passes run out of memory.

    A store of 60 kB holds a few prefixes of the small models at a time; then the cache is small as well.
    """
    if store_bytes:
        monkeypatch.setattr(batching, "tokens_that_fit", lambda model: 1500)
        monkeypatch.setattr(batching, "MAX_RUNNING", {"cpu": 6})
    loaded = load_family(tiny_model_dir, tmp_path / "model", family)
    runner, rng = ModelRunner(loaded), Random(f"{family} {store_bytes}")
    store = PrefixStore(runner.model.device, store_bytes) if store_bytes != 0 else None
    batch = ContinuousBatch(runner, None if store_bytes else 6, store, live=True)
    requests = [random_request(rng, number) for number in range(30)]
    branches: list[Branch] = []
    results: dict[int, Result] = {}
    forward = runner.forward

    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        if batch.running > 1 and rng.random() < 0.05:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    runner.forward = failing  # type: ignore[method-assign]
    while len(results) < len(requests):
        while len(branches) < len(requests) and rng.random() < 0.5:
            request, options = requests[len(branches)]
            kept = len(request.history) > 0 and rng.random() < 0.5
            shown = with_pixels(runner, request)
            branches.append(make_branch(runner, shown, options, order=len(branches), kept=kept))
            batch.add(branches[-1])
        running = [branch for branch in branches if not branch.finished]
        if running and rng.random() < 0.05:
            batch.cancel(rng.choice(running))
        for branch in batch.step():
            assert branch.order not in results
            results[branch.order] = make_result(runner, branch)
        assert batch.running <= 6
        if store is not None and store_bytes is not None:
            assert store.bytes <= store_bytes
    assert not batch.has_work and batch.waiting == 0
    for number, (request, options) in enumerate(requests):
        expected = alone(loaded, request, options)
        if results[number].finish_reason == "cancelled":
            assert expected.text.startswith(results[number].text)
        else:
            assert_same(results[number], expected)
    assert sum(result.finish_reason == "cancelled" for result in results.values()) < 12
    reused = [result.cached_tokens for result in results.values()]
    assert any(reused) == (store is not None)


def test_live_turns_are_those_of_a_chat(loaded: LoadedModel) -> None:
    """An image, questions, a second image; each request is the whole conversation, from another client."""
    options = {"max_new_tokens": 10, "temperature": 1.0, "seed": 4}
    chat = Chat(ModelRunner(loaded), max_new_tokens=10, temperature=1.0, seed=4)
    with LiveEngine(loaded) as live:
        shown, read = [], []
        for number, (photo, text) in enumerate(
            [(1, "What is it?"), (None, "Sure?"), (2, "Which is darker?"), (None, "Why?")], start=1
        ):
            history = chat.history
            if photo is not None:
                chat.add_image(image(photo))
                shown.append(photo)
            expected = "".join(chat.ask(text))
            request = Request(number, chat.history[-2][1], [image(n) for n in shown], history=history)
            result = live.submit(request, SamplingOptions(**options), kept=True).result(60)
            assert result.text == expected
            read.append(result.prompt_tokens - result.cached_tokens)
        image_tokens = loaded.processor.vision.tokens_per_square
        assert read[0] > image_tokens < read[2] and read[1] < image_tokens > read[3]


def test_a_picture_is_read_once_whoever_asks(loaded: LoadedModel) -> None:
    """Its copy is the same picture; one that differs in a single pixel's shade is not."""
    near = image(1)
    near.putpixel((80, 60), tuple(255 - value for value in near.getpixel((80, 60))))
    options = SamplingOptions(max_new_tokens=4)
    with LiveEngine(loaded) as live:
        ask = lambda photo, text: live.submit(Request("", text, [photo]), options).result(60)  # noqa: E731
        first, again, other = ask(image(1), "What?"), ask(image(1), "How many?"), ask(near, "How many?")
        prefix = loaded.processor.vision.tokens_per_square
        assert first.cached_tokens == 0 == other.cached_tokens
        assert prefix < again.cached_tokens < again.prompt_tokens
        assert_same(other, alone(loaded, Request("", "How many?", [near]), options))
        assert live.state.prefix_bytes > 0


def test_pieces_join_to_the_text_and_bring_the_logprobs(loaded: LoadedModel) -> None:
    with LiveEngine(loaded) as live:
        handle = live.submit(
            Request("", "What is it?", [image(1)]), SamplingOptions(max_new_tokens=12, top_logprobs=2)
        )
        pieces = list(handle)
        result = handle.result(0)
    assert "".join(piece.text for piece in pieces) == result.text and len(pieces) > 1
    assert list(handle) == []
    logprobs = [entry for piece in pieces for entry in piece.logprobs]
    assert tuple(logprobs) == result.logprobs[: len(logprobs)]
    assert all(entry.top[0][0] == entry.token and len(entry.top) == 2 for entry in result.logprobs)  # greedy


def test_a_listener_takes_the_events_into_asyncio(loaded: LoadedModel) -> None:
    async def answer(live: LiveEngine, text: str) -> str:
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Piece | Result]()
        live.submit(
            Request("", text, [image(1)]),
            SamplingOptions(max_new_tokens=12),
            listener=lambda event: loop.call_soon_threadsafe(events.put_nowait, event),
        )
        said = ""
        while isinstance(event := await events.get(), Piece):
            said += event.text
        assert event.text == said
        return said

    async def answer_all(live: LiveEngine) -> list[str]:
        return await asyncio.gather(*(answer(live, text) for text in TEXTS))

    with LiveEngine(loaded) as live:
        found = asyncio.run(answer_all(live))
    options = SamplingOptions(max_new_tokens=12)
    assert found == [alone(loaded, Request("", text, [image(1)]), options).text for text in TEXTS]


def test_clients_come_and_go(endless: LoadedModel) -> None:
    """Eight threads ask, some leave in the middle; the others' answers are theirs alone."""
    expected = {
        number: alone(endless, Request(number, TEXTS[number % 3], [image(number % 2)]), SamplingOptions(10))
        for number in range(8)
    }
    failures: list[str] = []

    def client(live: LiveEngine, number: int) -> None:
        rng = Random(number)
        for _ in range(4):
            leaves = rng.random() < 0.4
            options = SamplingOptions(max_new_tokens=200 if leaves else 10)
            handle = live.submit(Request(number, TEXTS[number % 3], [image(number % 2)]), options)
            if leaves:
                next(iter(handle))
                handle.cancel()
            result = handle.result(60)
            if leaves and not (result.finish_reason == "cancelled" and result.completion_tokens < 200):
                failures.append(f"{number}: {result.finish_reason} after {result.completion_tokens}")
            if not leaves and result.text != expected[number].text:
                failures.append(f"{number}: {result.text}")

    with LiveEngine(endless, batch_size=5) as live:
        threads = [threading.Thread(target=client, args=(live, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not failures
        assert (live.state.running, live.state.waiting) == (0, 0)


def test_a_full_queue_refuses_and_a_cancelled_place_is_free(endless: LoadedModel) -> None:
    long = SamplingOptions(max_new_tokens=1500)
    with LiveEngine(endless, batch_size=1, max_waiting=1) as live:
        first = live.submit(Request("", "What?"), long)
        second = live.submit(Request("", "How?"), SamplingOptions(max_new_tokens=2))
        with pytest.raises(QueueFullError, match="2 requests"):
            live.submit(Request("", "Why?"), long)
        next(iter(first))
        first.cancel()
        assert first.result(60).finish_reason == "cancelled"
        assert second.result(60).finish_reason == "length"
        assert live.submit(Request("", "Why?"), SamplingOptions(max_new_tokens=1)).result(60).error is None


def test_first_come_is_first_served(endless: LoadedModel) -> None:
    """Questions about a picture that runs already do not overtake one about another."""
    runner = ModelRunner(endless)
    batch = ContinuousBatch(runner, 2, PrefixStore(runner.model.device), live=True)
    for number, photo in enumerate([1, 2, 1, 3, 1, 1, 2, 1]):
        request = with_pixels(runner, Request(number, "What?", [image(photo)]))
        batch.add(make_branch(runner, request, SamplingOptions(max_new_tokens=4)))
    finished: list[int] = []
    while batch.has_work:
        finished += sorted(int(branch.request.question_id) for branch in batch.step())
    assert finished == sorted(finished)


def test_an_answer_ends_at_its_deadline_and_with_the_engine(endless: LoadedModel) -> None:
    live = LiveEngine(endless)
    late = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=1900), timeout=0.2).result(60)
    assert late.finish_reason == "error" and "time limit" in (late.error or "") and late.text
    short = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=5))
    long = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=1900))
    live.close(grace=0.1)
    assert short.result(0).finish_reason == "length"
    assert "closed before" in (long.result(0).error or "")
    with pytest.raises(EngineClosedError):
        live.submit(Request("", "What?"), SamplingOptions())
    live.close()


def test_requests_that_cannot_be_asked_are_refused_at_once(loaded: LoadedModel) -> None:
    with LiveEngine(loaded, max_prompt_tokens=100) as live:
        for request, options, message in (
            (Request("", "say </s> now"), {}, "special token"),
            (Request("", "far too long " * 80), {}, "at most 100"),
            (Request("", "far too long " * 2000), {}, "context is"),
            (Request("", "What?", history=[("gpt", "Hello")]), {}, "turn 0"),
            (Request("", "What?", history=[("human", "<image>\nA?"), ("gpt", "B")]), {}, "earlier turns"),
            (Request("", "What?"), {"num_beams": 2}, "beam search"),
            (Request("", "half a \ud800 character"), {}, "lone surrogate"),
            (Request("", "What?", history=[("human", "A?"), ("gpt", "\udfff")]), {}, "lone surrogate"),
            (Request("", "What?", choices=["Yes", "\ud800"]), {}, "lone surrogate"),
            (Request("\ud800", "What?"), {}, "lone surrogate"),
            (Request("", "x" * 10**7), {}, "characters; the model"),  # tokenised, it would take half a minute
            (Request("", "What?"), {"stop": ("x" * 10**6,)}, "characters; the model"),
            (Request("", "What?", choices=[f"{n} 0 0 0 0" for n in range(400)]), {}, "choices have"),
        ):
            with pytest.raises(InputError, match=message):
                live.submit(request, SamplingOptions(**options))


def test_a_question_that_the_model_fails_on_costs_only_its_own_answer(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory or anything else: the requests beside it are answered."""
    live = LiveEngine(loaded, batch_size=8)
    forward = live.runner.forward
    bad = with_pixels(live.runner, Request("", "What?", [image(9)]))
    (digest,) = (picture.digest for picture in bad.images)

    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        if any(picture.digest == digest for picture in (args[4] if len(args) > 4 else ())):
            raise ValueError("no such thing")
        return forward(*args, **kwargs)

    monkeypatch.setattr(live.runner, "forward", failing)
    options = SamplingOptions(max_new_tokens=8)
    requests = [Request("", text, [image(number)]) for number in range(3) for text in TEXTS]
    handles = [live.submit(request, options) for request in requests[:4]]
    refused = live.submit(bad, options)
    handles += [live.submit(request, options) for request in requests[4:]]
    assert "failed on this question" in (refused.result(60).error or "")
    for request, handle in zip(requests, handles, strict=True):
        assert_same(handle.result(60), alone(loaded, request, options))
    live.close()


def test_a_listener_that_fails_costs_only_its_own_answer(endless: LoadedModel) -> None:
    def gone(event: Piece | Result) -> None:
        raise RuntimeError("Event loop is closed")

    with LiveEngine(endless) as live:
        left = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=1900), listener=gone)
        other = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=10))
        assert left.result(60).finish_reason == "cancelled" and list(left) == []
        assert other.result(60).finish_reason == "length"


def test_a_live_batch_grows_again_after_memory_ran_out(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LIVE_RECOVERY", 4)
    runner = ModelRunner(loaded)
    batch, forward, widths = ContinuousBatch(runner, 8, live=True), runner.forward, []

    def limited(ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not widths and len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(runner, "forward", limited)
    for number in range(32):
        batch.add(make_branch(runner, Request(number, "What?"), SamplingOptions(max_new_tokens=3)))
    finished = 0
    while batch.has_work:
        finished += len(batch.step())
        if finished > 8:
            widths.append(batch.running)  # from now on there is memory enough
    assert finished == 32 and widths[0] <= 2 and max(widths) == 8


def test_an_engine_that_cannot_go_on_says_so(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveEngine(loaded)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(live._batch, "step", lambda: 1 / 0)
    assert live.submit(Request("", "What?"), SamplingOptions()).result(60).error == "the engine has failed"
    deadline = time.monotonic() + 10
    while live._worker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(EngineClosedError):
        live.submit(Request("", "What?"), SamplingOptions())


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPO / "docs" / "inference.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"test_live.py runs this -->\n```python\n(.*?)```", text, re.DOTALL)
    image(1).save(tmp_path / "photo.jpg")
    (tmp_path / "playground").symlink_to(REPO / "playground")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    said, last = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert said and re.fullmatch(r"(stop|length): \d+ tokens, 0 of them not read again", last)


def test_questions_asked_together_read_their_picture_once_and_leave_nothing_in_the_store(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    forward = ModelRunner.forward

    def counting(self: ModelRunner, *args: Any, **kwargs: Any) -> torch.Tensor:
        read.append(len(args[4]) if len(args) > 4 else 0)
        return forward(self, *args, **kwargs)

    options = SamplingOptions(max_new_tokens=1)
    requests = [
        [Request("", text, [image(number)], choices=["yes", "no"]) for text in TEXTS] for number in range(6)
    ]
    with LiveEngine(loaded, batch_size=4) as live:
        together = [
            [with_pixels(live.runner, request) for request in of_one_image] for of_one_image in requests
        ]
        monkeypatch.setattr(ModelRunner, "forward", counting)
        handles = [live.submit_together(of_one_image, options) for of_one_image in together]
        results = [[handle.result(60) for handle in of_one_image] for of_one_image in handles]
        assert sum(read) == len(requests)  # though four places do not hold the questions of two images
        assert live.state.prefix_bytes == 0
    monkeypatch.undo()
    for of_one_image, answers in zip(requests, results, strict=True):
        for request, result in zip(of_one_image, answers, strict=True):
            assert_same(result, alone(loaded, request, options))


def test_questions_asked_together_are_all_refused_where_one_has_no_place(endless: LoadedModel) -> None:
    with LiveEngine(endless, batch_size=1, max_waiting=1) as live:
        handle = live.submit(Request("", "What?"), SamplingOptions(max_new_tokens=1500))
        with pytest.raises(QueueFullError):
            live.submit_together(
                [Request("", "How?"), Request("", "Why?")], SamplingOptions(max_new_tokens=1)
            )
        assert live.state.waiting + live.state.running <= 1
        handle.cancel()
