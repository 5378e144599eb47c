"""README.md of a merged folder: what it is, from what, how well it does, how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
import yaml

from llava import __version__
from llava.mm_utils import get_model_name_from_path
from llava.model.adapters import Adapter
from llava.model.run_dir import RunInfo


def base_of_adapter(info: RunInfo) -> str:
    """How the base of a QLoRA run enters the merged weights, in words that follow "the adapter"."""
    return (
        f"was trained on a base quantised to {info.bits} bits, and is merged with the weights that these "
        "bits stand for"
    )


def model_card(
    name: str,
    base: str,
    parts: Sequence[tuple[Adapter, RunInfo | None, float]],
    *,
    config: Any,
    conv_mode: str,
    dtype: torch.dtype,
    scores: str,
) -> str:
    """Of the model `name` that the adapters of `parts` (with their run and weight) make of `base`; `scores`
    is Markdown."""
    front = yaml.safe_dump(
        {
            "base_model": base,
            "library_name": "transformers",
            "pipeline_tag": "image-text-to-text",
            "tags": ["llava", "llava-inspect"],
        },
        sort_keys=False,
    )
    pictures = (
        "padded to a square with the mean colour"
        if config.model_type == "llava"
        else "whole, and in tiles (anyres)"
    )
    mixed = (
        ["- Several adapters: each tensor is W0 + sum of weight x (what the adapter makes of W0 - W0)\n"]
        if len(parts) > 1
        else []
    )
    runs = [info for _, info, _ in parts if info is not None]
    fingerprint = f" (fingerprint `{runs[0].base.fingerprint}`)" if runs else ""
    revision = f", revision `{runs[0].base.revision}`" if runs and runs[0].base.revision else ""
    told = "".join(_merged_from(adapter, info, weight, len(parts)) for adapter, info, weight in parts)
    scored = f"\n## Scores\n\n{scores}\n" if scores else ""
    return f"""---
{front}---

# {name}

A LLaVA model fine-tuned with LoRA and merged by LLaVA Inspect {__version__} into one folder of
{str(dtype).removeprefix("torch.")} weights. It loads with `transformers.AutoModelForImageTextToText` and
needs no adapter.

- Base: `{base}`{revision}{fingerprint}
{"".join(mixed)}{told}- Conversation template: `{conv_mode}` (`chat_template.jinja`)
- Pictures: {pictures}, never cropped
{scored}
## Training data

{_data(runs)}

## Recipe

{_recipes(runs)}
## Use

```bash
python -m llava.serve.cli --model-path {name} --image-file picture.jpg
```
"""


def _merged_from(adapter: Adapter, info: RunInfo | None, weight: float, count: int) -> str:
    """Lines of the list: which adapter, what it trained, with which versions."""
    share = f", weight {weight:g}" if count > 1 else ""
    name = get_model_name_from_path(adapter.folder.resolve().as_posix())
    if info is None:
        return f"- Merged from the adapter `{name}`{share}: {adapter.about}; {_parts(adapter)}\n"
    step = f", step {info.step}" if info.step is not None else ""
    versions = ", ".join(f"{package} {version}" for package, version in info.versions.items())
    commit = f"; code at `{info.git_commit}`" if info.git_commit else ""
    quantised = f"- The adapter {base_of_adapter(info)}\n" if info.bits else ""
    return (
        f"- Merged from the run `{name}`{step}{share}: {adapter.about}; {_parts(adapter)}\n{quantised}"
        f"- Trained with: {versions or 'versions not recorded'}{commit}\n"
    )


def _parts(adapter: Adapter) -> str:
    """What an adapter touches, counted by part of the model."""
    counts = adapter.counts()
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing"


def _data(runs: Sequence[RunInfo]) -> str:
    data = {path: digest for info in runs for path, digest in info.data.items()}
    return "\n".join(f"- `{path}` (sha256 `{digest}`)" for path, digest in data.items()) or "- not recorded"


def _recipes(runs: Sequence[RunInfo]) -> str:
    if not runs:
        return "Not recorded.\n"
    blocks = (json.dumps(info.config, indent=1, ensure_ascii=False, default=str) for info in runs)
    return "\n".join(f"```json\n{block}\n```\n" for block in blocks)
