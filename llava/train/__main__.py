"""`python -m llava.train CONFIG [key=value ...]`: conversation JSON in, a LoRA run directory out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from transformers import LlavaConfig, PrinterCallback, set_seed
from transformers.utils import logging as transformers_logging

from llava.conversation import get_template
from llava.errors import InputError, run_command
from llava.model.builder import (
    load_image_processor,
    load_model,
    load_tokenizer,
    make_processor,
    require_llava,
    resolve_folder,
)
from llava.model.lora import attach, parameter_counts
from llava.model.run_dir import is_run_dir
from llava.processing import RecordProcessor
from llava.settings import load_settings
from llava.train.arguments import attention, training_arguments, weights_dtype
from llava.train.config import TrainSettings
from llava.train.dataset import PictureStore, RecordSet, TrainItems
from llava.train.display import Display, parameter_table, plan_table
from llava.train.plan import plan
from llava.train.runs import clear_run, describe_run, find_checkpoint, require_free, require_same_run
from llava.train.trainer import LoraTrainer
from llava.train.validation import Validation

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
            validation=(
                None if settings.val_path is None else Validation(sets[settings.val_path], loaded, settings)
            ),
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


def make_record_processor(base: Path, settings: TrainSettings) -> RecordProcessor:
    """The processor alone, so that the data is checked before the weights are read."""
    return make_processor(
        LlavaConfig.from_pretrained(str(base)),
        load_tokenizer(base),
        load_image_processor(base),
        get_template(settings.conv_mode),
        settings.max_length,
    )


if __name__ == "__main__":
    run_command(main)
