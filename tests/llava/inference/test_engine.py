"""Batched answers equal answers one at a time; choices, sampling, stop strings, memory limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from llava.common.errors import InputError
from llava.inference import batching
from llava.inference.engine import Engine, Request
from llava.inference.memory import tokens_that_fit
from llava.inference.sampling import AnswerText, SamplingOptions, next_tokens
from llava.model.builder import LoadedModel, load_model
from tests.support.small_model import image, plain_text, random_model

QUESTIONS = [
    "Is there a red circle?",
    "How many?",
    "Describe the picture in one sentence, and say where the largest thing is and which colour it has.",
    "What colour is the square on the left?",
    "yes",
]


@pytest.fixture(scope="module", params=["random", "tiny"])
def loaded(request: pytest.FixtureRequest, tiny_model_dir: Path) -> LoadedModel:
    return (
        random_model(tiny_model_dir)
        if request.param == "random"
        else load_model(tiny_model_dir, device="cpu")
    )


@pytest.fixture(scope="module")
def random_loaded(tiny_model_dir: Path) -> LoadedModel:
    return random_model(tiny_model_dir)


def mixed_requests() -> list[Request]:
    """Three images with several questions each, two images in one question, and text alone, shuffled."""
    images = [image(seed, (160, 100 + 40 * seed)) for seed in range(3)]
    requests = [Request(f"{p}-{q}", text, [images[p]]) for p in range(3) for q, text in enumerate(QUESTIONS)]
    requests += [Request(f"text-{q}", text) for q, text in enumerate(QUESTIONS[:2])]
    requests.append(Request("both", "Which is brighter?", [images[2], images[0]]))
    requests.append(Request("inline", "Look at <image> and say what it is.", [images[1]]))
    Random(0).shuffle(requests)
    return requests


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batched_answers_equal_one_at_a_time(loaded: LoadedModel, batch_size: int) -> None:
    requests = mixed_requests()
    results = Engine(loaded).answer(requests, batch_size=batch_size, max_new_tokens=24)
    assert [result.question_id for result in results] == [request.question_id for request in requests]
    expected = [plain_text(loaded, r.text, list(r.images), 24) for r in requests]
    assert [result.text for result in results] == expected


def test_the_random_model_tests_something(random_loaded: LoadedModel) -> None:
    results = Engine(random_loaded).answer(mixed_requests(), max_new_tokens=24)
    assert len({result.text for result in results}) > len(results) // 2
    assert {result.truncated for result in results} == {True, False}


def test_an_image_is_encoded_once(random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, seen = Engine(random_loaded), []
    tower = random_loaded.model.model.vision_tower
    handle = tower.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0])), with_kwargs=True
    )
    try:
        shown = [image(1), image(2)]
        engine.answer([Request(i, QUESTIONS[i % 5], [shown[i % 2]]) for i in range(10)], max_new_tokens=3)
    finally:
        handle.remove()
    assert seen == [2]


def test_choices_are_scored_as_whole_answers(loaded: LoadedModel) -> None:
    choices = ["yes", "no", "a broken disc", "a broken disc on the left"]
    shown = image(1)
    requests = [
        Request("a", QUESTIONS[0], [shown], choices),
        Request("b", QUESTIONS[2], [shown], ["yes", "no"]),
        Request("c", QUESTIONS[2], [shown]),
        Request("d", "Is it?", choices=choices[::-1]),
    ]
    results = Engine(loaded).answer(requests, max_new_tokens=8)
    for request, result in zip(requests, results, strict=True):
        plain = plain_text(loaded, request.text, list(request.images), 8)
        assert result.text == plain  # scoring leaves the cache as it found it
        if request.choices is None:
            assert result.choices is None
            continue
        question = "<image>\n" * len(request.images) + request.text
        sums = []
        for choice in request.choices:
            encoded = loaded.processor.encode([("human", question), ("gpt", choice)])
            pixels = (
                torch.cat([loaded.processor.pixels(p).patches for p in request.images])
                if request.images
                else None
            )
            with torch.no_grad():
                logits = loaded.model(input_ids=torch.tensor([encoded.input_ids]), pixel_values=pixels).logits
            log_probabilities = logits[0, :-1].log_softmax(-1)
            labels = torch.tensor(encoded.labels[1:])
            rows = (labels != -100).nonzero().squeeze(1)
            sums.append(float(log_probabilities[rows, labels[rows]].sum()))
        total = sum(math.exp(value - max(sums)) for value in sums)
        assert result.choices == pytest.approx(
            {c: math.exp(v - max(sums)) / total for c, v in zip(request.choices, sums, strict=True)}, abs=1e-4
        )


def test_sampling_repeats_with_its_seed_in_any_batch(random_loaded: LoadedModel) -> None:
    engine, requests = Engine(random_loaded), mixed_requests()

    def texts(seed: int, batch_size: int = 16, top_p: float = 0.9) -> list[str]:
        results = engine.answer(
            requests, temperature=1.0, top_p=top_p, max_new_tokens=12, seed=seed, batch_size=batch_size
        )
        return [result.text for result in results]

    first = texts(seed=1, batch_size=3)
    assert texts(seed=1, batch_size=16) == first
    assert texts(seed=2, batch_size=16) != first
    greedy = [result.text for result in engine.answer(requests, max_new_tokens=12)]
    assert texts(seed=3, top_p=1e-6) == greedy


def test_top_p_and_temperature_draw_from_the_right_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    generators = [Random(index) for index in range(4000)]
    drawn = next_tokens(logits, [SamplingOptions(temperature=1.0, top_p=0.7)] * 4000, generators)
    assert set(drawn.tolist()) == {0, 1}
    assert float((drawn == 0).float().mean()) == pytest.approx(0.5 / 0.8, abs=0.03)
    drawn = next_tokens(logits, [SamplingOptions(temperature=1.0)] * 4000, generators)
    assert float((drawn == 3).float().mean()) == pytest.approx(0.05, abs=0.015)


def test_stop_strings_end_the_answer(random_loaded: LoadedModel) -> None:
    engine, requests = Engine(random_loaded), mixed_requests()
    free = engine.answer(requests, max_new_tokens=24)
    stop = next(result.text for result in free if len(result.text) > 20)[8:10]
    for before, after in zip(free, engine.answer(requests, max_new_tokens=24, stop=[stop]), strict=True):
        assert after.text == before.text.split(stop)[0].strip()


def test_beam_search_is_that_of_transformers(random_loaded: LoadedModel) -> None:
    shown = image(1)
    (result,) = Engine(random_loaded).answer(
        [Request(1, QUESTIONS[0], [shown], ["yes", "no"])], num_beams=3, max_new_tokens=10
    )
    ids = torch.tensor([random_loaded.processor.encode_prompt([("human", f"<image>\n{QUESTIONS[0]}")])])
    output = random_loaded.model.generate(
        input_ids=ids,
        pixel_values=random_loaded.processor.pixels(shown).patches,
        attention_mask=torch.ones_like(ids),
        num_beams=3,
        do_sample=False,
        max_new_tokens=10,
        pad_token_id=1025,
    )
    tokens = [
        t for t in output[0, ids.shape[1] :].tolist() if t not in Engine(random_loaded).runner.stop_token_ids
    ]
    assert result.text == random_loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert result.choices is not None


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")],
)
def test_fewer_at_a_time_where_memory_runs_out(
    random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    engine, sizes = Engine(random_loaded), []
    expected = [result.text for result in engine.answer(mixed_requests(), max_new_tokens=6)]
    forward = engine.runner.forward

    def limited(*args: Any, keep: int = 1, **kwargs: Any) -> torch.Tensor:
        cells = args[3].get_seq_length() * len(args[0])  # of the cache, late as well as early
        sizes.append(cells)
        if cells > 400:
            raise error
        return forward(*args, keep=keep, **kwargs)

    monkeypatch.setattr(engine.runner, "forward", limited)
    assert [r.text for r in engine.answer(mixed_requests(), batch_size=16, max_new_tokens=6)] == expected
    assert max(sizes) > 400 and engine.runner.max_branches is not None and engine.runner.max_branches < 16

    def hopeless(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(engine.runner, "forward", hopeless)
    with pytest.raises(InputError, match="not even one question at a time fits"):
        engine.answer(mixed_requests(), max_new_tokens=6)
    monkeypatch.setattr(
        engine.runner, "forward", lambda *args, **kwargs: torch.zeros(2, 3) @ torch.zeros(2, 3)
    )
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        engine.answer(mixed_requests(), max_new_tokens=6)


def test_a_question_that_does_not_fit_alone_costs_only_its_own_answer(
    random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with two images; those behind it run together again."""
    engine = Engine(random_loaded)
    requests = sorted(mixed_requests(), key=lambda request: str(request.question_id), reverse=True)
    names = [request.question_id for request in requests]
    assert 0 < names.index("both") < len(names) - 8
    expected = {r.question_id: r for r in engine.answer(requests, max_new_tokens=6)}
    forward, running = engine.runner.forward, []

    def limited(*args: Any, keep: int = 1, **kwargs: Any) -> torch.Tensor:
        ids, images = args[0], args[4] if len(args) > 4 else ()
        if len(images) > len(ids):
            raise torch.OutOfMemoryError("CUDA out of memory")
        running.append(keep * len(ids))
        return forward(*args, keep=keep, **kwargs)

    monkeypatch.setattr(engine.runner, "forward", limited)
    found = {r.question_id: r for r in engine.stream(requests, batch_size=8, max_new_tokens=6)}
    failed, fitting = found.pop("both"), expected.pop("both")
    assert fitting.text and failed.text == "" and failed.choices is None
    assert failed.error is not None and "does not fit in the memory, though asked alone" in failed.error
    assert found == expected
    assert engine.runner.max_branches is None and running[-1] > 1


def test_the_batch_is_found_from_free_memory(
    random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is free, one question at a time is tried; the answers do not depend on it."""
    engine, rows = Engine(random_loaded), []
    expected = [result.text for result in engine.answer(mixed_requests(), max_new_tokens=6)]
    forward = engine.runner.forward

    def watched(ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(len(ids))
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(engine.runner, "forward", watched)
    for tokens, limit in ((1, 1), (1000, 6), (10**9, 32)):
        rows.clear()
        monkeypatch.setattr(batching, "tokens_that_fit", lambda model, tokens=tokens: tokens)
        assert [r.text for r in engine.answer(mixed_requests(), max_new_tokens=6)] == expected
        assert max(rows) <= limit
    assert max(rows) > 1
    monkeypatch.undo()
    text = random_loaded.model.config.text_config
    each = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim  # bytes
    free = psutil.virtual_memory().available
    assert tokens_that_fit(random_loaded.model) == pytest.approx(0.6 * free / each, rel=0.2)


def test_the_next_questions_enter_while_others_run(
    random_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers come as they are found; no more requests are taken than there is room for; each image is
    encoded once, and no more questions than the batch size are on their way."""
    shown = [image(seed) for seed in range(8)]
    taken, answered = 0, 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for number, photo in enumerate(shown):
            for turn, text in enumerate(QUESTIONS[: 1 + number % 4]):
                taken += 1
                yield Request(f"{number}-{turn}", text, [photo])

    engine, encoded = Engine(random_loaded), []
    handle = random_loaded.model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: encoded.append(len(args[0])), with_kwargs=True
    )
    try:
        order = []
        for result in engine.stream(requests(), batch_size=6, max_new_tokens=20):
            order.append(result)
            answered += 1
            assert taken - answered <= 6 + 7  # those on their way, and those looked ahead to
    finally:
        handle.remove()
    assert sum(encoded) == len(shown) and len(encoded) > 2
    everything = {f"{r.question_id}": r for r in requests()}
    assert len(order) == len(everything)
    assert [r.question_id for r in order] != list(everything)  # shorter answers come before longer ones
    for result in order:
        request = everything[str(result.question_id)]
        assert result.text == plain_text(random_loaded, request.text, list(request.images), 20)


def test_a_stream_that_is_left_puts_the_training_mode_back(random_loaded: LoadedModel) -> None:
    random_loaded.model.train()
    try:
        stream = iter(Engine(random_loaded).stream([Request(n, "yes") for n in range(9)], batch_size=2))
        next(stream)
        assert not random_loaded.model.training
        del stream
        assert random_loaded.model.training
    finally:
        random_loaded.model.eval()


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    batch=st.integers(1, 9),
    tokens=st.integers(1, 9),
    choices=st.booleans(),
)
def test_any_mixture_is_answered_as_one_at_a_time(
    random_loaded: LoadedModel, counts: list[int], batch: int, tokens: int, choices: bool
) -> None:
    """`counts` questions about each image; 0 stands for one without an image."""
    options = ["yes", "a broken disc"] if choices else None
    requests = []
    for number, count in enumerate(counts):
        photo = image(number, (100, 60 + 20 * number))
        for turn in range(max(1, count)):
            requests.append(Request(f"{number}-{turn}", QUESTIONS[turn], [photo][:count], options))
    engine = Engine(random_loaded)
    found = {r.question_id: r for r in engine.stream(requests, batch_size=batch, max_new_tokens=tokens)}
    for request in requests:
        (alone,) = engine.answer([request], max_new_tokens=tokens)
        assert found[request.question_id].text == alone.text
        assert (found[request.question_id].choices or {}) == pytest.approx(alone.choices or {}, abs=1e-4)


def test_questions_that_cannot_be_asked_do_not_stop_the_others(tiny_model_dir: Path) -> None:
    loaded = random_model(tiny_model_dir, context=120)
    shown = image(1)
    results = Engine(loaded).answer(
        [
            Request(1, "far too long " * 80, [shown]),
            Request(2, "say </s> now", [shown]),
            Request(3, "<image> and <image>?", [shown]),
            Request(4, "How many?", [shown]),
        ],
        max_new_tokens=500,
    )
    assert "context is 120" in (results[0].error or "")
    assert "special token" in (results[1].error or "")
    assert "2 <image> mark(s) for 1 picture(s)" in (results[2].error or "")
    assert results[3].error is None


def test_the_context_ends_an_answer(tiny_model_dir: Path) -> None:
    loaded = random_model(tiny_model_dir, context=120)
    loaded.model.generation_config.eos_token_id = [2]
    engine = Engine(loaded)
    (result,) = engine.answer([Request(1, "How many?", [image(1)])], max_new_tokens=500)
    ids = loaded.processor.encode_prompt([("human", "<image>\nHow many?")])
    assert result.truncated
    assert result.text == plain_text(loaded, "How many?", [image(1)], 120 - len(ids))


def test_training_mode_is_put_back(random_loaded: LoadedModel) -> None:
    random_loaded.model.train()
    try:
        Engine(random_loaded).answer([Request(1, "yes")], max_new_tokens=2)
        assert random_loaded.model.training
    finally:
        random_loaded.model.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "temperature": 0.5}, "beam search"),
        ({"batch_size": 0}, "batch size"),
        ({"stop": [""]}, "stop string"),
    ],
)
def test_impossible_options_are_refused(random_loaded: LoadedModel, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Engine(random_loaded).answer([Request(1, "yes")], **options)


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffd▁"), max_size=30
)


@settings(max_examples=150)
@given(text=TEXT, stop=st.lists(st.text("ab ▲é", min_size=1, max_size=3), max_size=2))
@example(text="baé", stop=["a", "baé"])
def test_streamed_pieces_join_to_the_text(
    tokenizer: PreTrainedTokenizerBase, text: str, stop: list[str]
) -> None:
    """Characters outside the vocabulary are byte pieces: none may appear half."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    answer, pieces = AnswerText(tokenizer, stop), []
    for token in ids:
        pieces.append(answer.push(token))
        if answer.stopped:
            break
    pieces.append(answer.finish())
    # The answer ends with the first token that completes a stop string, before the earliest of those there.
    expected = ""
    for count in range(1, len(ids) + 1):
        expected = tokenizer.decode(ids[:count], skip_special_tokens=True)
        ends = [expected.index(s) for s in stop if s in expected]
        if ends:
            expected = expected[: min(ends)]
            break
    assert "".join(pieces) == answer.text == expected.strip()
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.fixture(scope="session")
def tokenizer(tiny_model_dir: Path) -> PreTrainedTokenizerBase:
    return load_model(tiny_model_dir, device="cpu").tokenizer
