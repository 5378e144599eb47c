"""Hostile batches against one at a time: images of many sizes, memory that runs out, odd models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llava.inference import batching
from llava.inference.engine import Engine, Request
from llava.inference.memory import container_free_bytes
from llava.model.builder import LoadedModel
from llava.train.float32_attention import SDPA_FLOAT32
from tests.support.family_models import FAMILIES, load_family
from tests.support.small_model import image, plain_text, random_model

SIZES = [(160, 40), (30, 140), (50, 50), (90, 60)]
TEXTS = ["What?", "Is there a red circle on the left?", "How many are there, and which is the largest?"]
CHOICES = ["yes", "no", "a broken disc"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    return load_family(tiny_model_dir, tmp_path_factory.mktemp("family") / "model", request.param)


@pytest.fixture
def engine(tiny_model_dir: Path) -> Engine:
    return Engine(random_model(tiny_model_dir))


IMAGES = [image(number, size) for number, size in enumerate(SIZES)]


def request(number: int, shown: list[int], text: int, middle: bool, scored: bool) -> Request:
    question = TEXTS[text]
    if middle:
        question = " and ".join(["Look at <image>"] * len(shown)) + f": {question}" if shown else question
    return Request(number, question, [IMAGES[index] for index in shown], CHOICES if scored else None)


QUESTIONS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 3), max_size=2), st.integers(0, 2), st.booleans(), st.sampled_from([0, 0, 1])
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=12, deadline=None)
@given(
    questions=QUESTIONS,
    batch=st.integers(1, 8),
    tokens=st.integers(1, 8),
    cached=st.sampled_from([None, 150, 900]),
    failing_passes=st.sets(st.integers(0, 12), max_size=1),
    options=st.sampled_from([{}, {"stop": ["e", "th"]}, {"temperature": 1.0, "top_p": 0.8}]),
)
def test_any_batch_is_answered_as_one_at_a_time(
    family: LoadedModel,
    questions: list[tuple[list[int], int, bool, bool]],
    batch: int,
    tokens: int,
    cached: int | None,
    failing_passes: set[int],
    options: dict[str, Any],
) -> None:
    """The forward passes of these numbers run out of memory; `cached` tokens are thought to fit."""
    requests = [request(number, *parts) for number, parts in enumerate(questions)]
    engine = Engine(family)
    alone = [engine.answer([one], max_new_tokens=tokens, **options)[0] for one in requests]
    forward, count = engine.runner.forward, 0

    def limited(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal count
        count += 1
        if count - 1 in failing_passes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.runner, "forward", limited)
        if cached is not None:
            patch.setattr(batching, "tokens_that_fit", lambda model: cached)
        size = batch if cached is None else None
        if batch == 1:
            failing_passes = set()  # one at a time that does not fit is the end
        found = list(engine.stream(iter(requests), batch_size=size, max_new_tokens=tokens, **options))
    assert sorted(int(result.question_id) for result in found) == list(range(len(requests)))
    for result in found:
        expected = alone[int(result.question_id)]
        assert (result.text, result.truncated) == (expected.text, expected.truncated)
        assert (result.choices or {}) == pytest.approx(expected.choices or {}, abs=1e-4)


def watched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For each reading of images, the image tokens of every row."""
    rows: list[list[int]] = []
    forward = engine.runner.forward

    def noting(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args[3:] and args[3]:
            image = engine.runner.processor.image_token_id
            rows.append((ids == image).sum(dim=1).tolist())
        return forward(ids, *args, **kwargs)

    monkeypatch.setattr(engine.runner, "forward", noting)
    return rows


def test_images_of_nearly_one_length_are_read_together(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they stand among the waiting, the first of them always among those that enter."""
    loaded = load_family(tiny_model_dir, tmp_path / "model", "llava_next-llama")
    sizes = [(160, 40), (50, 50), (160, 70), (60, 50), (50, 80), (50, 50)]
    shown = [image(number, size) for number, size in enumerate(sizes)]
    engine = Engine(loaded)
    rows = watched(engine, monkeypatch)
    requests = [Request(number, "What?", [photo]) for number, photo in enumerate(shown)]
    found = {r.question_id: r.text for r in engine.stream(requests, batch_size=12, max_new_tokens=4)}
    assert len(rows) == 2 and [len(read) for read in rows] == [3, 3]
    assert len(set(rows[0])) > 1 or len(set(rows[1])) > 1  # not all of one length
    assert found == {n: plain_text(loaded, "What?", [photo], 4) for n, photo in enumerate(shown)}


def test_an_image_with_more_questions_than_places_does_not_wait_for_all_to_leave(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.runner.stop_token_ids = frozenset()
    rows = watched(engine, monkeypatch)
    photo = image(1)
    stops = engine.answer([Request(0, "What?", [photo])], max_new_tokens=2)[0].text
    del rows[:]
    requests = [Request(number, "What?", [photo]) for number in range(9)]
    requests.insert(0, Request("long", "How many are there?", [image(2)]))
    order = [r.question_id for r in engine.stream(requests, batch_size=4, max_new_tokens=40, stop=[stops])]
    assert sorted(map(str, order)) == sorted([*map(str, range(9)), "long"])
    assert order.index("long") > 3  # the nine went past it


def test_questions_of_an_image_that_do_not_follow_each_other_meet_while_they_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = watched(engine, monkeypatch)
    shown = [image(1), image(2)]
    list(engine.stream([Request(n, TEXTS[n % 3], [shown[n % 2]]) for n in range(8)], batch_size=8))
    assert [len(read) for read in rows] == [2]


@pytest.mark.parametrize("name", ["eager", SDPA_FLOAT32])
def test_a_model_with_other_attention_answers_as_with_sdpa(tiny_model_dir: Path, name: str) -> None:
    """A bool mask means nothing to transformers' eager attention, which adds it."""
    loaded = random_model(tiny_model_dir)
    requests = [Request(n, text, [IMAGES[n % 2]]) for n, text in enumerate(TEXTS * 2)]
    expected = [plain_text(loaded, r.text, list(r.images), 8) for r in requests]
    loaded.model.set_attn_implementation(name)
    assert [r.text for r in Engine(loaded).answer(requests, max_new_tokens=8)] == expected


def test_answers_end_where_the_attention_window_does(tiny_model_dir: Path) -> None:
    loaded = random_model(tiny_model_dir)
    loaded.model.config.text_config.sliding_window = 96
    loaded.model.generation_config.eos_token_id = None
    engine = Engine(loaded)
    (result,) = engine.answer([Request(1, "What?", [image(1)])], max_new_tokens=500)
    prompt = len(loaded.processor.encode_prompt([("human", "<image>\nWhat?")]))
    assert engine.runner.context_len == 96 and result.truncated
    assert result.text == plain_text(loaded, "What?", [image(1)], 96 - prompt)


def test_the_last_question_is_tried_alone_before_memory_is_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What those that are done have left in the cache may be what is too much."""
    (expected,) = engine.answer([Request(1, "What?", [image(1)])], max_new_tokens=9)
    forward = engine.runner.forward
    failed: list[bool] = []

    def once(*args: Any, **kwargs: Any) -> Tensor:
        if not failed:
            failed.append(True)
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.runner, "forward", once)
    assert engine.answer([Request(1, "What?", [image(1)])], max_new_tokens=9) == [expected]


def test_what_fails_comes_out_and_the_model_trains_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.runner.model.train()

    def requests() -> Iterator[Request]:
        yield Request(1, "What?")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(engine.stream(requests()))
    assert engine.runner.model.training
    monkeypatch.setattr(engine.runner, "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.answer([Request(1, "What?")])
    assert engine.runner.model.training
    assert engine.answer([]) == []


def test_the_same_id_twice_is_answered_twice(engine: Engine) -> None:
    results = engine.answer([Request(1, TEXTS[0], [image(1)]), Request(1, TEXTS[2])], max_new_tokens=5)
    assert results[0].text == plain_text(engine.runner.loaded, TEXTS[0], [image(1)], 5)
    assert results[1].text == plain_text(engine.runner.loaded, TEXTS[2], [], 5)


def test_what_a_container_leaves(tmp_path: Path) -> None:
    assert container_free_bytes(tmp_path) == float("inf")
    old = tmp_path / "memory"
    old.mkdir()
    for name, text in (
        ("memory.limit_in_bytes", "4000\n"), ("memory.usage_in_bytes", "3000\n"),
        ("memory.stat", "cache 700\ntotal_inactive_file 500\n"),
    ):  # fmt: skip
        (old / name).write_text(text)
    assert container_free_bytes(tmp_path) == 1500
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_free_bytes(tmp_path) == 300
    (tmp_path / "memory.max").write_text("max\n")
    assert container_free_bytes(tmp_path) == float("inf")


def test_the_folders_own_sampling_is_not_used(engine: Engine) -> None:
    requests = [Request(number, text, [image(number)]) for number, text in enumerate(TEXTS)]
    theirs = engine.runner.model.generation_config
    found = {}
    for penalty in (1.0, 5.0):
        theirs.repetition_penalty = penalty
        for beams in (1, 3):
            found[penalty, beams] = engine.answer(requests, num_beams=beams, max_new_tokens=12)
    assert found[1.0, 1] == found[5.0, 1]
    assert found[1.0, 3] == found[5.0, 3]
    assert engine.runner.model.generation_config is theirs
