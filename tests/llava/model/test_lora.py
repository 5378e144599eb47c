"""Adapters sit on exactly the layers that are named; their files load whole or not at all."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from llava.common.errors import InputError
from llava.model.lora import (
    adapted_modules,
    attach,
    load_adapter,
    load_adapter_weights,
    parameter_counts,
    save_adapter,
    select_targets,
)
from llava.model.run_dir import LoraSettings
from tests.support.tiny_models import (
    LANGUAGE_TARGETS,
    VISION_TARGETS,
    perturb,
    save_base,
    save_run,
    small_model,
)


def lora(**changes):
    return LoraSettings(**{"rank": 4, "alpha": 8, "language_targets": LANGUAGE_TARGETS} | changes)


def test_language_targets_never_touch_the_vision_tower():
    names = select_targets(small_model(), lora(language_targets=["q_proj", "v_proj"]))
    assert names == [
        f"model.language_model.layers.{layer}.self_attn.{target}"
        for layer in (0, 1)
        for target in ("q_proj", "v_proj")
    ]


def test_vision_targets_stop_at_the_layer_that_is_read():
    names = select_targets(small_model(), lora(language_targets=[], vision_targets=["q_proj"]))
    # 3 layers, features from hidden state -2: the last layer's output goes nowhere
    assert names == [f"model.vision_tower.encoder.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]


def test_unknown_target_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match=r"lora.vision_targets: no 'gate_proj' .* fc1, fc2, k_proj"):
        select_targets(small_model(), lora(vision_targets=["gate_proj"]))


@pytest.mark.parametrize("train_projector", [True, False])
def test_only_what_is_named_can_change(train_projector):
    model = small_model()
    settings = lora(vision_targets=VISION_TARGETS)
    expected = set(select_targets(model, settings))
    wrapped = attach(model, settings, train_projector=train_projector)
    assert adapted_modules(wrapped) == expected
    counts = parameter_counts(wrapped)
    assert {part for part, count in counts.items() if count.trainable} == {
        "language_model LoRA",
        "vision_tower LoRA",
        *(["projector"] if train_projector else []),
    }
    assert counts["language_model LoRA"].trainable == counts["language_model LoRA"].total
    assert counts["vision_tower LoRA"].total == 2 * (4 * (32 + 32) + 4 * (32 + 48))
    assert counts["projector"].total == 2 * (32 * 32 + 32)
    assert sum(count.total for count in counts.values()) == sum(p.numel() for p in wrapped.parameters())


def test_a_step_changes_the_trainable_and_nothing_else():
    wrapped = attach(small_model(), lora(), train_projector=False)
    before = {name: value.clone() for name, value in wrapped.named_parameters()}
    ids = torch.randint(3, 1000, (1, 12))
    optimiser = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=1.0)
    wrapped(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    changed = {name for name, value in wrapped.named_parameters() if not torch.equal(value, before[name])}
    assert changed  # B leaves zero at the first step; A moves only after it
    assert all(".lora_" in name and ".language_model." in name for name in changed)


def test_saved_adapter_loads_the_same(tmp_path):
    trained = attach(small_model(), lora(vision_targets=VISION_TARGETS), train_projector=True)
    perturb(trained.base_model.model.model.multi_modal_projector, 0.1, seed=2)
    with torch.no_grad():
        for name, value in trained.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    save_adapter(trained, tmp_path / "run", projector=True)
    loaded = load_adapter(small_model(), tmp_path / "run", projector=True)
    fresh = attach(small_model(), lora(vision_targets=VISION_TARGETS), train_projector=True)
    load_adapter_weights(fresh, tmp_path / "run", projector=True)
    state = trained.state_dict()
    for other in (loaded, fresh):
        assert other.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_peft_itself_loads_the_adapter(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, projector=False)
    ids = torch.randint(3, 1000, (1, 12))
    ours = load_adapter(_model(base), run, projector=False).eval()
    theirs = PeftModel.from_pretrained(_model(base), str(run)).eval()
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)


def _model(folder):
    return LlavaForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32)


def _edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def drop(tensors):
    del tensors[min(tensors)]


def add(tensors):
    tensors["base_model.model.extra.lora_A.weight"] = torch.zeros(4, 4)


def reshape(tensors):
    name = min(tensors)
    tensors[name] = torch.zeros(3, 5)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "projector.safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "1 missing: .*model"),
        (add, "1 unexpected: .*extra"),
        (reshape, r"1 of another shape: .*\(3, 5\)"),
    ],
)
def test_any_key_that_does_not_fit_is_an_error(tmp_path, file, change, message):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    _edit(run / file, change)
    model = _model(base)
    with pytest.raises(InputError, match=f"{file} does not fit its base; keys .*{message}"):
        load_adapter(model, run, projector=True)


def test_adapter_of_another_width_or_missing_files(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    with pytest.raises(InputError, match="of another shape"):
        load_adapter(small_model(hidden=64), run, projector=True)
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"target_modules": "no.such.layer"}))
    with pytest.raises(InputError, match="does not fit its base"):
        load_adapter(_model(base), run, projector=True)
    (run / "adapter_config.json").write_text(json.dumps(config))
    (run / "projector.safetensors").unlink()
    with pytest.raises(InputError, match=r"projector.safetensors: no such file"):
        load_adapter(_model(base), run, projector=True)
