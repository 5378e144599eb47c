"""The settings of a fine-tuning run: one YAML file, every field with a sentence, cross-checks in one place.

Torch-free. The defaults suit LLaVA-1.5-7B on one GPU of 40 GB; configs/tiny_cpu.yaml is the embedded base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from llava.common.settings import Settings
from llava.common.shipped import find_shipped
from llava.model.run_dir import LoraSettings


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


class AutoEpochs(Settings):
    """How many passes `epochs: auto` makes: as many as read `pictures` pictures, rounded, at least `least`
    and at most `most`. So few pictures are read often, and many seldom, whatever the batch and the number of
    GPUs. The defaults suit a published LLaVA, which has seen millions of pictures; configs/tiny_cpu.yaml has
    those of the embedded base."""

    pictures: int = Field(default=1600, gt=0)
    """Reading so many, each again in every pass, the base learns a domain."""
    least: int = Field(default=1, gt=0)
    most: int = Field(default=10, gt=0)

    @model_validator(mode="after")
    def _check(self) -> AutoEpochs:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, most is {self.most}: there is nothing between them")
        return self


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
    conv_mode: str | None = None
    """The chat template, by LLaVA's names; the model's own if not given or `auto`."""

    # What is trained
    lora: LoraSettings = Field(default_factory=LoraSettings)
    freeze_projector: bool = False
    """Keep the projector as it is; otherwise it is trained in full beside the adapters."""

    # How long and how fast
    epochs: PositiveFloat | Literal["auto"] = "auto"
    """Passes over the pictures; auto follows from how many there are, as `auto_epochs` says."""
    auto_epochs: AutoEpochs = Field(default_factory=AutoEpochs)
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
    token_cache: Path | None = None
    """Folder for the encoded records and decoded pictures, for several runs on the same data; if null they
    are in the run directory until the run is finished."""
    picture_cache_gb: float = Field(default=4.0, ge=0)
    """Room in the token cache for decoded pictures (LLaVA-1.5's at the model's size, the others' whole),
    which all processes of a machine share; what finds no room is decoded again each time."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that prepare batches beside the training one."""

    # Arithmetic
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen weights and the arithmetic; auto is bfloat16 where the device computes in it (CUDA, CPUs
    with AVX512-BF16), else float32. float16 is for CUDA alone. What is trained is float32 always."""
    bits: Literal[4, 8] | None = None
    """Hold the language model's frozen weights in so many bits (QLoRA; needs bitsandbytes): a quarter or half
    of the memory, slower. All of the weights in `dtype` if null."""
    attn_implementation: Literal["auto", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """How attention is computed; auto is PyTorch's own (sdpa). flash_attention_2 takes no packed rows."""
    liger: bool = False
    """Use Liger's kernels for norms, rotary positions and the MLP (CUDA; needs liger-kernel)."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Compute activations a second time instead of keeping them: less memory, a third slower. auto does so
    where the estimate of memory says that they do not fit."""

    # Several processes (scripts/finetune_lora.sh starts them)
    deepspeed: Path | None = None
    """DeepSpeed's JSON, such as configs/deepspeed/zero2.json; "auto" in it is filled from these settings."""
    fsdp: bool = False
    """Spread the parameters over the devices with PyTorch's FSDP2."""

    # Watching and keeping
    logging_steps: int = Field(default=10, gt=0)
    eval_steps: PositiveInt | Literal["auto"] = "auto"
    """Validate every so many steps, and after the last; auto is eight times in a run."""
    eval_batch_size: int | None = Field(default=None, gt=0)
    """Pictures at once in validation; `batch_size` if null."""
    eval_generate_samples: int = Field(default=200, ge=0)
    """Validation questions to answer (greedily) and compare with the truth; 0 for none."""
    eval_max_new_tokens: int = Field(default=64, gt=0)
    best_by: Literal["loss", "accuracy"] = "loss"
    """Which validation figure chooses the state that is kept: a checkpoint is written at every best."""
    early_stopping_patience: PositiveInt | Literal["auto"] | None = "auto"
    """Stop after so many validations in a row without a better `best_by`; never if null. auto is half of the
    run's validations, at least three: the low rates at its end often bring a better state."""
    save_steps: PositiveInt | Literal["auto"] = "auto"
    """Write a checkpoint every so many steps, and after the last; auto is eight times in a run, and no more
    than 500 steps apart."""
    keep_checkpoints: int = Field(default=3, gt=0)
    """How many to keep; the best and the last are never removed."""
    report_to: list[str] = Field(default_factory=list)
    """Trackers to send figures and sample answers to: wandb, tensorboard or another that transformers knows.
    Nothing is sent anywhere without it."""

    @field_validator("epochs", "eval_steps", "early_stopping_patience", "save_steps", mode="wrap")
    @classmethod
    def _number_or_auto(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Say in one message what pydantic says for each type of the union."""
        try:
            return handler(value)
        except ValidationError:
            kind = "number" if info.field_name == "epochs" else "whole number"
            raise ValueError(f"{value!r} is neither auto nor a {kind} above 0") from None

    @field_validator("deepspeed")
    @classmethod
    def _find_shipped(cls, path: Path | None) -> Path | None:
        return path and find_shipped(path)

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.deepspeed is not None and self.fsdp:
            raise ValueError("deepspeed and fsdp are two ways to spread a model: choose one")
        if self.best_by == "accuracy" and not self.eval_generate_samples:
            raise ValueError("best_by: accuracy needs eval_generate_samples above 0")
        if isinstance(self.early_stopping_patience, int) and self.val_path is None:
            raise ValueError("early_stopping_patience counts validations: give val_path")
        if self.attn_implementation == "flash_attention_2" and self.packing:
            raise ValueError(
                "flash_attention_2 cannot keep a picture's questions apart: set packing=false, or "
                "attn_implementation=sdpa or flex_attention"
            )
        if self.bits is not None and self.fsdp:
            raise ValueError("fsdp cannot spread quantised weights: leave out bits or fsdp")
        if "all" in self.report_to:
            raise ValueError("report_to: name the trackers; 'all' would send to whatever is installed")
        if self.vision_lr is not None and not self.lora.vision_targets:
            raise ValueError("vision_lr is set but lora.vision_targets is empty: the tower would stay frozen")
        if not (self.lora.language_targets or self.lora.vision_targets):
            raise ValueError("lora names no targets: give language_targets or vision_targets")
        return self
