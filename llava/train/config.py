"""The settings of a fine-tuning run: one YAML file, every field with a sentence, cross-checks in one place.

Torch-free. The defaults suit LLaVA-1.5-7B on one GPU of 40 GB; configs/tiny_cpu.yaml is the embedded base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from llava.model.run_dir import LoraSettings
from llava.settings import Settings


class AugmentSettings(Settings):
    """Changes drawn anew for every picture and epoch. All are off unless asked for.

    A picture is flipped only if each of its records allows it: a record without words of direction and
    boxes always does; one with them only if its `meta` says that they speak of the picture
    (`task: where`, `type: box` or `flip: true`), and then words and boxes are turned too.
    """

    flip_horizontal: float = Field(default=0.0, ge=0, le=1)
    """Probability of mirroring left and right."""
    flip_vertical: float = Field(default=0.0, ge=0, le=1)
    """Probability of mirroring top and bottom."""
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Brightness is multiplied by a factor from [1 - brightness, 1 + brightness]."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Contrast about the mean grey is multiplied by a factor from [1 - contrast, 1 + contrast]."""
    shrink: float = Field(default=0.0, ge=0, le=0.5)
    """The picture is scaled by a factor from [1 - shrink, 1] and put anywhere on its square; nothing is
    cut off. Pictures with a record that speaks of places are left as they are."""


class TrainSettings(Settings):
    # Model and data
    model_name_or_path: str
    """The base: a LLaVA folder in Hugging Face format or a Hub name."""
    data_path: Path
    """Conversation JSON to train on (train.json)."""
    val_path: Path | None = None
    """Conversation JSON to validate on; without it there is no validation and the last state is kept."""
    image_folder: Path
    """The folder that the records' picture paths are relative to."""
    output_dir: Path
    """The run directory to write."""
    overwrite_output_dir: bool = False
    """Replace a run that is in `output_dir` already (resume instead with --resume auto)."""
    conv_mode: str = "v1"
    """The chat template, by LLaVA's names."""

    # What is trained
    lora: LoraSettings = Field(default_factory=LoraSettings)
    freeze_projector: bool = False
    """Keep the projector as it is; otherwise it is trained in full beside the adapters."""

    # How long and how fast
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pictures."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop after this many optimiser steps, whatever `epochs` says."""
    batch_size: int = Field(default=4, gt=0)
    """Pictures (each with its questions) a device reads at once; a text-only record counts as one."""
    gradient_accumulation_steps: int = Field(default=4, gt=0)
    """Batches an optimiser step; the loss is the mean over all their supervised tokens."""
    questions_per_picture: int | None = Field(default=None, gt=0)
    """At most so many of a picture's questions an epoch, drawn anew each time; all if not given."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate of the language model's adapters."""
    mm_projector_lr: float | None = Field(default=2e-5, gt=0)
    """The projector's; `learning_rate` if null."""
    vision_lr: float | None = Field(default=None, gt=0)
    """That of the vision tower's adapters; `learning_rate` if null."""
    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """The share of steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    seed: int = 0

    # Sequences and pictures
    packing: bool = True
    """Read a picture once for all its questions (the same loss and gradients, fewer tokens)."""
    max_length: int = Field(default=2048, gt=0)
    """Tokens a row may hold, the picture's included; a longer record is an error."""
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    picture_cache_gb: float = Field(default=4.0, ge=0)
    """Memory for decoded pictures at the model's size; the rest are decoded again each time."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that prepare batches beside the training one."""

    # Arithmetic
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen weights and the arithmetic; auto is bfloat16 where the device computes in it (CUDA, CPUs
    with AVX512-BF16), else float32. What is trained is float32 always."""
    gradient_checkpointing: bool = True
    """Compute activations a second time instead of keeping them: less memory, a third slower."""

    # Watching and keeping
    logging_steps: int = Field(default=10, gt=0)
    eval_steps: int | None = Field(default=None, gt=0)
    """Validate every so many steps; once an epoch if not given."""
    eval_batch_size: int | None = Field(default=None, gt=0)
    """Pictures at once in validation; `batch_size` if null."""
    eval_generate_samples: int = Field(default=200, ge=0)
    """Validation questions to answer (greedily) and compare with the truth; 0 for none."""
    eval_max_new_tokens: int = Field(default=64, gt=0)
    best_by: Literal["loss", "accuracy"] = "loss"
    """Which validation figure chooses the state that is kept: a checkpoint is written at every best."""
    save_steps: int | None = Field(default=None, gt=0)
    """Write a checkpoint every so many steps; once an epoch if not given."""
    keep_checkpoints: int = Field(default=3, gt=0)
    """How many to keep; the best and the last are never removed."""
    report_to: list[str] = Field(default_factory=list)
    """Trackers that transformers knows, such as wandb or tensorboard."""

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.best_by == "accuracy" and not self.eval_generate_samples:
            raise ValueError("best_by: accuracy needs eval_generate_samples above 0")
        if self.vision_lr is not None and not self.lora.vision_targets:
            raise ValueError("vision_lr is set but lora.vision_targets is empty: the tower would stay frozen")
        if not (self.lora.language_targets or self.lora.vision_targets):
            raise ValueError("lora names no targets: give language_targets or vision_targets")
        return self
