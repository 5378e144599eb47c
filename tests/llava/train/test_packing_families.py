"""Packed training equals training on separate records for every family, in float64, with LoRA on both towers.

The naive twin reads a record at a time, with transformers' own image processor and plain causal attention.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch._inductor import config as inductor
from torch.nn import functional as F

from llava.model.formats import LANGUAGE, PROJECTOR, VISION
from llava.model.lora import attach
from llava.model.run_dir import LoraSettings
from llava.processing.vision import Pixels, make_vision_processor
from llava.train.data.packing import (
    FLASH,
    FLEX,
    IGNORE,
    EncodedRecord,
    block_mask,
    branch_mask,
    build_row,
    collate,
    group_by_image,
    pack_rows,
    packed_loss,
)
from tests.support.family_models import FAMILIES, family_config, family_image_processor, family_model

IMAGE = 63
SHAPES = {"wide": (60, 14), "tall": (13, 70), "square": (40, 40), "small": (7, 5)}  # (width, height)


class Family:
    """A small model in float64 with adapters that are not zero, and its pictures."""

    def __init__(self, family: str) -> None:
        config = family_config(family)
        self.processor = family_image_processor(config)
        self.images = make_vision_processor(config, self.processor)
        self.made: dict[str, Pixels] = {}
        self.given: dict[str, dict[str, Any]] = {}
        model = family_model(config)
        for name, module in list(model.named_modules()):
            if type(module).__name__.endswith("RMSNorm"):  # transformers' computes in float32
                model.set_submodule(name, torch.nn.RMSNorm(32, eps=module.variance_epsilon))
        lora = LoraSettings(
            rank=4, alpha=8, dropout=0, language_targets=["q_proj", "v_proj", "down_proj"],
            vision_targets=["q_proj", "fc1"],
        )  # fmt: skip
        self.model = attach(model.double(), lora, train_projector=True).double().eval()
        torch.manual_seed(1)
        for name, parameter in self.model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.3)

    def image(self, key: str) -> Image.Image:
        """The picture of a key such as `wide`, `wide:2` (another one) or `r1#0:wide` (one of several)."""
        width, height = SHAPES[next(part for part in key.split(":") if part in SHAPES)]
        values = np.random.default_rng(sum(key.encode())).integers(0, 256, (height, width, 3))
        return Image.fromarray(values.astype(np.uint8))

    def pixels(self, key: str) -> Pixels:
        if key not in self.made:
            made = self.images.pixels(self.image(key), alone="#" not in key)
            self.made[key] = replace(made, patches=made.patches.to(self.model.dtype))
        return self.made[key]

    def encoded_record(self, name: str, keys: list[str], tail: list[int], learned: str) -> EncodedRecord:
        """Each picture between words, then `tail`, of which `x` in `learned` marks what is supervised."""
        keys = keys if len(keys) < 2 else [f"{name}#{n}:{key}" for n, key in enumerate(keys)]
        counts = self.images.token_counts([self.image(key).size[::-1] for key in keys])
        head = [1, 5, *(token for count in counts for token in [6, *[IMAGE] * count, 7])]
        labels = [token if mark == "x" else IGNORE for token, mark in zip(tail, learned, strict=True)]
        return EncodedRecord.of(name, head + tail, [IGNORE] * len(head) + labels, keys)

    def records(self) -> list[EncodedRecord]:
        """Groups of four shapes, one in turns, one forking at a supervised token; several pictures; text."""
        return [
            self.encoded_record("w1", ["wide"], [10, 11, 12, 13], "..xx"),
            self.encoded_record("w2", ["wide"], [10, 14, 15, 16, 17, 18, 19], ".xx..xx"),
            self.encoded_record("w3", ["wide"], [20, 21, 22], ".xx"),
            self.encoded_record("several", ["tall", "wide"], [43, 44, 45], ".xx"),
            self.encoded_record("t1", ["tall"], [10, 30, 31], ".xx"),
            self.encoded_record("t2", ["tall"], [10, 32, 33, 34], ".xxx"),
            self.encoded_record("text", [], [40, 41, 42], ".xx"),
            self.encoded_record("q1", ["square"], [10, 11, 12], ".xx"),
            self.encoded_record("s1", ["small"], [10, 11, 12], "..x"),
            self.encoded_record("s2", ["small"], [13, 11, 12], "..x"),
            self.encoded_record("other", ["wide:2"], [10, 11, 12], "..x"),
        ]

    def batch(self, records: list[EncodedRecord], max_length: int, **options: Any) -> dict[str, Any]:
        groups = group_by_image(records, IMAGE, max_length, packing=options.pop("packing", True))
        rows = [build_row(row) for row in pack_rows(groups, max_length, hidden_size=1)]
        return collate(rows, self.pixels, self.images, pad_token_id=0, **options)

    def theirs(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """A record's pictures as transformers' own image processor gives them."""
        if not keys:
            return {}
        images = [self.image(key) for key in keys]
        if not self.images.tokens_depend_on_size:  # its own would crop
            given = {"pixel_values": torch.cat([self.images.pixels(image).patches for image in images])}
        else:
            nested = "Onevision" in type(self.processor).__name__
            given = dict(self.processor([images] if nested else images, return_tensors="pt"))
        return given | {"pixel_values": given["pixel_values"].double()}

    def separate_loss(self, model: Any, record: EncodedRecord) -> torch.Tensor:
        """The naive twin: no mask, no positions, tensors as transformers' processor gives them."""
        if record.record_id not in self.given:
            self.given[record.record_id] = self.theirs(record.images)
        given = self.given[record.record_id]
        ids, labels = torch.tensor(record.input_ids)[None], torch.tensor(record.labels)
        logits = model(input_ids=ids, **given).logits
        return F.cross_entropy(logits[0, :-1], labels[1:], reduction="sum")

    def gradients(self, losses: Any) -> tuple[float, dict[str, torch.Tensor]]:
        """The summed loss and every gradient; `losses` are taken one at a time."""
        self.model.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += loss.item()
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        return total, found


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


def assert_equal(found: tuple[float, Any], expected: tuple[float, Any]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-10)
    assert found[1].keys() == expected[1].keys()
    scale = max(float(gradient.norm()) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        difference = float((found[1][name] - gradient).norm())
        # A gradient that is zero in theory is judged against the whole.
        assert difference < 1e-9 * max(float(gradient.norm()), 1e-3 * scale), name


@pytest.mark.parametrize(
    ("max_length", "options"), [(700, {}), (160, {}), (160, {"packing": False})], ids=["one", "rows", "plain"]
)
def test_loss_and_every_gradient_equal_those_of_separate_records(
    family: Family, max_length: int, options: dict[str, Any]
) -> None:
    records = family.records()
    expected = family.gradients(family.separate_loss(family.model, record) for record in records)
    for part in (LANGUAGE, VISION, PROJECTOR):
        assert any(part in name and float(g.norm()) > 0 for name, g in expected[1].items())
    loss, count = packed_loss(family.model, family.batch(records, max_length, **options))
    assert_equal(family.gradients([loss]), expected)
    assert count == sum(int((record.labels != IGNORE).sum()) for record in records)


def test_flash_attentions_batch_is_a_record_a_row(family: Family) -> None:
    """Its kernel needs a GPU; the batch it gets, with its 2D mask, is checked under SDPA."""
    records = family.records()
    rows = [build_row([group]) for group in group_by_image(records, IMAGE, 160, packing=False)]
    batch = collate(rows, family.pixels, family.images, pad_token_id=0, attention=FLASH)
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(row.input_ids) for row in rows]
    expected = family.gradients(family.separate_loss(family.model, record) for record in records)
    assert_equal(family.gradients([packed_loss(family.model, batch)[0]]), expected)
    with pytest.raises(ValueError, match="a row must hold one record"):
        family.batch(records, 160, attention=FLASH)


def test_twenty_steps_end_at_the_same_weights(family: Family) -> None:
    """To 1e-6 of what the weights have moved: AdamW divides by gradients, and so by their rounding too."""
    records, start = family.records(), copy.deepcopy(family.model.state_dict())
    ends = []
    for packed in (True, False):
        family.model.load_state_dict(start)
        trained = [p for p in family.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01)
        for step in range(20):
            part = records[step % 3 :: 3]
            if packed:
                family.gradients([packed_loss(family.model, family.batch(part, 160))[0]])
            else:
                family.gradients(family.separate_loss(family.model, record) for record in part)
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in trained]))
    family.model.load_state_dict(start)
    begin = torch.cat([p.detach().flatten() for p in family.model.parameters() if p.requires_grad])
    moved = float((ends[0] - begin).norm())
    assert moved > 0.1 and float((ends[0] - ends[1]).norm()) < 1e-6 * moved


def test_a_branch_sees_its_image_and_no_sibling(family: Family) -> None:
    def logits(sibling: list[int], shown: str) -> torch.Tensor:
        pair = [
            family.encoded_record("a", ["wide"], [10, 11, 12], ".xx"),
            family.encoded_record("b", ["wide"], sibling, ".xx"),
        ]
        groups = group_by_image(pair, IMAGE, 300)
        assert len(groups) == 1 and groups[0].prefix
        batch = collate([build_row(groups)], lambda _: family.pixels(shown), family.images, pad_token_id=0)
        inputs = {name: value for name, value in batch.items() if name not in ("record_ids", "targets")}
        with torch.no_grad():
            return family.model(**inputs).logits[0, groups[0].prefix :]

    base, other, blind = (
        logits([20, 21, 22], "wide"),
        logits([30, 31, 32], "wide"),
        logits([20, 21, 22], "wide:2"),
    )
    assert torch.allclose(base[:3], other[:3], rtol=0, atol=1e-12)
    assert float((base[3:] - other[3:]).abs().max()) > 1e-3
    assert float((base[:3] - blind[:3]).abs().max()) > 1e-3
    assert float((base[3:] - blind[3:]).abs().max()) > 1e-3


def test_the_block_mask_says_what_the_dense_mask_says(family: Family) -> None:
    batch = family.batch(family.records(), 160, attention=FLEX)
    group, branch = batch["group"], batch["branch"]
    assert group.shape[1] % 128 == 0 and "attention_mask" not in batch
    made, dense = block_mask(group, branch), branch_mask(group, branch)
    assert len(made.shape) == 4  # what transformers asks before it takes a mask as it is
    rows, length = group.shape
    at = [torch.arange(n) for n in (rows, length, length)]
    b, i, j = torch.meshgrid(*at, indexing="ij")
    assert torch.equal(made.mask_mod(b, torch.zeros_like(b), i, j), dense[:, 0])
    blocks = dense[:, 0].unflatten(2, (-1, 128)).unflatten(1, (-1, 128)).any(dim=(2, 4))
    assert torch.equal(made.to_dense()[:, 0].bool(), blocks)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="flex attention on a CPU is compiled by g++, absent here"
)
def test_flex_attention_takes_the_block_mask_as_it_is() -> None:
    """Forward only and in float32: on a CPU flex attention has no gradients."""
    family = Family("llava_next-llama")
    model = family.model.float()
    expected, _ = packed_loss(model, family.batch(family.records(), 160))
    model.base_model.model.set_attn_implementation({"text_config": FLEX, "vision_config": "sdpa"})
    # g++ need not be asked, in ten runs, for which instructions it can compile: the CPU's are taken.
    with torch.no_grad(), inductor.patch("cpp.vec_isa_ok", True):
        found, _ = packed_loss(model, family.batch(family.records(), 160, attention=FLEX))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
