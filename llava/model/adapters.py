"""Adapters of every make as one form: what they add to a layer, and which tensors they replace.

Read are our run directories, adapters that PEFT wrote (LLaMA-Factory, ms-swift, TRL, ...), the original
LLaVA's LoRA folders and its folders with a projector alone. Each spells the names of one model in its own
way (formats.SPELLINGS): the releases of transformers differ among themselves, and the original from all.

Every tensor must find its place in the base and every place its tensor; what is left over is an error.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from llava.common.errors import InputError, one_line
from llava.common.files import first_problem, read_json
from llava.mm_utils import get_model_name_from_path
from llava.model.folder import FolderKind, ModelFolder
from llava.model.formats import (
    LANGUAGE,
    NON_LORA_WEIGHTS,
    PROJECTOR,
    PROJECTOR_BIN,
    SPELLINGS,
    VISION,
)
from llava.model.lora import read_tensors, require_equal_keys, wrap_in_peft
from llava.model.run_dir import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS

ADAPTER_BIN = "adapter_model.bin"
_PART_NAMES = {LANGUAGE: "language model", VISION: "vision tower", PROJECTOR: "projector"}
_WRAPPERS = ("_fsdp_wrapped_module.", "base_model.model.")
_LORA_KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.default)?(\.weight)?"
)
_LORA_PARTS = (".lora_A", ".lora_B", ".lora_magnitude_vector")
_REFUSED = (
    "alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication",
    "lora_bias", "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora",
    "use_qalora", "velora_config",
)  # fmt: skip
"""Settings of PEFT's LoraConfig under which a layer computes something else than W + s B A."""
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LayerUpdate:
    """Holds what an adapter makes of a layer's weight (out, in): `down` (rank, in), `up` (out, rank), and
    under DoRA the trained lengths (out) of its rows."""

    down: torch.Tensor
    up: torch.Tensor
    scaling: float
    lengths: torch.Tensor | None

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the float32 weight that computes what the adapted layer does: W + s B A (LoRA, arXiv
        2106.09685); with DoRA (arXiv 2402.09353) its rows scaled to the trained lengths."""
        merged = weight.float() + (self.up.float() @ self.down.float()) * self.scaling
        if self.lengths is None:
            return merged
        return merged * (self.lengths.float() / torch.linalg.norm(merged, dim=1))[:, None]


@dataclass(frozen=True)
class Adapter:
    """Holds an adapter under the names of its base in memory: `updates` by module, `replaced` by
    parameter."""

    folder: Path
    kind: FolderKind
    base_name: str | None
    updates: dict[str, LayerUpdate]
    replaced: dict[str, torch.Tensor]
    description: str
    """Its variant, rank and alpha, for a model card."""

    def counts(self) -> dict[str, int]:
        """Return how many layers have updates, and how many tensors are replaced, by part of the model."""
        counts: dict[str, int] = {}
        for names, what in ((self.updates, "layers adapted"), (self.replaced, "tensors trained whole")):
            for name in names:
                key = f"{what} in the {_PART_NAMES[_part(name)]}"
                counts[key] = counts.get(key, 0) + 1
        return counts

    def touches(self, name: str) -> bool:
        return name in self.replaced or name.removesuffix(".weight") in self.updates

    def applied(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the float32 tensor that the base's parameter `name` becomes."""
        if name in self.replaced:
            weight = self.replaced[name]
        update = self.updates.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        return weight.float() if update is None else update.applied(weight)


class _LoraSettings(BaseModel):
    """The settings in adapter_config.json that decide the result; PEFT's names. Tools add keys of their
    own."""

    peft_type: str
    r: int = Field(ge=1)
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    init_lora_weights: bool | str | None = True
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    base_model_name_or_path: str | None = None

    def rank_of(self, spelled: str) -> int:
        patterns = self.rank_pattern or {}
        return patterns.get(get_pattern_key(list(patterns), spelled), self.r)

    def scaling_of(self, spelled: str) -> float:
        """Return alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
        patterns = self.alpha_pattern or {}
        alpha = patterns.get(get_pattern_key(list(patterns), spelled), self.lora_alpha)
        rank = self.rank_of(spelled)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def targets(self, path: Path) -> LoraConfig:
        """Return a config for PEFT's own matching of names; InputError naming `path` if the settings do not
        go together."""
        try:
            return LoraConfig(
                target_modules=self.target_modules,
                exclude_modules=self.exclude_modules,
                modules_to_save=self.modules_to_save,
                layers_to_transform=self.layers_to_transform,
                layers_pattern=self.layers_pattern,
            )
        except ValueError as error:
            raise InputError(f"{path}: {one_line(error)}") from None

    def description(self) -> str:
        name = ("rs" if self.use_rslora else "") + ("DoRA" if self.use_dora else "LoRA")
        return f"{name}, rank {self.r}, alpha {self.lora_alpha:g}"


def apply_adapter(model: Any, folder: ModelFolder, base: str | Path | None = None) -> Any:
    """Put the adapter of `folder` into the layers of `model` and freeze it.

    `base` is what the user calls the model: where the adapter names another, a line on stderr says so.
    InputError, and the model unchanged, unless every tensor of the adapter fits.
    """
    adapter = read_adapter(folder, model)
    for line in notes_on_base(adapter, base):
        print(f"note: {line}", file=sys.stderr)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in adapter.replaced.items():
            parameters[name].copy_(tensor)
    if not adapter.updates:
        return model
    ranks = {name: len(update.down) for name, update in adapter.updates.items()}
    first = next(iter(ranks.values()))
    wrapped = wrap_in_peft(
        model,
        LoraConfig(
            r=first,
            rank_pattern={re.escape(name): rank for name, rank in ranks.items() if rank != first},
            use_dora=any(update.lengths is not None for update in adapter.updates.values()),
            # a regular expression is matched against the full name; PEFT would match a list by suffix too
            target_modules="|".join(re.escape(name) for name in ranks),
        ),
    )
    plain: Any = wrapped.get_base_model()
    with torch.no_grad():
        for name, update in adapter.updates.items():
            layer: Any = plain.get_submodule(name)
            layer.lora_A["default"].weight.copy_(update.down)
            layer.lora_B["default"].weight.copy_(update.up)
            layer.scaling["default"] = update.scaling
            if update.lengths is not None:
                layer.lora_magnitude_vector["default"].weight.copy_(update.lengths)
    plain.requires_grad_(False)
    return plain


def recorded_base(folder: ModelFolder) -> str | None:
    """Return the path or Hub name that an adapter of another tool recorded of its base."""
    if not (folder.path / ADAPTER_CONFIG).is_file():
        return None
    return _read_settings(folder.path).base_model_name_or_path


def notes_on_base(adapter: Adapter, base: str | Path | None) -> Iterator[str]:
    """Yield a note if the adapter recorded a base of another name than the one it is put on."""
    if base is None or adapter.base_name is None:
        return
    recorded_name, given_name = (_model_name(str(name)) for name in (adapter.base_name, base))
    if recorded_name != given_name and Path(adapter.base_name) != Path(base):
        yield f"{adapter.folder} says that it was trained on {adapter.base_name}; it is put on {base}"


def _model_name(name: str) -> str:
    """Return the last part of a path or Hub name; in the Hub's cache, whose folders end in a commit, the
    model's."""
    cached = re.search(r"/models--[^/]+--([^/]+)/snapshots/", name)
    return cached[1] if cached else get_model_name_from_path(name)


def read_adapter(folder: ModelFolder, model: nn.Module) -> Adapter:
    """Read the adapter in `folder` for `model` (which may be on the meta device: names and shapes are
    enough).

    InputError listing the keys that are missing, unexpected or of another shape; or saying which setting of
    PEFT's, which file, is not one that can be read.
    """
    folder.require_llava()
    if folder.is_model:
        raise InputError(f"{folder} is a whole model, not an adapter")
    linear = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    parameters = {name: parameter.shape for name, parameter in model.named_parameters()}
    updates: dict[str, LayerUpdate] = {}
    replaced: dict[str, torch.Tensor] = {}
    base_name, description = None, "projector alone"
    if folder.kind != "original_projector":
        settings = _read_settings(folder.path)
        base_name, description = settings.base_model_name_or_path, settings.description()
        path = _weights_file(folder.path)
        updates, replaced = _place(
            read_tensors(path), settings, linear, parameters, path, by_part=folder.kind == "original_lora"
        )
    projector_file = _projector_file(folder)
    if projector_file is not None:
        replaced |= _place_projector(read_tensors(projector_file), linear, parameters, projector_file)
    if folder.kind == "run":
        base_name = None  # run.json says where the base is
    return Adapter(folder.path, folder.kind, base_name, updates, replaced, description)


def _projector_file(folder: ModelFolder) -> Path | None:
    """Return the file with tensors that replace the base's, beside those of the adapter."""
    path = folder.path
    if folder.run_info is not None:
        return path / PROJECTOR_WEIGHTS if folder.run_info.projector_trained else None
    if folder.kind == "original_projector":
        return path / PROJECTOR_BIN
    if folder.kind == "peft_adapter":
        if (path / "vit.safetensors").is_file():
            raise InputError(f"{path / 'vit.safetensors'}: a whole tuned vision tower, which is not read")
        return None
    if not (path / NON_LORA_WEIGHTS).is_file():
        raise InputError(
            f"{folder} has no {NON_LORA_WEIGHTS}: the original writes its projector at the end of training "
            "only, and an intermediate checkpoint is not complete"
        )
    return path / NON_LORA_WEIGHTS


def _weights_file(folder: Path) -> Path:
    for name in (ADAPTER_WEIGHTS, ADAPTER_BIN):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has neither {ADAPTER_WEIGHTS} nor {ADAPTER_BIN}")


def _read_settings(folder: Path) -> _LoraSettings:
    path = folder / ADAPTER_CONFIG
    values = read_json(path)
    try:
        settings = _LoraSettings.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None
    if settings.peft_type != "LORA":
        raise InputError(f"{path}: peft_type {settings.peft_type}; only LORA adapters are read")
    refused = [name for name in _REFUSED if values.get(name)]
    if settings.bias != "none":
        refused.append("bias")
    if refused:
        raise InputError(f"{path}: {', '.join(refused)}: adapters with this setting are not read")
    start = settings.init_lora_weights
    if isinstance(start, str) and start.startswith(_CHANGE_THE_BASE):
        raise InputError(
            f"{path}: init_lora_weights {start} changed the base's weights in training; convert it to an "
            "ordinary LoRA with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    return settings


def _place(
    tensors: Mapping[str, torch.Tensor],
    settings: _LoraSettings,
    linear: Mapping[str, tuple[int, int]],
    parameters: Mapping[str, torch.Size],
    path: Path,
    *,
    by_part: bool,
) -> tuple[dict[str, LayerUpdate], dict[str, torch.Tensor]]:
    """Assign each tensor of an adapter's file to its layer or parameter.

    Args:
        tensors: The content of the file.
        settings: adapter_config.json.
        linear: (out, in) of the model's Linear layers by name.
        parameters: The shapes of its parameters by name.
        path: The file, for errors.
        by_part: Layers may be without adapter in a part of the model that has none at all.

    Returns:
        Updates by layer, and the tensors that replace the base's by parameter.
    """
    spelling, tensors_by_name = _in_memory_names(tensors, linear.keys() | parameters.keys())
    adapted = {key.rpartition(".")[0] for key in tensors_by_name if key.endswith(_LORA_PARTS)} & linear.keys()
    adapted |= _targeted(
        settings, linear, spelling, path, {_part(name) for name in adapted} if by_part else None
    )
    expected: dict[str, torch.Tensor] = {}
    for name in adapted:
        out, into = linear[name]
        rank = settings.rank_of(_spelled(name, spelling))
        expected[f"{name}.lora_A"] = _shape(rank, into)
        expected[f"{name}.lora_B"] = _shape(out, rank)
        if settings.use_dora:
            expected[f"{name}.lora_magnitude_vector"] = _shape(out)
    saved = [f".{module}." for module in settings.modules_to_save or ()]
    for name, shape in parameters.items():
        if name in tensors_by_name or any(module in f".{_spelled(name, spelling)}" for module in saved):
            expected[name] = _shape(*shape)
    require_equal_keys(tensors_by_name, expected, path)
    updates = {
        name: LayerUpdate(
            down=tensors_by_name[f"{name}.lora_A"],
            up=tensors_by_name[f"{name}.lora_B"],
            scaling=settings.scaling_of(_spelled(name, spelling)),
            lengths=tensors_by_name.get(f"{name}.lora_magnitude_vector"),
        )
        for name in linear
        if name in adapted
    }
    if not tensors_by_name:
        raise InputError(f"{path} holds no tensor")
    return updates, {name: tensor for name, tensor in tensors_by_name.items() if name in parameters}


def _targeted(
    settings: _LoraSettings, linear: Iterable[str], spelling: str, path: Path, parts: set[str] | None
) -> set[str]:
    """Return the layers that the settings target, in `parts` of the model if given: the original names
    q_proj alike in both towers, and adapts the vision tower only if it was loaded."""
    targets = settings.targets(path.with_name(ADAPTER_CONFIG))
    return {
        name
        for name in linear
        if settings.target_modules
        and check_target_module_exists(targets, _spelled(name, spelling))
        and (parts is None or _part(name) in parts)
    }


def _place_projector(
    tensors: Mapping[str, torch.Tensor],
    linear: Mapping[str, tuple[int, int]],
    parameters: Mapping[str, torch.Size],
    path: Path,
) -> dict[str, torch.Tensor]:
    """Return the tensors that replace the base's own; the projector is whole or absent (it was frozen)."""
    _, tensors_by_name = _in_memory_names(tensors, linear.keys() | parameters.keys())
    has_projector = any(name.startswith(PROJECTOR) for name in tensors_by_name)
    complete = has_projector or path.name != NON_LORA_WEIGHTS
    require_equal_keys(
        tensors_by_name,
        {
            name: _shape(*shape)
            for name, shape in parameters.items()
            if name in tensors_by_name or (complete and name.startswith(PROJECTOR))
        },
        path,
    )
    return tensors_by_name


def _in_memory_names(
    tensors: Mapping[str, torch.Tensor], known: set[str]
) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the spelling that most keys are in, and the tensors by their names in memory: `layer.lora_A` and
    parameters. Keys that name nothing in the model stay as they are in the file."""
    read: dict[str, dict[str, torch.Tensor]] = {}
    matched: dict[str, int] = {}
    for spelling, pairs in SPELLINGS.items():
        read[spelling] = {}
        matched[spelling] = 0
        for key, tensor in tensors.items():
            bare = key
            for wrapper in _WRAPPERS:
                bare = bare.removeprefix(wrapper)
            # `base_layer`: with an adapter on the LM head PEFT writes the head and the embeddings as well
            bare = bare.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
            lora = _LORA_KEY.fullmatch(bare)
            name = _replaced_start(lora["module"] if lora else bare, pairs)
            matched[spelling] += name in known
            full_name = f"{name}.{lora['part']}" if lora else name
            placed = name in known and full_name not in read[spelling]
            read[spelling][full_name if placed else key] = tensor
    best = max(matched, key=lambda spelling: matched[spelling])
    return best, read[best]


def _spelled(name: str, spelling: str) -> str:
    """Return a name in memory as the files of `spelling` write it."""
    return _replaced_start(name, tuple((ours, theirs) for theirs, ours in SPELLINGS[spelling]))


def _replaced_start(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    full_name = f"{name}."  # a module's own name ends where a parameter's goes on
    for start, other in pairs:
        if full_name.startswith(start):
            return (other + full_name.removeprefix(start))[:-1]
    return name


def _part(name: str) -> str:
    return next((part for part in (VISION, PROJECTOR) if name.startswith(part)), LANGUAGE)


def _shape(*sizes: int) -> torch.Tensor:
    return torch.empty(sizes, device="meta")
