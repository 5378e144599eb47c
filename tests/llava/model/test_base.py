"""Adapters of the original that were trained on a language model alone: its released LoRA folders, and its
projectors after pretraining."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.common.errors import InputError
from llava.export.merge import merge_adapters
from llava.model.builder import load_model
from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR_BIN
from tests.support.original_folders import logits, save_original, write_file
from tests.support.other_adapters import original_lora

IMAGES = ("model.mm_projector.", "model.image_newline")


def edit(path, drop=(), **values):
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if not key.startswith(drop)}))


def language_model(whole, folder, form="bin"):
    """The language model of an original folder, as Vicuna is."""
    folder.mkdir()
    shutil.copyfile(whole / "tokenizer.model", folder / "tokenizer.model")
    shutil.copyfile(whole / "config.json", folder / "config.json")
    edit(folder / "config.json", ("mm_", "image_", "use_mm"), model_type="llama")
    tensors = load_file(whole / "model.safetensors")
    words = {name: value for name, value in tensors.items() if not name.startswith(IMAGES)}
    write_file(folder / ("pytorch_model.bin" if form == "bin" else "model.safetensors"), words)
    return folder


def with_settings(whole, folder):
    """An adapter's folder as the original's trainer leaves it: the whole config, the tower not far."""
    shutil.copyfile(whole / "config.json", folder / "config.json")
    shutil.copytree(whole / "tower", folder / "tower")


@pytest.mark.parametrize(("family", "form"), [("llava-llama", "bin"), ("llava_next-llama", "safetensors")])
def test_a_lora_over_a_language_model(tiny_model_dir, tmp_path, family, form):
    whole, tensors = save_original(tiny_model_dir, tmp_path / "whole", family, scale=0.2)
    vicuna = language_model(whole, tmp_path / "vicuna", form)
    load_model(whole, device="cpu").model.save_pretrained(str(tmp_path / "as hf"))
    lora = tmp_path / "lora"
    original_lora(tmp_path / "as hf", lora)
    with_settings(whole, lora)
    if family.startswith("llava_next"):
        trained = torch.load(lora / NON_LORA_WEIGHTS)
        trained["base_model.model.model.image_newline"] = tensors["model.image_newline"]
        torch.save(trained, lora / NON_LORA_WEIGHTS)
    expected = logits(load_model(lora, whole, device="cpu"))
    adapted = load_model(lora, vicuna, device="cpu")
    assert torch.equal(logits(adapted), expected)
    merge_adapters(lora, tmp_path / "merged", model_base=vicuna)
    assert torch.allclose(logits(load_model(tmp_path / "merged", device="cpu")), expected, atol=1e-4)


@pytest.fixture
def pretrained(tiny_model_dir, tmp_path):
    """A whole model, and its parts: the language model and the projector."""
    whole, tensors = save_original(tiny_model_dir, tmp_path / "whole")
    (tmp_path / "projector").mkdir()
    with_settings(whole, tmp_path / "projector")
    torch.save(
        {name: value for name, value in tensors.items() if name.startswith(IMAGES)},
        tmp_path / "projector" / PROJECTOR_BIN,
    )
    return whole, language_model(whole, tmp_path / "vicuna"), tmp_path / "projector"


def test_a_projector_over_a_language_model(pretrained):
    whole, vicuna, projector = pretrained
    adapted = load_model(projector, vicuna, device="cpu")
    assert torch.equal(logits(adapted), logits(load_model(whole, device="cpu")))
    shutil.rmtree(projector / "tower")
    with pytest.raises(
        InputError, match=r"vision tower 'tower' is not here; put that folder at .*projector/t"
    ):
        load_model(projector, vicuna, device="cpu")


def test_what_is_not_whole_together_is_refused(pretrained):
    _, vicuna, projector = pretrained
    with pytest.raises(InputError, match=r"is not a LLaVA model: its config\.json says model_type 'llama'"):
        load_model(vicuna, device="cpu")
    torch.save({"lm_head.weight": torch.ones(2)}, projector / PROJECTOR_BIN)
    with pytest.raises(InputError, match=r"language model without a vision tower, and .* has no projector"):
        load_model(projector, vicuna, device="cpu")
    (projector / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json of the original LLaVA; name a LLaVA as --mod"):
        load_model(projector, vicuna, device="cpu")
