"""Run metadata, checkpoint discovery, and the rules for overwriting and resuming a run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from llava.common.errors import InputError
from llava.conversation import default_conversation
from llava.model.base import base_info
from llava.model.folder import ModelFolder
from llava.model.run_dir import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PROJECTOR_WEIGHTS,
    RUN_FILE,
    DtypeName,
    RunInfo,
    git_commit,
    is_run_dir,
    package_versions,
    read_run_info,
)
from llava.train.config import TrainSettings

CONFIG_FILE = "config.yaml"
ANSWERS_FILE = "validation_answers.jsonl"
TENSORBOARD = "tensorboard"
"""The folder within a run for TensorBoard's files."""
_MAY_CHANGE = {
    "model_name_or_path", "data_path", "val_path", "image_folder", "output_dir", "overwrite_output_dir",
    "epochs", "auto_epochs", "max_steps", "dtype", "deepspeed", "fsdp", "attn_implementation", "liger",
    "gradient_checkpointing", "token_cache", "picture_cache_gb", "dataloader_workers", "logging_steps",
    "eval_steps", "eval_batch_size", "eval_generate_samples", "eval_max_new_tokens", "best_by",
    "early_stopping_patience", "save_steps", "keep_checkpoints", "report_to",
}  # fmt: skip
"""The settings that a resumed run may change: the places of files (their contents are compared), the length
of the run, how it is computed (`dtype` is compared as it was resolved) and how it is watched."""


def describe_run(
    settings: TrainSettings, base: ModelFolder, data: Mapping[Path, str], dtype: DtypeName
) -> RunInfo:
    """Describe a run for its run.json: base, versions, resolved settings and `data`, the SHA-256 of each
    file of records."""
    return RunInfo(
        base=base_info(base),
        conv_mode=settings.conv_mode or default_conversation.name,  # resolved by now
        projector_trained=not settings.freeze_projector,
        lora=settings.lora,
        bits=settings.bits,
        dtype=dtype,
        versions=package_versions(),
        git_commit=git_commit(Path(__file__).parent),
        data={str(path): sha256 for path, sha256 in data.items()},
        config=settings.model_dump(mode="json"),
    )


def find_checkpoint(output_dir: Path, resume: str | None) -> Path | None:
    """Find the checkpoint that `--resume` means: the newest for `auto`, or the named one.

    InputError if the named folder is no checkpoint, or if `output_dir` has later ones: they would be taken
    for newer than those that are about to be written.
    """
    if resume is None:
        return None
    found = {
        int(match.group(1)): path
        for path in output_dir.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and is_run_dir(path)
    }
    if resume == "auto":
        return found[max(found)] if found else None
    checkpoint = Path(resume)
    for name in (RUN_FILE, "trainer_state.json", "scheduler.pt"):
        if not (checkpoint / name).is_file():
            raise InputError(f"--resume {checkpoint}: no checkpoint to go on from (it has no {name})")
    step = read_run_info(checkpoint).step or 0
    if later := [path.name for number, path in sorted(found.items()) if number > step]:
        raise InputError(
            f"--resume {checkpoint}: {output_dir} has later checkpoints ({', '.join(later)}); move or remove "
            "them, or name another output_dir"
        )
    return checkpoint


def require_same_run(info: RunInfo, checkpoint: Path) -> None:
    """Raise InputError if the checkpoint's run had another base, data or setting outside _MAY_CHANGE.

    What a step reads must stay, because the place to resume from is counted in steps; so must the learning
    rates, which come with the optimiser's and scheduler's states whatever the settings say. The length of the
    run may change (epochs, max_steps): the learning rate then follows the new length's curve from here on, so
    that the result is that of an uninterrupted run of neither length.
    """
    before = read_run_info(checkpoint)
    pairs = {
        "base model": (before.base.fingerprint, info.base.fingerprint),
        "data": (sorted(before.data.values()), sorted(info.data.values())),
        "dtype": (before.dtype, info.dtype),
    }
    for name in info.config.keys() - _MAY_CHANGE:
        pairs[name] = (before.config.get(name), info.config[name])
    changed = sorted(name for name, (earlier, now) in pairs.items() if earlier != now)
    if changed:
        raise InputError(
            f"{checkpoint} cannot be resumed: {', '.join(changed)} differ from its run; "
            "set them back or start a new run"
        )


def require_free(output_dir: Path) -> None:
    """Raise InputError if `output_dir` holds a run already."""
    if any(_run_files(output_dir)):
        raise InputError(
            f"{output_dir} holds a run already; continue it with --resume auto, name another output_dir "
            "or set overwrite_output_dir=true"
        )


def clear_run(output_dir: Path) -> None:
    """Remove an earlier run: its own files, checkpoints and curves, nothing else in the folder."""
    shutil.rmtree(output_dir / TENSORBOARD, ignore_errors=True)
    for path in _run_files(output_dir):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _run_files(output_dir: Path) -> list[Path]:
    adapter = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS)
    names = (RUN_FILE, CONFIG_FILE, *adapter, "trainer_state.json", ANSWERS_FILE)
    return [
        *(path for name in names if (path := output_dir / name).is_file()),
        *output_dir.glob("checkpoint-*"),
        *output_dir.glob(".checkpoint-*.partial"),
    ]
