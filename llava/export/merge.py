"""Merge adapters into their base: one ordinary LLaVA folder that needs none of our code.

Weights stream: each tensor of the base is read, given what the adapters make of it in float32, rounded once
to the asked type and written. Memory holds a shard of the result, the adapters and one layer, however large
the base is.

One adapter gives the weights that it computes with: W + s B A for LoRA, its rows scaled to the trained
lengths for DoRA, the trained tensor where it replaced the base's (the projector). Several are mixed,

    W = W0 + sum_i w_i (W_i - W0)

with W0 the base's tensor and W_i what the adapter i alone would make of it. An adapter that was trained on a
quantised base is added to what that base stood for, its weights quantised and back, so that the merged model
computes what was trained.

In float32 a merged model's logits differ from its adapter's by at most 1e-5 of the largest logit, on small
models of LLaVA-1.5, 1.6 and OneVision (tests/llava/export/test_merge.py): the sums are of another order.
"""

from __future__ import annotations

import glob
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from llava.common.errors import InputError
from llava.common.files import write_text
from llava.export.model_card import MergedAdapter, base_of_adapter, model_card
from llava.export.writers import (
    Companions,
    read_companions,
    refuse_output,
    require_client_name,
    stored_dtype,
    write_config,
    write_hf,
    write_hub_tensors,
    write_original,
)
from llava.model.adapters import Adapter, notes_on_base, read_adapter
from llava.model.base import find_base
from llava.model.builder import DTYPES, empty_model, quantisation, require_complete
from llava.model.folder import ModelFolder, open_model_folder
from llava.model.formats import EMBEDDING, HEAD, LANGUAGE
from llava.model.processor_files import fill_vocabulary, pad_images, suit_transformers_4
from llava.model.run_dir import DtypeName, RunInfo, copy_processor_files
from llava.model.shards import DEFAULT_SHARD, StoredTensor, new_folder


@dataclass(frozen=True)
class AdapterSource:
    """An adapter's folder and its base's."""

    folder: ModelFolder
    base: ModelFolder

    @property
    def info(self) -> RunInfo | None:
        """run.json, if the adapter is a run directory of ours."""
        return self.folder.run_info

    @property
    def run(self) -> ModelFolder | None:
        return None if self.info is None else self.folder


def merge_adapters(
    paths: str | Path | ModelFolder | Sequence[str | Path],
    output: Path,
    *,
    weights: Sequence[float] | None = None,
    model_base: str | Path | None = None,
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    save_format: Literal["hf", "llava"] = "hf",
    max_shard_size: int = DEFAULT_SHARD,
    scores: str = "",
) -> list[str]:
    """Write adapters merged into their base to a folder.

    Args:
        paths: Run directories or checkpoints of ours, adapters of other tools or the original's folders, on
            one base; or one folder alone.
        output: The folder to write.
        weights: A number for each adapter, if they are several.
        model_base: The base, if it is not where the adapters say.
        dtype: Of the weights; by default the type that the base is stored in.
        overwrite: Replace an earlier model folder.
        save_format: Hugging Face's, or the original LLaVA's.
        max_shard_size: In bytes, of each weights file.
        scores: Markdown for the model card.

    Returns:
        Notes for the user, a line each.

    Raises:
        InputError: Adapters and base do not fit, or `output` is taken. Nothing is written then.
    """
    sources = find_sources([paths] if isinstance(paths, (str, Path, ModelFolder)) else paths, model_base)
    mixing_weights = _mixing_weights(sources, weights)
    read = [folder for source in sources for folder in (source.folder, source.base)]
    refuse_output(output, read, overwrite)
    first = sources[0]
    base, info = first.base, first.info
    if save_format == "llava":
        require_client_name(output, base.config)
    model = empty_model(base.config)
    adapters = [
        MergedAdapter(read_adapter(source.folder, model), source.info, weight)
        for source, weight in zip(sources, mixing_weights, strict=True)
    ]
    stored = base.open_tensors()
    target_dtype, notes = (DTYPES[dtype], []) if dtype else stored_dtype(base, stored)
    _require_room(output, model, target_dtype)
    notes += [line for merged in adapters for line in notes_on_base(merged.adapter, base.path)]
    if info is not None and info.bits is not None:
        notes.append(f"the adapter {base_of_adapter(info)}")
    notes += _leftovers(output)
    companions = read_companions(base, first.run)
    card = model_card(
        output.name,
        info.base.name if info else str(model_base or adapters[0].adapter.base_name),
        adapters,
        config=companions.config,
        conv_mode=companions.template.name,
        dtype=target_dtype,
        save_format=save_format,
        scores=scores,
    )
    tensors = merged_tensors(
        base, stored, model, info, [(merged.adapter, merged.weight) for merged in adapters], target_dtype
    )
    with new_folder(output, overwrite=overwrite) as temporary:
        if save_format == "llava":
            notes += write_original(temporary, output, companions, tensors, target_dtype, max_shard_size)
        elif base.is_original:
            notes += write_hf(temporary, companions, tensors, target_dtype, max_shard_size)
        else:
            write_hub_tensors(temporary, tensors, max_shard_size)
            notes += _write_companions(temporary, first, companions, target_dtype)
        write_text(temporary / "README.md", card)
    return notes


def find_sources(
    paths: Sequence[str | Path | ModelFolder], model_base: str | Path | None
) -> list[AdapterSource]:
    """Find the adapters and their base; InputError unless they are adapters of one base."""
    sources = []
    for path in paths:
        folder = open_model_folder(path)
        folder.require_llava()
        if folder.is_model:
            raise InputError(f"{folder} is a whole model (it has no run.json); name an adapter to merge")
        sources.append(AdapterSource(folder, find_base(folder, model_base)))
    first = sources[0]
    for other in sources[1:]:
        if other.base.path.resolve() != first.base.path.resolve():
            raise InputError(
                f"{first.folder} belongs to {first.base} and {other.folder} to {other.base}; only adapters "
                "of one base are merged (name it with --model-base if it is in two places)"
            )
        if _training_form(other) != _training_form(first):
            raise InputError(
                f"{first.folder} and {other.folder} differ in the conversation template or the bits that "
                "their base was read in; they cannot be one model"
            )
    return sources


def _training_form(source: AdapterSource) -> tuple[object, ...]:
    """Return what must be equal in adapters that become one model."""
    info = source.info
    return () if info is None else (info.conv_mode, info.bits, info.dtype if info.bits else None)


def _mixing_weights(sources: Sequence[AdapterSource], weights: Sequence[float] | None) -> list[float]:
    if weights is None and len(sources) == 1:
        return [1.0]
    if weights is None or len(weights) != len(sources):
        given = 0 if weights is None else len(weights)
        raise InputError(f"{len(sources)} adapters and {given} weights; give --weights a number for each")
    if not all(map(math.isfinite, weights)):
        raise InputError(f"--weights {' '.join(map(str, weights))}: each must be a finite number")
    return list(weights)


def _leftovers(output: Path) -> list[str]:
    return [
        f"{left} is what is left of a merge that was killed; remove it unless another one is at work"
        for left in output.parent.glob(f".{glob.escape(output.name)}.[0-9]*")
    ]


def merged_tensors(
    base: ModelFolder,
    stored: Mapping[str, StoredTensor],
    model: Any,
    info: RunInfo | None,
    adapters: Sequence[tuple[Adapter, float]],
    dtype: torch.dtype,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base's tensors under their names in memory, one at a time, with the adapters in them.

    Args:
        base: The base's folder.
        stored: Its tensors, from `ModelFolder.open_tensors`.
        model: The base without its weights, from `empty_model`.
        info: run.json of the adapters, if they are runs of ours.
        adapters: Each with its weight in the mixture.
        dtype: The type of what is yielded.

    Raises:
        InputError: The base is incomplete or damaged, or a merged value does not fit `dtype`.
    """
    require_complete(stored, base)
    if model.config.tie_word_embeddings and any(
        adapter.touches(name) for adapter, _ in adapters for name in (HEAD, EMBEDDING)
    ):
        raise InputError(f"{base} ties its LM head to its embeddings; an adapter on either cannot be merged")
    quantised = _quantised_weights(model) if info is not None and info.bits else set()
    for name, place in stored.items():
        weight = place.read()
        if info is not None and info.bits and info.dtype:
            weight = weight.to(DTYPES[info.dtype])
            if name in quantised:
                weight = _quantised_and_back(weight, info.bits)
        merged = _mixed(name, weight, adapters)
        rounded = merged.to(dtype)
        if not torch.isfinite(rounded).all():
            raise InputError(_why_not_finite(name, weight, merged, dtype, base))
        yield name, rounded


def _why_not_finite(
    name: str, weight: torch.Tensor, merged: torch.Tensor, dtype: torch.dtype, base: ModelFolder
) -> str:
    if not torch.isfinite(weight).all():
        return f"{base}: {name} holds values that are no finite numbers; the base is damaged, fetch it again"
    if not torch.isfinite(merged).all():
        return f"{name} is no finite number after merging: training diverged; merge an earlier checkpoint"
    return f"{name} does not fit {str(dtype)[6:]} after merging; merge with --dtype bfloat16"


def _mixed(name: str, weight: torch.Tensor, adapters: Sequence[tuple[Adapter, float]]) -> torch.Tensor:
    """Return W0 + sum_i w_i (W_i - W0), in float32 where an adapter changes it."""
    touching = [(adapter, factor) for adapter, factor in adapters if adapter.touches(name)]
    if not touching:
        return weight
    if len(adapters) == 1 and touching[0][1] == 1:
        return touching[0][0].applied(name, weight)
    plain = weight.float()
    mixed = plain.clone()
    for adapter, factor in touching:
        mixed += factor * (adapter.applied(name, weight) - plain)
    return mixed


def _quantised_weights(model: nn.Module) -> set[str]:
    """Return the names of the weights that builder.quantisation quantises."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(LANGUAGE)
    }


def _quantised_and_back(weight: torch.Tensor, bits: Literal[4, 8]) -> torch.Tensor:
    """Return what `bits` make of a weight, as builder.quantisation sets them, in its type."""
    settings = quantisation(bits, weight.dtype)
    import bitsandbytes

    parts: Any = bitsandbytes.nn  # which mypy finds nothing exported from
    if bits == 8:
        small = parts.Int8Params(weight, requires_grad=False).to("cpu")
        return bitsandbytes.functional.int8_vectorwise_dequant(small.data, small.SCB).to(weight.dtype)
    small = parts.Params4bit(
        weight,
        requires_grad=False,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
    ).to("cpu")
    return bitsandbytes.functional.dequantize_4bit(small.data, small.quant_state)


def _require_room(output: Path, model: nn.Module, dtype: torch.dtype) -> None:
    """Raise an InputError unless the disk has room for the weights; an earlier model stays until they are
    written."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    disk = next(parent for parent in output.resolve().parents if parent.is_dir())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise InputError(
            f"{output}: the model takes {needed / 1e9:.1f} GB and {disk} has {free / 1e9:.1f} GB free; "
            "make room there or name another disk"
        )


def _write_companions(
    target: Path, source: AdapterSource, companions: Companions, dtype: torch.dtype
) -> list[str]:
    """Write config, tokenizer, image processor and chat template: the base's files, a run's own over them.
    Return notes for the user."""
    write_config(target, companions.config, dtype)
    generation = source.base.path / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, target / "generation_config.json")
    copy_processor_files(source.base.path, target)
    if source.run is not None:
        copy_processor_files(source.run.path, target)
    write_text(target / "chat_template.jinja", companions.template.jinja())
    suit_transformers_4(target)
    if companions.config.model_type == "llava":
        pad_images(target)
    return fill_vocabulary(target, companions.config.text_config.vocab_size)
