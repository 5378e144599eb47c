"""Packed training equals training on separate records; a branch sees its picture and no sibling."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llava.common.errors import InputError
from llava.processing.vision import Pixels, VisionProcessor
from llava.train.data.packing import (
    IGNORE,
    EncodedRecord,
    ImageGroup,
    build_row,
    collate,
    group_by_image,
    pack_rows,
    packed_loss,
)

IMAGE = 63
IMAGE_TOKENS = 9
HEAD = [1, 5, 6] + [IMAGE] * IMAGE_TOKENS + [7]


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    """A small random LLaVA-1.5 in float64: 12x12 pixels, 9 picture tokens, 64 words."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=12,
        patch_size=4, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=IMAGE_TOKENS,
        attn_implementation="sdpa",
    )  # fmt: skip
    made = LlavaForConditionalGeneration(config)
    # transformers' LlamaRMSNorm computes in float32 whatever comes in; torch's own keeps float64.
    for name, module in list(made.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            made.set_submodule(name, torch.nn.RMSNorm(32, eps=module.variance_epsilon))
    made = made.double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def image(key: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(key.encode()))
    return torch.randn(3, 12, 12, dtype=torch.float64, generator=generator)


def pixels(key: str) -> Pixels:
    return Pixels(image(key)[None], (12, 12))


IMAGES = VisionProcessor(
    LlavaConfig(vision_config={"model_type": "clip_vision_model", "image_size": 12, "patch_size": 4}),
    CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12}),
)


def encoded_record(
    name: str, tail: list[int], supervised: list[bool], images: tuple[str, ...] = ("a",)
) -> EncodedRecord:
    """A record with the head that every picture has, then `tail`."""
    head = HEAD if images else HEAD[:2]
    head = head + [IMAGE] * IMAGE_TOKENS * (len(images) - 1)
    labels = [token if keep else IGNORE for token, keep in zip(tail, supervised, strict=True)]
    return EncodedRecord.of(name, head + tail, [IGNORE] * len(head) + labels, images)


def mixed_records() -> list[EncodedRecord]:
    """Three pictures' questions, one of them in turns, one that forks at a supervised token, a text-only
    record and one with two pictures."""
    no, yes = [False], [True]
    return [
        encoded_record("a1", [10, 11, 12, 13], no * 2 + yes * 2),
        encoded_record("a2", [10, 14, 15, 16, 17], no * 3 + yes * 2),
        encoded_record("a3", [20, 21, 22, 23, 24, 25], no + yes * 2 + no + yes * 2),
        encoded_record("b1", [10, 30, 31], no + yes * 2, ("b",)),
        encoded_record("b2", [10, 32, 33, 34], no + yes * 3, ("b",)),
        encoded_record("c1", [10, 11, 12, 13], no * 2 + yes * 2, ("c",)),
        encoded_record("text", [40, 41, 42], no + yes * 2, ()),
        encoded_record("two", [43, 44, 45], no + yes * 2, ("a", "b")),
    ]


def loss_and_gradients(
    model: LlavaForConditionalGeneration, batches: list[dict[str, Any]]
) -> tuple[float, int, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    total, count = 0.0, 0
    for batch in batches:
        loss, tokens = packed_loss(model, batch)
        loss.backward()
        total, count = total + loss.item(), count + tokens
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, count, gradients


def separately(model: LlavaForConditionalGeneration, records: list[EncodedRecord]) -> Any:
    """The naive twin: transformers' own forward and loss, a record at a time, no mask, no positions."""
    model.zero_grad(set_to_none=True)
    total, count = 0.0, 0
    for record in records:
        ids, labels = torch.tensor(record.input_ids)[None], torch.tensor(record.labels)[None]
        pixels = torch.stack([image(key) for key in record.images]) if record.images else None
        tokens = int((labels[:, 1:] != IGNORE).sum())
        # Without the labels, for transformers' loss upcasts to float32.
        logits = model(input_ids=ids, pixel_values=pixels).logits
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        loss.backward()
        total, count = total + loss.item(), count + tokens
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, count, gradients


def assert_equal(found: Any, expected: Any) -> None:
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-11)
    assert found[2].keys() == expected[2].keys()
    scale = max(float(gradient.norm()) for gradient in expected[2].values())
    for name, gradient in expected[2].items():
        difference = float((found[2][name] - gradient).norm())
        # A key projection's bias has gradient zero in theory: judged against the whole there.
        assert difference < 1e-9 * max(float(gradient.norm()), 1e-3 * scale), name


@pytest.mark.parametrize("max_length", [200, 60, 30])
def test_loss_and_every_gradient_equal_those_of_separate_records(
    model: LlavaForConditionalGeneration, max_length: int
) -> None:
    records = mixed_records()
    groups = group_by_image(records, IMAGE, max_length)
    rows = [build_row(row) for row in pack_rows(groups, max_length, hidden_size=1)]
    batch = collate(rows, pixels, IMAGES, pad_token_id=0)
    assert_equal(loss_and_gradients(model, [batch]), separately(model, records))


def test_several_groups_in_one_row(model: LlavaForConditionalGeneration) -> None:
    records = mixed_records()
    batch = collate([build_row(group_by_image(records, IMAGE, 500))], pixels, IMAGES, pad_token_id=0)
    assert batch["input_ids"].shape[0] == 1
    assert_equal(loss_and_gradients(model, [batch]), separately(model, records))


def test_unpacked_is_the_same_at_more_tokens(model: LlavaForConditionalGeneration) -> None:
    records = mixed_records()
    groups = group_by_image(records, IMAGE, 200, packing=False)
    assert [len(group.records) for group in groups] == [1] * len(records)
    batch = collate([build_row([group]) for group in groups], pixels, IMAGES, pad_token_id=0)
    assert_equal(loss_and_gradients(model, [batch]), separately(model, records))


def test_a_branch_sees_its_image_and_no_sibling(model: LlavaForConditionalGeneration) -> None:
    """Change a sibling: the branch's logits stay. Change the picture: they move."""
    first = encoded_record("a1", [10, 11, 12], [False, True, True])

    def logits(sibling: list[int], key: str) -> torch.Tensor:
        pair = [first, encoded_record("a2", sibling, [False, True, True])]
        group = group_by_image(pair, IMAGE, 100)
        assert len(group) == 1 and group[0].prefix == len(HEAD)
        batch = collate([build_row(group)], lambda _: pixels(key), IMAGES, pad_token_id=0)
        batch.pop("record_ids")
        batch.pop("targets")
        with torch.no_grad():
            found = model(**batch).logits[0]
        return found[len(HEAD) :]

    base, other, blind = logits([20, 21, 22], "a"), logits([30, 31, 32], "a"), logits([20, 21, 22], "z")
    assert torch.allclose(base[:3], other[:3], rtol=0, atol=1e-12)
    assert float((base[3:] - other[3:]).abs().max()) > 1e-3
    assert float((base[:3] - blind[:3]).abs().max()) > 1e-3
    assert float((base[3:] - blind[3:]).abs().max()) > 1e-3


def test_restarting_positions_without_the_mask_would_cut_the_image_off(
    model: LlavaForConditionalGeneration,
) -> None:
    """The trap itself, so that a change in transformers is noticed: without a mask it is silent."""
    records = mixed_records()[:3]
    batch = collate([build_row(group_by_image(records, IMAGE, 200))], pixels, IMAGES, pad_token_id=0)
    right, _ = packed_loss(model, batch)
    del batch["attention_mask"]
    wrong, _ = packed_loss(model, batch)
    assert abs(right.item() - wrong.item()) > 1e-3


def test_a_fork_at_a_supervised_token_repeats_the_last_shared_one() -> None:
    """Answers that differ in their first token, after the same question."""
    pair = [
        encoded_record("y", [10, 11, 50, 2], [False, False, True, True]),
        encoded_record("n", [10, 11, 51, 2], [False, False, True, True]),
    ]
    (group,) = group_by_image(pair, IMAGE, 100)
    assert group.prefix == len(HEAD) + 1
    row = build_row([group])
    assert row.input_ids[group.prefix :].tolist() == [11, 50, 2, 11, 51, 2]
    assert row.position_ids[group.prefix :].tolist() == [group.prefix + n for n in (0, 1, 2)] * 2
    assert row.targets[group.prefix :].tolist() == [50, 2, IGNORE, 51, 2, IGNORE]


def test_sharing_is_refused_where_the_answer_follows_the_image_at_once() -> None:
    ids = [1, IMAGE, IMAGE, 50, 2]
    labels = [IGNORE, IGNORE, IGNORE, 50, 2]
    pair = [EncodedRecord.of(name, ids, labels, ("a",)) for name in "xy"]
    assert [group.prefix for group in group_by_image(pair, IMAGE, 100)] == [0, 0]


def test_a_group_too_long_is_parted_and_a_record_too_long_is_named() -> None:
    records = [encoded_record(f"r{n}", [n, 11, 12, 13, 14], [False] + [True] * 4) for n in range(20, 30)]
    groups = group_by_image(records, IMAGE, 30)
    assert [len(group.records) for group in groups] == [3, 3, 3, 1]
    assert all(group.length <= 30 for group in groups)
    with pytest.raises(InputError, match="r20: 18 tokens, more than max_length=17"):
        group_by_image(records, IMAGE, 17)


def test_eight_questions_cost_a_fraction_of_the_tokens() -> None:
    """The design's figure: 8 questions of 60 tokens on 576 picture tokens (and a head) 5,408 -> 1,096."""
    head = [1] * 20 + [IMAGE] * 576
    records = [
        EncodedRecord.of(
            f"q{n}", head + [100 + n] + [7] * 59, [IGNORE] * len(head) + [IGNORE] * 40 + [7] * 20, "p"
        )
        for n in range(8)
    ]
    (group,) = group_by_image(records, IMAGE, 2048)
    assert sum(map(len, records)) == 5248 and group.length == 1076


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 64))
def test_every_group_lands_in_one_row_within_the_limit(lengths: list[int], hidden: int) -> None:
    groups = [
        ImageGroup((EncodedRecord.of(str(n), [1] * length, [1] * length),))
        for n, length in enumerate(lengths)
    ]
    rows = pack_rows(groups, 50, hidden)
    assert sorted(id(group) for row in rows for group in row) == sorted(map(id, groups))
    assert all(sum(group.length for group in row) <= 50 for row in rows)


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_targets_hold_every_supervised_token_once(seed: int) -> None:
    rng = random.Random(seed)
    records = []
    for number in range(rng.randint(1, 6)):
        size = rng.randint(2, 6)
        tail = [rng.randint(10, 13) for _ in range(size)]
        flags = [rng.random() < 0.5 for _ in range(size)]
        records.append(encoded_record(str(number), tail, flags, rng.choice([("a",), ("b",), (), ("a", "b")])))
    rows = [build_row([group]) for group in group_by_image(records, IMAGE, 60)]
    wanted = sorted(int(t) for s in records for t in s.labels[1:] if t != IGNORE)
    found = sorted(int(t) for row in rows for t in row.targets if t != IGNORE)
    assert found == wanted
    assert sum(np.count_nonzero(row.input_ids == IMAGE) for row in rows) == IMAGE_TOKENS * sum(
        len(row.images) for row in rows
    )
