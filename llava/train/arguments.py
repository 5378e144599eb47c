"""Our settings as transformers' TrainingArguments, and the arithmetic of a device."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from llava.model.builder import DTYPES, bfloat16_is_native
from llava.train.attention import SDPA_FLOAT32
from llava.train.config import TrainSettings


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
