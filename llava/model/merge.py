"""Merge a run into its base: one ordinary Hugging Face LLaVA folder that needs none of our code.

The sum of a layer's weight and its adapter is taken in float32, layer by layer, and rounded once to the
asked type. Memory peaks at the base in its own type plus one layer. An adapter that was trained on a
quantised base is added to what that base stood for, its weights quantised and back, so that the merged model
computes what was trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.tuners.lora import LoraLayer
from torch import nn

from llava import __version__
from llava.conversation import get_template
from llava.errors import InputError
from llava.files import atomic_folder, read_json, write_json, write_text
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import DTYPES, find_base, load_config, load_weights_of, quantisation, resolve_folder
from llava.model.lora import load_adapter, read_projector
from llava.model.run_dir import DtypeName, RunInfo, copy_processor_files, is_run_dir, read_run_info


def merge(
    run: str | Path,
    output: Path,
    *,
    model_base: str | Path | None = None,
    dtype: DtypeName | None = None,
    overwrite: bool = False,
) -> RunInfo:
    """Write the run (a run directory or one of its checkpoints) merged into its base to the folder `output`.

    `dtype` (float16, bfloat16, float32) defaults to the type the base is stored in. `overwrite` replaces an
    earlier model folder. Returns what run.json says. InputError, and nothing written, if run
    and base do not fit or `output` is taken.
    """
    folder = resolve_folder(run)
    if not is_run_dir(folder):
        raise InputError(
            f"{folder} has no run.json: name a run directory of llava.train or one of its checkpoints"
        )
    info = read_run_info(folder)
    base = find_base(info, folder, model_base)
    _refuse_output(output, overwrite, sources=(folder, base))
    model = merged_model(base, folder, info, DTYPES[dtype] if dtype else stored_dtype(base))
    fresh = output.with_name(f".{output.name}.merged") if output.exists() else output
    with atomic_folder(fresh) as temporary:
        model.save_pretrained(str(temporary))
        _write_companions(temporary, base, folder, info, padded=_is_padded(model))
        write_text(temporary / "README.md", model_card(output.name, folder, info, model))
    if fresh != output:
        shutil.rmtree(output)
        fresh.replace(output)
    return info


def merged_model(base: Path, run: Path, info: RunInfo, dtype: torch.dtype) -> Any:
    """The base with the run's adapter and projector in its own weights, as `dtype`."""
    model = _base_model(base, info)
    # read first: loading it into the model would round it to the base's type before the asked one
    projector = read_projector(model, run) if info.projector_trained else {}
    wrapped = load_adapter(model, run, projector=False)
    for name, module in wrapped.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module.get_base_layer()
            _replace(layer, "weight", _merged_weight(module), dtype, name)
    plain: Any = wrapped.unload()
    for name, tensor in projector.items():
        owner, _, attribute = name.rpartition(".")
        _replace(plain.get_submodule(owner), attribute, tensor.float(), dtype, name)
    return plain.to(dtype)


def _base_model(base: Path, info: RunInfo) -> Any:
    """The base as the adapter knew it, with whole weights."""
    if info.bits is None or info.dtype is None:
        return load_weights_of(base, stored_dtype(base))
    dtype = DTYPES[info.dtype]
    small = load_weights_of(base, dtype, device_map="cpu", quantised=quantisation(info.bits, dtype))
    return small.dequantize(dtype)


def base_of_adapter(info: RunInfo) -> str:
    """How the base of a QLoRA run enters the merged weights, in words that follow "the adapter"."""
    return (
        f"was trained on a base quantised to {info.bits} bits, and is merged with the weights that these "
        "bits stand for"
    )


def stored_dtype(base: Path) -> torch.dtype:
    """The type of the weights in a model folder, as its config says; float32 where it does not."""
    stored = load_config(base).dtype
    return stored if isinstance(stored, torch.dtype) else torch.float32


def _merged_weight(module: Any) -> torch.Tensor:
    """The float32 weight (out, in) that gives what the adapted layer gives: W + s B A with PEFT's scaling s
    (alpha / r, or alpha / sqrt(r) with rsLoRA); under DoRA its rows have the trained lengths."""
    down: torch.Tensor = module.lora_A["default"].weight.float()
    up: torch.Tensor = module.lora_B["default"].weight.float()
    weight: torch.Tensor = module.get_base_layer().weight.float() + (up @ down) * module.scaling["default"]
    if "default" not in module.lora_magnitude_vector:
        return weight
    lengths = module.lora_magnitude_vector["default"].weight.float()
    return weight * (lengths / torch.linalg.norm(weight, dim=1))[:, None]


def _replace(owner: nn.Module, attribute: str, value: torch.Tensor, dtype: torch.dtype, name: str) -> None:
    rounded = value.to(dtype)
    if not torch.isfinite(rounded).all():
        raise InputError(f"{name} does not fit {str(dtype)[6:]} after merging; merge with --dtype bfloat16")
    setattr(owner, attribute, nn.Parameter(rounded, requires_grad=False))


def _refuse_output(output: Path, overwrite: bool, sources: tuple[Path, ...]) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists already; name another folder or pass --overwrite")
    if not (output / "config.json").is_file():
        raise InputError(f"{output} is not a model folder and is not overwritten")
    for source in sources:
        if source.resolve().is_relative_to(output.resolve()):
            raise InputError(f"{output} holds {source}, which is read; name another folder")


def _is_padded(model: Any) -> bool:
    """Whether its pictures are padded squares (LLaVA-1.5), not tiles of them (1.6 and OneVision)."""
    return bool(model.config.model_type == "llava")


def _write_companions(target: Path, base: Path, run: Path, info: RunInfo, *, padded: bool) -> None:
    """Tokenizer, image processor and chat template: the base's files, the run's own over them."""
    copy_processor_files(base, target)
    copy_processor_files(run, target)
    write_text(target / "chat_template.jinja", get_template(info.conv_mode).jinja())
    if not padded:
        return
    # The run was trained on padded pictures. transformers' processor crops by default, so say it there too:
    # whoever loads the folder without us then sees what the model was trained on.
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (target / name).is_file():
            config = read_json(target / name)
            values = config.get("image_processor", config) if name.startswith("processor") else config
            if "image_mean" in values:
                values |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
                write_json(target / name, config)


def model_card(name: str, run: Path, info: RunInfo, model: Any) -> str:
    """README.md of a merged folder: what it is, from what, how to use it."""
    front = yaml.safe_dump(
        {
            "base_model": info.base.name,
            "library_name": "transformers",
            "pipeline_tag": "image-text-to-text",
            "tags": ["llava", "llava-inspect"],
        },
        sort_keys=False,
    )
    lora = info.lora
    trained = [
        f"language model LoRA on {', '.join(lora.language_targets)}" if lora.language_targets else "",
        f"vision tower LoRA on {', '.join(lora.vision_targets)}" if lora.vision_targets else "",
        "the projector" if info.projector_trained else "",
    ]
    data = (
        "\n".join(f"- `{path}` (sha256 `{digest}`)" for path, digest in info.data.items()) or "- not recorded"
    )
    versions = (
        ", ".join(f"{package} {version}" for package, version in info.versions.items()) or "not recorded"
    )
    revision = f", revision `{info.base.revision}`" if info.base.revision else ""
    commit = f"; code at `{info.git_commit}`" if info.git_commit else ""
    quantised = f"- The adapter {base_of_adapter(info)}\n" if info.bits else ""
    dtype = str(model.dtype).removeprefix("torch.")
    pictures = (
        "padded to a square with the mean colour" if _is_padded(model) else "whole, and in tiles (anyres)"
    )
    step = f", step {info.step}" if info.step is not None else ""
    return f"""---
{front}---

# {name}

A LLaVA model fine-tuned with LLaVA Inspect {__version__} and merged into one folder of {dtype} weights. It
loads with `transformers.{type(model).__name__}` and needs no adapter.

- Base: `{info.base.name}`{revision} (fingerprint `{info.base.fingerprint}`)
{quantised}- Merged from the run `{get_model_name_from_path(run.resolve().as_posix())}`{step}
- Trained: {"; ".join(part for part in trained if part)}; rank {lora.rank}, alpha {lora.alpha:g}
- Conversation template: `{info.conv_mode}` (`chat_template.jinja`)
- Pictures: {pictures}, never cropped
- Trained with: {versions or "versions not recorded"}{commit}

## Training data

{data or "- not recorded"}

## Recipe

```json
{json.dumps(info.config, indent=1, ensure_ascii=False, default=str)}
```

## Use

```bash
python -m llava.serve.cli --model-path {name} --image-file picture.jpg
```
"""
