"""`python -m llava.train CONFIG [key=value ...]`: conversation JSON in, a LoRA run directory out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser
from llava.common.errors import InputError
from llava.common.files import require_here
from llava.common.launch import run_process
from llava.common.remote import is_file, is_folder, shown
from llava.common.settings import load_settings
from llava.common.shipped import find_config
from llava.train.config import TrainSettings


def main(argv: Sequence[str] | None = None) -> int:
    options, settings = parse_arguments(argv)
    require_inputs(settings)
    # Seconds of imports: only for settings that can be right.
    from llava.train.finetune import train
    from llava.train.plan import Target

    target = None if options.gpus is None else Target.parse(options.gpus)
    train(
        settings, resume=options.resume, dry_run=options.dry_run, target=target, verify=options.verify,
        verbose=options.verbose,
    )  # fmt: skip
    return 0


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, TrainSettings]:
    """Read the command line and the config that it names; torch-free. InputError for what does not fit."""
    parser = CommandParser(
        "python -m llava.train",
        "Fine-tune a LLaVA model with LoRA, as a YAML file says.",
        examples=[
            "configs/tiny_cpu.yaml",
            "configs/tiny_cpu.yaml epochs=20 lora.rank=32 output_dir=runs/longer",
            "configs/tiny_cpu.yaml --resume auto",
            "configs/llava15_7b_lora.yaml --dry-run --gpus 1x24",
        ],
    )
    parser.add_argument(
        "config",
        type=Path,
        help="YAML file, or the name of one that ships; its keys are those of llava/train/config.py",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a key of the file")
    parser.add_argument(
        "--resume",
        metavar="auto|CHECKPOINT",
        help="go on from a checkpoint; auto takes output_dir's newest, or starts where there is none",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the data, print the plan, how long it will take, the memory that it needs and what is "
        "learned; reads no weights",
    )
    parser.add_argument(
        "--gpus",
        metavar="Nx#GB",
        help="with --dry-run: plan for these GPUs (8x80: eight of 80 GB), not for this machine",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="decode every picture before the first step; without it only the beginning and end of each are "
        "looked at",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="while training, show learning rate, gradient norm, tokens a second and memory too",
    )
    options = parser.parse_intermixed_args(argv)
    settings = load_settings(TrainSettings, find_config(options.config), options.overrides)
    if options.gpus and not options.dry_run:
        raise InputError("--gpus plans for other GPUs than this machine's: give it with --dry-run")
    return options, settings


def require_inputs(settings: TrainSettings) -> None:
    """Raise InputError if a file that the run reads is absent."""
    for path in (settings.data_path, settings.val_path):
        if path is not None and not (is_file(path) or is_folder(path)):
            raise InputError(f"{shown(path)}: no such file")
    for folder in (settings.output_dir, settings.token_cache):
        if folder is not None:
            require_here(folder)
    if settings.deepspeed is not None and not settings.deepspeed.is_file():
        raise InputError(f"{settings.deepspeed}: no such file")
    if not is_folder(settings.image_folder):
        raise InputError(f"image_folder {shown(settings.image_folder)}: no such folder")


if __name__ == "__main__":
    run_process(main)
