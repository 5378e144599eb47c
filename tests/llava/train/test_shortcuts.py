"""What training leaves out or sums up changes neither loss nor gradients, in float64, for every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlavaForConditionalGeneration

from llava.model.builder import load_model
from llava.model.lora import attach
from llava.model.run_dir import LoraSettings
from llava.train.data.packing import packed_loss
from llava.train.last_layer import SupervisedLastLayer
from llava.train.summed_lora import _SummedLinear, sum_adapters_into_weights
from tests.llava.train.test_packing_families import Family, assert_equal
from tests.support.family_models import FAMILIES, family_config, family_model, save_family


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_every_gradient_equal_those_of_separate_records(name: str) -> None:
    family = Family(name)
    records = family.records()
    expected = family.gradients(family.separate_loss(family.model, record) for record in records)
    model = family.model.get_base_model()
    SupervisedLastLayer(model)
    sum_adapters_into_weights(family.model)
    read: list[int] = []
    last = model.model.language_model.layers[-1]
    last.mlp.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    family.model.train()
    for max_length, checkpointing in ((700, False), (160, False), (160, True)):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = family.batch(records, max_length)
        assert_equal(family.gradients([packed_loss(family.model, batch)[0]]), expected)
        # the MLP of the last layer read the row with the most supervised positions, and no more
        assert read[-1] == int((batch["targets"] >= 0).sum(dim=1).max()) < batch["targets"].shape[1]


def test_other_calls_get_every_position() -> None:
    """Answering, and training code that asks for all logits, find the last layer as it was."""
    family = Family("llava-llama")
    batch = family.batch(family.records(), 160)
    inputs = {key: value for key, value in batch.items() if key not in ("record_ids", "targets", "tokens")}
    with torch.no_grad():
        expected = family.model(**inputs).logits
        SupervisedLastLayer(family.model.get_base_model())
        family.model.train()
        packed_loss(family.model, batch)  # whose mask must not stay behind
        assert torch.equal(family.model(**inputs).logits, expected)


def lora(**settings: Any) -> Any:
    config = family_config("llava-llama")
    given = {"rank": 4, "alpha": 8.0, "vision_targets": ["q_proj"]} | settings
    return attach(family_model(config), LoraSettings(**given), train_projector=True)


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"use_dora": True}], ids=["dropout", "dora"])
def test_adapters_that_cannot_be_summed_stay_as_they_are(settings: dict[str, Any]) -> None:
    model = lora(**settings)
    sum_adapters_into_weights(model)
    assert not [
        layer for layer in model.modules() if isinstance(layer, LoraLayer) and "forward" in vars(layer)
    ]


def test_the_summed_layer_is_gradient_checked() -> None:
    torch.manual_seed(0)
    x, a, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 5), (2, 5), (4, 2)))
    weight, bias = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, a, b: _SummedLinear.apply(x, weight, bias, a, b, 1.7), (x, a, b)
    )


def test_vision_layers_are_counted_from_the_last_that_is_read() -> None:
    """Of three layers LLaVA-1.5 reads the last but one: `vision_layers: 1` adapts the second alone."""
    adapted = {
        name for name, module in lora(vision_layers=1).named_modules() if isinstance(module, LoraLayer)
    }
    assert {name.split(".layers.")[1][0] for name in adapted if "vision" in name} == {"1"}
    assert sum("language" in name for name in adapted) == 14  # of two layers, all


def test_a_vision_layer_that_nothing_reads_is_not_computed(tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = save_family(tiny_model_dir, tmp_path / "model", "llava-llama")
    plain: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    loaded = load_model(folder, device="cpu").model
    calls: list[nn.Module] = []
    for module in (*plain.modules(), *loaded.modules()):
        if type(module).__name__ == "CLIPMLP":
            module.register_forward_hook(lambda module, *_: calls.append(module))
    given = {
        "pixel_values": torch.randn(1, 3, 24, 24),
        "input_ids": torch.tensor([[1, *[plain.config.image_token_index] * 9, 5]]),
    }
    with torch.no_grad():
        expected = plain(**given).logits
        assert len(calls) == 3
        assert torch.equal(loaded(**given).logits, expected)
    assert len(calls) == 5  # the third layer's output has no reader
