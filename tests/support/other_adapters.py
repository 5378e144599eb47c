"""Adapters as other tools write them: PEFT, and the original LLaVA."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from llava.model.formats import NON_LORA_WEIGHTS, PROJECTOR, SPELLINGS


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


def original_lora(base: Path, folder: Path, *, projector: bool = True) -> torch.nn.Module:
    """A LoRA folder as the original's trainer writes it over `base`, and the model that it stands for. Its
    targets name the vision tower's layers too, which had not been loaded when the adapters were made."""
    language = r"model\.language_model\..*(q_proj|down_proj)"
    theirs = other_tools_adapter(base, folder, "original", target_modules=language)
    (folder / "adapter_model.safetensors").rename(folder / "tensors")
    torch.save(load_file(folder / "tensors"), folder / "adapter_model.bin")
    (folder / "tensors").unlink()
    change(folder, target_modules=["q_proj", "down_proj"])
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu", "mm_vision_tower": "x"})
    )
    shown = "base_model.model.model.mm_projector"
    trained = trained_projector(theirs.get_base_model()) if projector else {}
    torch.save({f"{shown}.{name}": value for name, value in trained.items()}, folder / NON_LORA_WEIGHTS)
    return theirs


def trained_projector(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Other weights for the projector of `model`, put there, as the original calls them."""
    places = {"linear_1": "0", "linear_2": "2"}
    generator = torch.Generator().manual_seed(8)
    found = {}
    with torch.no_grad():
        for name, value in model.get_submodule(PROJECTOR.removesuffix(".")).named_parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
            layer, kind = name.split(".")
            found[f"{places[layer]}.{kind}"] = value.detach().clone()
    return found


def change(folder: Path, **settings: object) -> None:
    """Settings in adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
