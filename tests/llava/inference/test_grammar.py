"""Answers that are held to a JSON schema: valid, whatever the model and whatever runs beside them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import llguidance.hf
import pytest

from llava.common.errors import InputError
from llava.inference.batching import ContinuousBatch
from llava.inference.encoding import make_branch, make_result
from llava.inference.engine import Engine
from llava.inference.live import LiveEngine
from llava.inference.model_runner import ModelRunner
from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.model.builder import LoadedModel, load_model
from tests.support.byte_level import save_byte_level
from tests.support.family_models import FAMILIES, load_family
from tests.support.small_model import image, random_model

WORDS = ["crack", "gebrochen: Isolator", "绝缘子", 'a "quoted" \\ word', "</s>", "10 мм"]
OPTIONAL = json.dumps({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1900)}})


@pytest.fixture(scope="module", params=["sentencepiece", "byte level"])
def loaded(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    """Models of either kind of tokenizer whose vocabulary is wider than the tokenizer's.

    62 of the first one's stop tokens are pieces of text.
    """
    if request.param == "sentencepiece":
        return random_model(tiny_model_dir)
    return load_model(
        save_byte_level(tiny_model_dir, tmp_path_factory.mktemp("byte") / "model"), device="cpu"
    )


def random_schema(rng: Random, depth: int = 2) -> dict[str, Any]:
    kind = rng.choice(["object", "array", "enum", "integer", "number", "string", "null or text", "boolean"])
    if kind == "object" and depth:
        names = rng.sample(WORDS, rng.randint(1, 3))
        properties = {name: random_schema(rng, depth - 1) for name in names}
        required = rng.sample(names, rng.randint(0, len(names)))
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    if kind == "array" and depth:
        return {"type": "array", "items": random_schema(rng, depth - 1), "minItems": 1, "maxItems": 3}
    if kind in ("integer", "number"):
        return {"type": kind, "minimum": -12, "maximum": rng.choice([99, 12345])}
    if kind == "string":
        return {"type": "string", "maxLength": 6}
    if kind == "null or text":
        return {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Zß]{2,3}-[0-9]+$"}]}
    return {"type": "boolean"} if kind == "boolean" else {"enum": rng.sample(WORDS, 3)}


def assert_valid(result: Result, schema: Any) -> None:
    assert result.error is None
    if result.finish_reason == "stop":
        value = json.loads(result.text)
        jsonschema.validate(value, schema)
        result.text.encode()  # no half characters


def test_random_answers_to_random_schemas_are_valid_alone_and_beside_others(loaded: LoadedModel) -> None:
    rng = Random(1)
    asked: list[tuple[Request, SamplingOptions, Any]] = []
    for number in range(36):
        schema = random_schema(rng) if number % 3 else None
        options = SamplingOptions(
            max_new_tokens=80 if schema else 12,
            temperature=rng.choice([1.5, 1.5, 0.0]),
            top_p=rng.choice([None, 0.9]),
            seed=number % 5,
            json_schema=json.dumps(schema) if schema else None,
        )
        asked.append((Request(number, "Which?", [image(number % 3)] * rng.randint(0, 1)), options, schema))
    with LiveEngine(loaded, batch_size=16) as live:
        handles = [live.submit(request, options) for request, options, _ in asked]
        together = [handle.result(120) for handle in handles]
        alone = [live.submit(request, options).result(60) for request, options, _ in asked]
    assert [result.text for result in together] == [result.text for result in alone]
    for result, (request, options, schema) in zip(together, asked, strict=True):
        if schema:
            assert_valid(result, schema)
            (answer,) = Engine(loaded).answer([request], **vars(options))
            assert (answer.text, answer.finish_reason) == (result.text, result.finish_reason)
    ended = [
        result.finish_reason == "stop"
        for result, (_, _, schema) in zip(together, asked, strict=True)
        if schema
    ]
    assert sum(ended) > 0.7 * len(ended)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_training_shows_is_allowed(tiny_model_dir: Path, tmp_path: Path, family: str) -> None:
    """Each token of a report as a record has it, the space before it and the end of turn after it."""
    runner = ModelRunner(load_family(tiny_model_dir, tmp_path / "model", family))
    report = {"component": "Isolator 绝缘子", "defect": 'a "crack"', "at": [0.5, -2, 1e-3], "action": None}
    schema = {"type": "object", "properties": {name: {} for name in report}, "required": [*report]}
    request = Request("1", "Report.", [image(0)], choices=[json.dumps(report, ensure_ascii=False)])
    branch = make_branch(runner, request, SamplingOptions(json_schema=json.dumps(schema)))
    assert branch.grammar is not None
    (tokens,) = branch.choice_ids
    ends = [place for place, token in enumerate(tokens) if token in {runner.tokenizer.eos_token_id}]
    for token in tokens[: ends[0] if ends else None]:
        assert branch.grammar.allowed()[token // 32] >> (token % 32) & 1
        assert not branch.grammar.complete
        branch.grammar.advance(token)
    assert branch.grammar.complete


def test_a_preempted_answer_goes_on_where_it_was(loaded: LoadedModel) -> None:
    schema = {"type": "array", "items": {"enum": WORDS}, "minItems": 3, "maxItems": 4}
    runner = ModelRunner(loaded)
    options = SamplingOptions(max_new_tokens=120, temperature=1.5, json_schema=json.dumps(schema))
    requests = [Request(number, "Which?", [image(number)]) for number in range(4)]

    def answers(preempted_at: set[int]) -> list[Result]:
        batch = ContinuousBatch(runner, None)
        branches = [make_branch(runner, request, options) for request in requests]
        for branch in branches:
            batch.add(branch)
        step = 0
        while batch.has_work:
            batch.step()
            step += 1
            if step in preempted_at:
                batch.preempt("no memory")
        return [make_result(runner, branch) for branch in branches]

    expected = answers(set())
    assert answers({5, 30}) == expected
    for result in expected:
        assert_valid(result, schema)


def test_what_looks_like_an_end_is_a_part_of_a_string(loaded: LoadedModel) -> None:
    """The template's end, and the text of stop tokens, inside a string of JSON."""
    text = f"a{loaded.template.stop[0]}b and the rest"
    with LiveEngine(loaded) as live:
        options = SamplingOptions(json_schema=json.dumps({"const": text}))
        result = live.submit(Request("1", "What?"), options).result(60)
    assert (json.loads(result.text), result.finish_reason) == (text, "stop")


def test_an_answer_that_just_fits_is_whole(loaded: LoadedModel) -> None:
    engine, request = Engine(loaded), Request("1", "What?")
    (whole,) = engine.answer([request], json_schema='{"const": "crack"}')
    for limit, reason in ((whole.completion_tokens, "stop"), (whole.completion_tokens - 1, "length")):
        (found,) = engine.answer([request], json_schema='{"const": "crack"}', max_new_tokens=limit)
        assert found.finish_reason == reason


def test_log_probabilities_are_the_models_own(loaded: LoadedModel) -> None:
    request = Request("1", "What?", [image(1)])
    (free,) = Engine(loaded).answer([request], top_logprobs=5, max_new_tokens=1)
    (held,) = Engine(loaded).answer([request], top_logprobs=5, json_schema='{"const": 3}')
    assert held.text == "3" and len(held.logprobs) == held.completion_tokens
    assert free.logprobs[0].top == held.logprobs[0].top
    assert held.logprobs[0].token not in [token for token, _ in held.logprobs[0].top]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON: "),
        ("[]", "is a JSON object"),
        ('{"items": ' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ('{"items": ' * 200 + "{}" + "}" * 200, "recursion limit"),
        ('{"type": "text"}', "Invalid type: text"),
        ('{"uniqueItems": true}', 'Unimplemented keys: ["uniqueItems"]'),
        ('{"type": "string", "pattern": "(?=a)"}', "regex parse error"),
        ('{"enum": []}', "Unsatisfiable"),
        ('{"items": {"multipleOf": 99991}}', "`multipleOf`"),
        (json.dumps({"const": "a" * 65536}), "65549 characters, at most 65536"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_kept_to_is_refused(tiny_model_dir: Path, schema: str, message: str) -> None:
    runner = ModelRunner(load_model(tiny_model_dir, device="cpu"))
    branch = make_branch(runner, Request("1", "What?"), SamplingOptions(json_schema=schema))
    assert branch.error is not None and message in branch.error and "\n" not in branch.error


@pytest.mark.parametrize("other", [{"num_beams": 2}, {"stop": ("}",)}])
def test_options_that_do_not_go_with_a_schema(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="JSON schema"):
        SamplingOptions(json_schema="{}", **other)


def test_a_schema_that_explodes_ends_its_own_request_only(tiny_model_dir: Path) -> None:
    good = SamplingOptions(json_schema='{"type": "integer", "maximum": 9, "minimum": 0}')
    with LiveEngine(random_model(tiny_model_dir)) as live:
        bad = live.submit(Request("1", "What?"), SamplingOptions(json_schema=OPTIONAL))
        others = [live.submit(Request("2", "What?"), options) for options in (good, SamplingOptions())]
        error = bad.result(60).error
        assert error is not None and "too complex" in error
        assert others[0].result(60).text in "0123456789" and others[1].result(60).error is None


def test_without_the_library_the_error_says_what_to_install(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with LiveEngine(random_model(tiny_model_dir)) as live, pytest.raises(InputError, match="grammar"):
        live.submit(Request("1", "What?"), SamplingOptions(json_schema="{}"))


def test_the_tables_of_the_tokens_are_made_once(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = llguidance.hf.from_tokenizer
    monkeypatch.setattr(
        llguidance.hf, "from_tokenizer", lambda *a, **k: made.append(make(*a, **k)) or made[-1]
    )
    grammars = ModelRunner(load_model(tiny_model_dir, device="cpu")).grammars
    assert not made
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(grammars.compile, ['{"type": "object"}'] * 8))
    assert len(made) == 1
