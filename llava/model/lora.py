"""LoRA adapters on exactly the modules that are named, saved and loaded without leniency.

Layers are found by full path in transformers' in-memory names (`model.language_model.layers.N...`,
`model.vision_tower.encoder.layers.N...`): `q_proj` alone would match both towers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from llava.common.errors import InputError, one_line
from llava.model.formats import LANGUAGE, PROJECTOR, VISION, last_vision_layer
from llava.model.run_dir import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS, LoraSettings
from llava.model.shards import open_file, write_tensors

_PEFT_PREFIX = "base_model.model."
_LISTED_KEYS = 8  # how many keys an error names


class PartCount(NamedTuple):
    """Parameters of one part of a model."""

    total: int
    trainable: int


def select_targets(model: nn.Module, settings: LoraSettings) -> list[str]:
    """Return the full names of the Linear layers that get an adapter, in the model's order.

    Vision layers past the one whose features the model reads are left out: nothing would reach them.
    InputError naming a target that matches no layer, with the names there are.
    """
    last = last_vision_layer(model.config)
    vision = range(last + 1)[-(settings.vision_layers or 0) :]
    return [
        *_layers_named(model, LANGUAGE, settings.language_targets, "language"),
        *_layers_named(model, VISION, settings.vision_targets, "vision", vision),
    ]


def _layers_named(
    model: nn.Module, part: str, targets: list[str], part_name: str, among: range | None = None
) -> list[str]:
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if not (name.startswith(part) and layer and isinstance(module, nn.Linear)):
            continue
        if among is None or int(layer.group(1)) in among:
            found.setdefault(name.rpartition(".")[2], []).append(name)
    for target in targets:
        if target not in found:
            raise InputError(
                f"lora.{part_name}_targets: no {target!r} in the model; it has {', '.join(sorted(found))}"
            )
    wanted = {name for target in targets for name in found[target]}
    return [name for name, _ in model.named_modules() if name in wanted]


def attach(model: Any, settings: LoraSettings, *, train_projector: bool) -> PeftModel:
    """Put fresh adapters on `model` (they change nothing yet), freeze everything else.

    Only the adapters, and the projector if asked, require gradients afterwards; checked, not assumed.
    """
    names = select_targets(model, settings)
    if not names:
        raise InputError("lora: no target modules; name some under language_targets or vision_targets")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT says int, and divides it by r
        lora_dropout=settings.dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        # a regular expression is matched against the full name; PEFT would match a list by suffix too
        target_modules="|".join(re.escape(name) for name in names),
        bias="none",
    )
    wrapped = wrap_in_peft(model, config)
    for name, parameter in wrapped.named_parameters():
        if name.startswith(_PEFT_PREFIX + PROJECTOR):
            parameter.requires_grad_(train_projector)
    if adapted_modules(wrapped) != set(names):
        raise RuntimeError("PEFT adapted other modules than the ones selected")
    return wrapped


def wrap_in_peft(model: Any, config: Any) -> PeftModel:
    """Put adapters of PEFT's `config` into `model`, without the warning of an attribute that PEFT reads."""
    with warnings.catch_warnings():  # PEFT reads an attribute that transformers is about to rename
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def set_dtype_of_trained(model: nn.Module, dtype: torch.dtype) -> None:
    """Make the parameters that are trained `dtype`; those that are frozen keep theirs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def leave_casting_to_autocast(model: nn.Module) -> None:
    """Let adapters take their input as it comes: for a model that only ever runs under torch.autocast.

    PEFT makes it float32 as the adapter is, which autocast undoes: two copies of every input for nothing.
    DoRA needs the float32: it computes the norms of its weights in its input's type.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module.cast_input_dtype_enabled = False


def adapted_modules(model: nn.Module) -> set[str]:
    """Return the full in-memory names of the modules that carry an adapter."""
    return {
        name.removeprefix(_PEFT_PREFIX)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def parameter_counts(model: nn.Module) -> dict[str, PartCount]:
    """Count the parameters by part: each tower and the projector, and the adapters on each apart from it."""
    counts: dict[str, PartCount] = {}
    for full_name, parameter in model.named_parameters():
        name = full_name.removeprefix(_PEFT_PREFIX)
        part = {VISION: "vision_tower", PROJECTOR: "projector"}.get(
            next((prefix for prefix in (VISION, PROJECTOR) if name.startswith(prefix)), ""), "language_model"
        )
        if _is_adapter(name):
            part += " LoRA"
        total, trainable = counts.get(part, PartCount(0, 0))
        size = int(getattr(parameter, "ds_numel", parameter.numel()))  # ZeRO-3 leaves none here
        counts[part] = PartCount(total + size, trainable + size * parameter.requires_grad)
    return counts


def save_adapter(model: Any, folder: Path, *, projector: bool) -> None:
    """Write the adapter, and the projector if it was trained, in PEFT's file layout into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].save_pretrained(str(folder))
    write_tensors(folder / ADAPTER_WEIGHTS, _adapter_tensors(model))
    if projector:
        write_tensors(folder / PROJECTOR_WEIGHTS, _projector_tensors(model))


def load_adapter(model: Any, folder: Path, *, projector: bool) -> PeftModel:
    """Put the adapter of `folder` (and its projector) into `model` and freeze it.

    InputError listing the keys if any is missing, unexpected or of another shape.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InputError(f"{folder} has no {ADAPTER_CONFIG}")
    try:
        config = LoraConfig.from_pretrained(str(folder))
        config.base_model_name_or_path = None  # run.json says where the base is
        wrapped = wrap_in_peft(model, config)
    except (ValueError, TypeError, KeyError) as error:
        message = one_line(error)
        raise InputError(f"{folder}: the adapter does not fit its base: {message}") from None
    load_adapter_weights(wrapped, folder, projector=projector)
    wrapped.requires_grad_(False)
    return wrapped


def load_adapter_weights(model: Any, folder: Path, *, projector: bool) -> None:
    """Copy the adapter of `folder` (and its projector) into a model that has one attached: all or none."""
    sources = [(folder / ADAPTER_WEIGHTS, _adapter_tensors(model))]
    if projector:
        sources.append((folder / PROJECTOR_WEIGHTS, _projector_tensors(model)))
    read = [(read_tensors(path), expected, path) for path, expected in sources]
    for found, expected, path in read:
        require_equal_keys(found, expected, path)
    with torch.no_grad():
        for found, expected, _ in read:
            for name, tensor in expected.items():
                tensor.copy_(found[name])


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a .safetensors file, or of a .bin one without running what a pickle may hold."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return {name: stored.read() for name, stored in open_file(path).items()}


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def require_equal_keys(found: Mapping[str, _Shaped], expected: Mapping[str, _Shaped], path: Path) -> None:
    """Raise an InputError listing the keys of `path` that are missing, unexpected or of another shape."""
    shape = {
        name: f"{name} {tuple(found[name].shape)} where the base needs {tuple(expected[name].shape)}"
        for name in found.keys() & expected.keys()
        if found[name].shape != expected[name].shape
    }
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:_LISTED_KEYS])}" + (", ..." if names[_LISTED_KEYS:] else "")
        for kind, names in (
            ("missing", sorted(expected.keys() - found.keys())),
            ("unexpected", sorted(found.keys() - expected.keys())),
            ("of another shape", [shape[name] for name in sorted(shape)]),
        )
        if names
    ]
    if problems:
        raise InputError(f"{path} does not fit its base; keys {'; '.join(problems)}")


def _is_adapter(name: str) -> bool:
    return any(part in name for part in (".lora_A.", ".lora_B.", ".lora_magnitude_vector."))


def _adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's own tensors (not copies) under PEFT's file names."""
    return {
        _file_name(name): parameter.detach()
        for name, parameter in model.named_parameters()
        if _is_adapter(name)
    }


def _file_name(name: str) -> str:
    """Return an adapter parameter's name in PEFT's files."""
    name = _PEFT_PREFIX + name.removeprefix(_PEFT_PREFIX).replace(".default.", ".")
    # DoRA's magnitudes were a bare parameter once, and the files still say so
    return name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _projector_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the projector's own tensors under their in-memory names."""
    return {
        name.removeprefix(_PEFT_PREFIX): parameter.detach()
        for name, parameter in model.named_parameters()
        if name.removeprefix(_PEFT_PREFIX).startswith(PROJECTOR) and not _is_adapter(name)
    }
