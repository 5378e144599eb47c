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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from llava.common.errors import InputError
from llava.common.files import read_json, write_json, write_text
from llava.conversation import get_template
from llava.export.convert import (
    Companions,
    read_companions,
    refuse_output,
    require_client_name,
    stored_dtype,
    write_config,
    write_hf,
    write_original,
)
from llava.export.model_card import base_of_adapter, model_card
from llava.model.adapters import Adapter, notes, read_adapter
from llava.model.builder import (
    DTYPES,
    find_base,
    find_base_of_adapter,
    load_config,
    quantisation,
    resolve_folder,
)
from llava.model.formats import HUB_SPELLING, LANGUAGE, kind_of, spelled
from llava.model.original import require_whole, whole_tensors
from llava.model.run_dir import DtypeName, RunInfo, copy_processor_files, read_run_info
from llava.model.shards import DEFAULT_SHARD, new_folder, write_shards


@dataclass(frozen=True)
class Source:
    """An adapter's folder and its base's; `info` if it is a run directory of ours."""

    folder: Path
    base: Path
    info: RunInfo | None


def merge(
    paths: str | Path | Sequence[str | Path],
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
    """Write the adapters of `paths` merged into their base to the folder `output`.

    `paths` are run directories or checkpoints of ours, adapters of other tools or the original's folders, on
    one base; `weights` has a number for each if they are several. `dtype` (float16, bfloat16, float32)
    defaults to the type the base is stored in. `overwrite` replaces an earlier model folder. Shards have at
    most `max_shard_size` bytes. `scores` is Markdown for the model card. Returns what the user is to be told,
    a line each. InputError, and nothing written, if adapters and base do not fit or `output` is taken.
    """
    sources = find_sources([paths] if isinstance(paths, (str, Path)) else paths, model_base)
    shares = _shares_of(sources, weights)
    refuse_output(
        output, [folder for source in sources for folder in (source.folder, source.base)], overwrite
    )
    base, info = sources[0].base, sources[0].info
    config = load_config(base)
    if save_format == "llava":
        require_client_name(output, config)
    model = empty_model(config)
    adapters = [read_adapter(source.folder, model) for source in sources]
    asked, told = (DTYPES[dtype], []) if dtype else stored_dtype(base, whole_tensors(base))
    tensors = merged_tensors(base, model, info, list(zip(adapters, shares, strict=True)), asked)
    _require_room(output, model, asked)
    told += [line for adapter in adapters for line in notes(adapter, base)]
    if info is not None and info.bits is not None:
        told.append(f"the adapter {base_of_adapter(info)}")
    companions = read_companions(
        sources[0].folder if info else base, config, get_template(info.conv_mode) if info else None
    )
    told += [
        f"{left} is what is left of a merge that was killed; remove it unless another one is at work"
        for left in output.parent.glob(f".{glob.escape(output.name)}.[0-9]*")
    ]
    with new_folder(output, overwrite=overwrite) as temporary:
        if save_format == "llava":
            told += write_original(temporary, output, companions, tensors, asked, max_shard_size)
        elif kind_of(base) == "original":
            write_hf(temporary, companions, tensors, asked, max_shard_size)
        else:
            hub = ((spelled(name, HUB_SPELLING), tensor) for name, tensor in tensors)
            write_shards(temporary, hub, max_shard_size)
            _write_companions(temporary, sources[0], companions, asked)
        card = model_card(
            output.name,
            info.base.name if info else str(model_base or adapters[0].base_name),
            [
                (adapter, source.info, share)
                for adapter, source, share in zip(adapters, sources, shares, strict=True)
            ],
            config=config,
            conv_mode=companions.template.name,
            dtype=asked,
            save_format=save_format,
            scores=scores,
        )
        write_text(temporary / "README.md", card)
    return told


def find_sources(paths: Sequence[str | Path], model_base: str | Path | None) -> list[Source]:
    """Where the adapters and their base are; InputError unless they are adapters of one base."""
    sources = []
    for path in paths:
        folder = resolve_folder(path)
        kind = kind_of(folder)
        if kind in ("hf", "original"):
            raise InputError(f"{folder} is a whole model (it has no run.json); name an adapter to merge")
        info = read_run_info(folder) if kind == "run" else None
        if info is not None:
            base = find_base(info, folder, model_base)
        else:
            base = find_base_of_adapter(folder, model_base)
        sources.append(Source(folder, base, info))
    first = sources[0]
    for other in sources[1:]:
        if other.base.resolve() != first.base.resolve():
            raise InputError(
                f"{first.folder} belongs to {first.base} and {other.folder} to {other.base}; only adapters "
                "of one base are merged (name it with --model-base if it is in two places)"
            )
        if _way_of(other) != _way_of(first):
            raise InputError(
                f"{first.folder} and {other.folder} differ in the conversation template or the bits that "
                "their base was read in; they cannot be one model"
            )
    return sources


def _way_of(source: Source) -> tuple[object, ...]:
    """What must be alike in adapters that become one model."""
    info = source.info
    return () if info is None else (info.conv_mode, info.bits, info.dtype if info.bits else None)


def _shares_of(sources: Sequence[Source], weights: Sequence[float] | None) -> list[float]:
    if weights is None and len(sources) == 1:
        return [1.0]
    if weights is None or len(weights) != len(sources):
        given = 0 if weights is None else len(weights)
        raise InputError(f"{len(sources)} adapters and {given} weights; give --weights a number for each")
    if not all(map(math.isfinite, weights)):
        raise InputError(f"--weights {' '.join(map(str, weights))}: each must be a finite number")
    return list(weights)


def empty_model(config: Any) -> Any:
    """The model of `config` without its weights (on the meta device): names, shapes and kinds of layers."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def merged_tensors(
    base: Path,
    model: Any,
    info: RunInfo | None,
    adapters: Sequence[tuple[Adapter, float]],
    dtype: torch.dtype,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The base's tensors under their names in memory, one at a time, with the weighted adapters in them."""
    stored = whole_tensors(base)
    require_whole(stored, model.config, base)
    if model.config.tie_word_embeddings and any(
        adapter.touches(name)
        for adapter, _ in adapters
        for name in ("lm_head.weight", f"{LANGUAGE}embed_tokens.weight")
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
    name: str, weight: torch.Tensor, merged: torch.Tensor, dtype: torch.dtype, base: Path
) -> str:
    if not torch.isfinite(weight).all():
        return f"{base}: {name} holds values that are no finite numbers; the base is damaged, fetch it again"
    if not torch.isfinite(merged).all():
        return f"{name} is no finite number after merging: training diverged; merge an earlier checkpoint"
    return f"{name} does not fit {str(dtype)[6:]} after merging; merge with --dtype bfloat16"


def _mixed(name: str, weight: torch.Tensor, adapters: Sequence[tuple[Adapter, float]]) -> torch.Tensor:
    """W0 + sum_i w_i (W_i - W0), in float32 where an adapter has a say."""
    touching = [(adapter, share) for adapter, share in adapters if adapter.touches(name)]
    if not touching:
        return weight
    if len(adapters) == 1 and touching[0][1] == 1:
        return touching[0][0].applied(name, weight)
    plain = weight.float()
    mixed = plain.clone()
    for adapter, share in touching:
        mixed += share * (adapter.applied(name, weight) - plain)
    return mixed


def _quantised_weights(model: nn.Module) -> set[str]:
    """The weights that builder.quantisation quantises."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(LANGUAGE)
    }


def _quantised_and_back(weight: torch.Tensor, bits: Literal[4, 8]) -> torch.Tensor:
    """What `bits` make of a weight, as builder.quantisation sets them, in its type."""
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
    """InputError unless the disk has room for the weights; an earlier model stays until they are written."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    there = next(parent for parent in output.resolve().parents if parent.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{output}: the model takes {needed / 1e9:.1f} GB and {there} has {free / 1e9:.1f} GB free; "
            "make room there or name another disk"
        )


def _write_companions(target: Path, source: Source, companions: Companions, dtype: torch.dtype) -> None:
    """Config, tokenizer, image processor and chat template: the base's files, a run's own over them."""
    write_config(target, companions.config, dtype)
    if (source.base / "generation_config.json").is_file():
        shutil.copyfile(source.base / "generation_config.json", target / "generation_config.json")
    copy_processor_files(source.base, target)
    if source.info is not None:
        copy_processor_files(source.folder, target)
    write_text(target / "chat_template.jinja", companions.template.jinja())
    if companions.config.model_type == "llava":
        _pad_images(target)


def _pad_images(target: Path) -> None:
    """LLaVA-1.5 sees pictures padded to a square. transformers' processor crops by default, so say it there
    too: whoever loads the folder without us then sees what the model was trained on."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (target / name).is_file():
            config = read_json(target / name)
            values = config.get("image_processor", config) if name.startswith("processor") else config
            if "image_mean" in values:
                values |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
                write_json(target / name, config)
