"""Write the README.md of a merged folder: what it is, from what, how well it does, how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml

from llava import __version__
from llava.mm_utils import get_model_name_from_path
from llava.model.adapters import Adapter
from llava.model.hub import is_hub_name
from llava.model.run_dir import RunInfo


class MergedAdapter(NamedTuple):
    """An adapter, its run.json if it is a run of ours, and its weight in the mixture."""

    adapter: Adapter
    info: RunInfo | None
    weight: float


def base_of_adapter(info: RunInfo) -> str:
    """Say how the base of a QLoRA run enters the merged weights, in words that follow "the adapter"."""
    return (
        f"was trained on a base quantised to {info.bits} bits, and is merged with the weights that these "
        "bits stand for"
    )


def model_card(
    name: str,
    base: str,
    parts: Sequence[MergedAdapter],
    *,
    config: Any,
    conv_mode: str,
    dtype: torch.dtype,
    save_format: Literal["hf", "llava"],
    scores: str,
) -> str:
    """Write the README.md of a merged model.

    Args:
        name: The model's name.
        base: The path or Hub name of its base.
        parts: The adapters that were merged.
        config: The model's Hugging Face config.
        conv_mode: Its conversation template.
        dtype: The type of its weights.
        save_format: Hugging Face's, or the original LLaVA's.
        scores: Markdown; empty if nothing was measured.
    """
    images = (
        "padded to a square with the mean colour"
        if config.model_type == "llava"
        else "whole, and in tiles (anyres)"
    )
    runs = [info for _, info, _ in parts if info is not None]
    revision = f", revision `{runs[0].base.revision}`" if runs and runs[0].base.revision else ""
    fingerprint = f" (fingerprint `{runs[0].base.fingerprint}`)" if runs else ""
    mixed = (
        "- Several adapters are mixed: the base's weights plus, of each, its weight times what it changes\n"
        if len(parts) > 1
        else ""
    )
    made_of = "".join(_merged_from(part, mixed=len(parts) > 1) for part in parts)
    missing = "Not measured when this was written. `llava-inspect merge --scores scores.json` puts them here."
    return f"""---
{_front(base, save_format)}---

# {name}

A LLaVA model, fine-tuned to answer questions about pictures and merged by LLaVA Inspect {__version__}. The
folder is complete and needs no adapter. Its weights are {str(dtype).removeprefix("torch.")}.

- Base: `{base}`{revision}{fingerprint}
{mixed}{made_of}- Conversation template: `{conv_mode}`
- Pictures: {images}, never cropped

## Scores

{scores or missing}

## Training data

{_data(runs)}

## Recipe

{_recipes(parts)}
## Use

{_use(name, config, conv_mode, save_format)}"""


def _front(base: str, save_format: str) -> str:
    """Return the Hub's own lines: what program reads the model and, if the base is there, what it was made
    of."""
    on_hub = is_hub_name(base) and not Path(base).exists()
    values = {
        "base_model": base if on_hub else None,
        "library_name": "transformers" if save_format == "hf" else None,
        "pipeline_tag": "image-text-to-text",
        "tags": ["llava", "llava-inspect"],
    }
    return yaml.safe_dump({key: value for key, value in values.items() if value}, sort_keys=False)


def _merged_from(part: MergedAdapter, *, mixed: bool) -> str:
    """Return lines of the list: which adapter, what it trained, with which versions."""
    adapter, info, weight = part
    weight_text = f", weight {weight:g}" if mixed or weight != 1 else ""
    counts = ", ".join(f"{count} {what}" for what, count in adapter.counts().items()) or "nothing"
    if info is None:
        return f"- Adapter: `{_name(adapter)}`{weight_text}: {adapter.description}; {counts}\n"
    step = f", step {info.step}" if info.step is not None else ""
    versions = ", ".join(f"{package} {version}" for package, version in info.versions.items())
    commit = f"; code at `{info.git_commit}`" if info.git_commit else ""
    quantised = f"- The adapter {base_of_adapter(info)}\n" if info.bits else ""
    return (
        f"- Adapter: run `{_name(adapter)}`{step}{weight_text}: {adapter.description}; {counts}\n{quantised}"
        f"- Trained with: {versions or 'versions not recorded'}{commit}\n"
    )


def _name(adapter: Adapter) -> str:
    return get_model_name_from_path(adapter.folder.resolve().as_posix())


def _data(runs: Sequence[RunInfo]) -> str:
    data = {path: digest for info in runs for path, digest in info.data.items()}
    return "\n".join(f"- `{path}` (sha256 `{digest}`)" for path, digest in data.items()) or "Not recorded."


def _recipes(parts: Sequence[MergedAdapter]) -> str:
    """Return each run's settings once, as the YAML that llava.train reads."""
    names: dict[str, list[str]] = {}
    for adapter, info, _ in parts:
        if info is not None and info.config:
            values = yaml.safe_dump(info.config, sort_keys=False, default_flow_style=None, allow_unicode=True)
            names.setdefault(values, []).append(f"`{_name(adapter)}`")
    blocks = [
        f"Of {', '.join(of)}, for `llava-inspect train`:\n\n```yaml\n{values}```\n"
        for values, of in names.items()
    ]
    return "\n".join(blocks) or "Not recorded.\n"


def _use(name: str, config: Any, conv_mode: str, save_format: str) -> str:
    family = (config.architectures or ["AutoModelForImageTextToText"])[0]
    programs, mode = f"`transformers.{family}` and what is built on it load it too.", ""
    if save_format == "llava":
        programs = "It is in the original LLaVA's format: that command starts the original client as well."
        mode = f" --conv-mode {conv_mode}"  # the original would go by the folder's name
    return f"""Where this folder is:

```bash
python -m llava.serve.cli --model-path {name} --image-file picture.jpg{mode}
```

{programs}
"""
