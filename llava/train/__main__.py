"""`python -m llava.train CONFIG [key=value ...]`: conversation JSON in, a LoRA run directory out."""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from transformers import LlavaConfig, PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from llava.conversation import get_template
from llava.errors import InputError, run_command
from llava.model.builder import (
    DTYPES,
    LoadedModel,
    bfloat16_is_native,
    load_image_processor,
    load_model,
    load_tokenizer,
    make_processor,
    require_llava,
    resolve_folder,
)
from llava.model.lora import attach, parameter_counts
from llava.model.run_dir import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PROJECTOR_WEIGHTS,
    RUN_FILE,
    RunInfo,
    base_info,
    data_hashes,
    git_commit,
    is_run_dir,
    package_versions,
    read_run_info,
)
from llava.processing import RecordProcessor
from llava.settings import load_settings
from llava.train.attention import SDPA_FLOAT32
from llava.train.config import TrainSettings
from llava.train.dataset import PictureStore, RecordSet, TrainItems
from llava.train.display import Display, parameter_table, plan_table
from llava.train.trainer import CONFIG_FILE, LoraTrainer

EXAMPLES = """examples:
  python -m llava.train configs/tiny_cpu.yaml
  python -m llava.train configs/tiny_cpu.yaml epochs=20 lora.rank=32 output_dir=runs/longer
  python -m llava.train configs/tiny_cpu.yaml --resume auto
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llava.train",
        description="Fine-tune a LLaVA model with LoRA, as a YAML file says.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="YAML file; its keys are those of llava/train/config.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a key of the file")
    parser.add_argument(
        "--resume",
        metavar="auto|CHECKPOINT",
        help="go on from a checkpoint; auto takes output_dir's newest, or starts where there is none",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, stop")
    options = parser.parse_intermixed_args(argv)
    settings = load_settings(TrainSettings, options.config, options.overrides)
    train(settings, resume=options.resume, dry_run=options.dry_run)
    return 0


def train(settings: TrainSettings, *, resume: str | None = None, dry_run: bool = False) -> Path:
    """Run the whole fine-tuning; the run directory. InputError before anything is written if the model,
    a record or a picture is at fault."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    checkpoint = find_checkpoint(settings.output_dir, resume)
    if not (dry_run or resume or settings.overwrite_output_dir):
        require_free(settings.output_dir)
    base = resolve_folder(settings.model_name_or_path)
    if is_run_dir(base):
        raise InputError(
            f"{base} is a run directory; train on a whole model (scripts/merge_lora.py makes one)"
        )
    require_llava(base)
    arguments = training_arguments(settings)
    set_seed(settings.seed)
    out = Console(quiet=not arguments.should_log)

    with Display(arguments.should_log) as display:
        processor = make_record_processor(base, settings)
        store = PictureStore(settings.image_folder, processor, settings.picture_cache_gb * 1e9)
        sets = {
            path: RecordSet(
                path, store, max_length=settings.max_length, packing=settings.packing, progress=display.track
            )
            for path in (settings.data_path, settings.val_path)
            if path is not None
        }
        items = TrainItems(
            sets[settings.data_path],
            seed=settings.seed,
            questions_per_picture=settings.questions_per_picture,
            augmentation=settings.augment,
        )
        # A batch of text alone leaves the projector out.
        arguments.ddp_find_unused_parameters = not all(r.images for r in sets[settings.data_path].records)
        info = describe_run(settings, base, list(sets))
        if checkpoint is not None:
            require_same_run(info, checkpoint)

        loaded = load_model(
            base, device=arguments.device.type, dtype=weights_dtype(settings, arguments.device),
            conv_mode=settings.conv_mode, attn_implementation=attention(arguments),
        )  # fmt: skip
        loaded.processor = processor
        model: Any = attach(loaded.model, settings.lora, train_projector=not settings.freeze_projector)
        for parameter in model.parameters():
            if parameter.requires_grad:  # bfloat16 would swallow small updates
                parameter.data = parameter.data.float()
        out.print(parameter_table(parameter_counts(model)))
        out.print(plan_table(plan(settings, arguments, items, loaded, sets)))
        if dry_run:
            return settings.output_dir

        if arguments.should_save and resume is None:
            clear_run(settings.output_dir)
        trainer = LoraTrainer(
            model,
            arguments,
            loaded=loaded,
            settings=settings,
            train_items=items,
            validation=None if settings.val_path is None else sets[settings.val_path],
            run_info=info,
            config_text=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False),
            processor_folder=base,
            show_validation=display.validation,
        )
        display.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(display)
        if checkpoint is not None:
            display.console.print(f"resuming from {checkpoint}")
        elif resume == "auto":
            display.console.print(f"no checkpoint in {settings.output_dir} yet: starting from the base")
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        step = trainer.finish()
        rates = display.rates()
    why = f"best validation {settings.best_by}" if trainer.best_checkpoint() else "the last state"
    out.print(
        f"{settings.output_dir}: the adapter of step {step} ({why}); {rates}", highlight=False, soft_wrap=True
    )
    return settings.output_dir


def training_arguments(settings: TrainSettings) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    evaluates = settings.val_path is not None
    arguments = TrainingArguments(
        output_dir=str(settings.output_dir),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        # The Trainer reads a number below 1 as a share of the steps.
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        bf16=weights_dtype(settings, torch.device("cuda" if cuda else "cpu")) == torch.bfloat16,
        use_cpu=not cuda,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        # TrainItems draws the order itself.
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_num_workers=settings.dataloader_workers,
        dataloader_pin_memory=cuda,
        logging_strategy="steps",
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,  # compute_loss stops instead
        eval_strategy="no" if not evaluates else "steps" if settings.eval_steps else "epoch",
        eval_steps=settings.eval_steps,
        metric_for_best_model=f"eval_{settings.best_by}" if evaluates else None,
        greater_is_better=settings.best_by == "accuracy" if evaluates else None,
        save_strategy="steps" if settings.save_steps else "epoch",
        save_steps=settings.save_steps or 0,
        report_to=settings.report_to or "none",
        disable_tqdm=True,
        log_level="error",
    )
    if arguments.n_gpu > 1:
        # One process drives one device; several are scripts/finetune_lora.sh's torchrun.
        arguments._n_gpu = 1
    return arguments


def weights_dtype(settings: TrainSettings, device: torch.device) -> torch.dtype:
    if settings.dtype != "auto":
        return DTYPES[settings.dtype]
    return torch.bfloat16 if bfloat16_is_native(device) else torch.float32


def attention(arguments: TrainingArguments) -> str:
    return SDPA_FLOAT32 if arguments.bf16 and arguments.device.type == "cpu" else "sdpa"


def make_record_processor(base: Path, settings: TrainSettings) -> RecordProcessor:
    """The processor alone, so that the data is checked before the weights are read."""
    return make_processor(
        LlavaConfig.from_pretrained(str(base)),
        load_tokenizer(base),
        load_image_processor(base),
        get_template(settings.conv_mode),
        settings.max_length,
    )


def describe_run(settings: TrainSettings, base: Path, data: Sequence[Path]) -> RunInfo:
    return RunInfo(
        base=base_info(base, settings.model_name_or_path),
        conv_mode=settings.conv_mode,
        projector_trained=not settings.freeze_projector,
        lora=settings.lora,
        versions=package_versions(),
        git_commit=git_commit(Path(__file__).parent),
        data=data_hashes(data),
        config=settings.model_dump(mode="json"),
    )


def plan(
    settings: TrainSettings,
    arguments: TrainingArguments,
    items: TrainItems,
    loaded: LoadedModel,
    sets: dict[Path, RecordSet],
) -> dict[str, str]:
    """What is ahead, in words, for the table at the start."""
    packed, unpacked, supervised = items.token_counts()
    batches = math.ceil(len(items) / (settings.batch_size * arguments.world_size))
    epoch_steps = math.ceil(batches / settings.gradient_accumulation_steps)
    steps = settings.max_steps or math.ceil(settings.epochs * epoch_steps)
    rows = {
        "base": settings.model_name_or_path,
        "device": f"{arguments.device} x {arguments.world_size}, frozen weights {loaded.model.dtype}",
    }
    for path, records in sets.items():
        rows[str(path)] = f"{len(records.records):,} records in {len(records.sources):,} items"
    return rows | {
        "tokens an epoch": f"{packed:,} ({unpacked:,} without packing), {supervised:,} supervised",
        "steps": f"{steps:,} ({epoch_steps:,} an epoch)",
        "run directory": str(settings.output_dir),
    }


# Run directories


def find_checkpoint(output_dir: Path, resume: str | None) -> Path | None:
    """The checkpoint that `--resume` means; InputError if a named one is none."""
    if resume is None:
        return None
    if resume == "auto":
        found = {
            int(match.group(1)): path
            for path in output_dir.glob("checkpoint-*")
            if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and is_run_dir(path)
        }
        return found[max(found)] if found else None
    checkpoint = Path(resume)
    for name in (RUN_FILE, "trainer_state.json", "optimizer.pt"):
        if not (checkpoint / name).is_file():
            raise InputError(f"--resume {checkpoint}: no checkpoint to go on from (it has no {name})")
    return checkpoint


def require_same_run(info: RunInfo, checkpoint: Path) -> None:
    """InputError if the checkpoint's run had another base, other data or other trained parts."""
    before = read_run_info(checkpoint)
    pairs = {
        "base model": (before.base.fingerprint, info.base.fingerprint),
        "data": (sorted(before.data.values()), sorted(info.data.values())),
        "conv_mode": (before.conv_mode, info.conv_mode),
        "lora": (before.lora, info.lora),
        "freeze_projector": (before.projector_trained, info.projector_trained),
        "seed": (before.config.get("seed"), info.config.get("seed")),
    }
    changed = [name for name, (there, here) in pairs.items() if there != here]
    if changed:
        raise InputError(
            f"{checkpoint} cannot be resumed: {', '.join(changed)} differ from its run; "
            "set them back or start a new run"
        )


def require_free(output_dir: Path) -> None:
    if any(_run_files(output_dir)):
        raise InputError(
            f"{output_dir} holds a run already; continue it with --resume auto, name another output_dir "
            "or set overwrite_output_dir=true"
        )


def clear_run(output_dir: Path) -> None:
    """Remove a former run: its own files and checkpoints, nothing else that lies there."""
    for path in _run_files(output_dir):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _run_files(output_dir: Path) -> list[Path]:
    names = (RUN_FILE, CONFIG_FILE, ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS, "trainer_state.json")
    return [
        *(path for name in names if (path := output_dir / name).is_file()),
        *output_dir.glob("checkpoint-*"),
        *output_dir.glob(".checkpoint-*.partial"),
    ]


if __name__ == "__main__":
    run_command(main)
