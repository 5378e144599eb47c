"""Adapters of other tools answer on our base as they did on theirs; one that does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from family_models import FAMILIES, save_family
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import save_base
from transformers import AutoModelForImageTextToText

from llava.model.adapters import apply
from llava.model.builder import LoadedModel, load_model
from llava.model.formats import SPELLINGS

PROJECTOR = "model.multi_modal_projector"
# float32 sums of other order through a few layers
BOUND = 1e-5


def logits(model, loaded: LoadedModel) -> torch.Tensor:
    """Of a question about a wide picture, prepared as `loaded` does."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    ids = loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")], [(60, 150)])
    pixels = loaded.processor.pictures.inputs([loaded.processor.pixels(picture, alone=True)])
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **pixels).logits


def other_tools_adapter(base: Path, folder: Path, spelling: str = "transformers 5", **settings) -> PeftModel:
    """Saved by PEFT itself over `base`, then its names spelled as another release would have."""
    model = AutoModelForImageTextToText.from_pretrained(str(base), dtype=torch.float32)
    given = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]} | settings
    wrapped = get_peft_model(model, LoraConfig(**given)).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    wrapped.save_pretrained(str(folder))
    rename(folder, spelling)
    return wrapped


def rename(folder: Path, spelling: str) -> None:
    """Names of tensors and targets as `spelling` writes them."""
    path = folder / "adapter_model.safetensors"
    save_file({respelled(name, spelling): tensor for name, tensor in load_file(path).items()}, path)
    config = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"] = [respelled(name, spelling) for name in config["target_modules"]]
    (folder / "adapter_config.json").write_text(json.dumps(config))


def respelled(name: str, spelling: str) -> str:
    prefix = "base_model.model." if name.startswith("base_model.model.") else ""
    bare = name.removeprefix(prefix)
    for theirs, ours in SPELLINGS[spelling]:
        if bare.startswith(ours):
            return prefix + theirs + bare.removeprefix(ours)
    return name


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("adapters") / "base")


VARIANTS = {
    "list": {},
    "regex": {"target_modules": r"^(?!.*vision_tower).*(?:q_proj|up_proj).*"},
    "projector saved": {"modules_to_save": ["multi_modal_projector"]},
    "projector adapted": {"target_modules": ["o_proj", "linear_1", "linear_2"]},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 9}},
    "layers": {"layers_to_transform": [1]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_that_peft_gives(base, tmp_path, spelling, variant):
    theirs = other_tools_adapter(base, tmp_path / "adapter", spelling, **VARIANTS[variant])
    require_same(base, tmp_path / "adapter", theirs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spelling", ["transformers 4", "transformers 5"])
def test_each_family(tmp_path, tiny_model_dir, family, spelling):
    base = save_family(tiny_model_dir, tmp_path / "base", family, scale=0.2)
    theirs = other_tools_adapter(
        base, tmp_path / "adapter", spelling, modules_to_save=["multi_modal_projector"]
    )
    require_same(base, tmp_path / "adapter", theirs)


def require_same(base: Path, folder: Path, theirs: PeftModel) -> None:
    loaded = load_model(base, device="cpu")
    expected, plain = logits(theirs, loaded), logits(loaded.model, loaded)
    assert (plain - expected).abs().max() > 0.02, "the adapter does something"
    adapted = apply(loaded.model, folder).eval()
    assert (logits(adapted, loaded) - expected).abs().max() < BOUND
