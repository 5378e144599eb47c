"""Settings as transformers' TrainingArguments, and the number types and attention that a device takes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.model.builder import DTYPES, bfloat16_is_native
from llava.model.run_dir import DtypeName
from llava.train.config import TrainSettings
from llava.train.data.packing import FLASH, FLEX
from llava.train.float32_attention import SDPA_FLOAT32
from llava.train.schedule import Schedule
from llava.train.sharded import allow_fsdp_on_cpu, sharding_arguments


def training_arguments(settings: TrainSettings) -> TrainingArguments:
    """Translate the settings for this machine, whose processes and devices are set up on the way. What is
    `auto` waits for the data (`set_schedule`)."""
    cuda = torch.cuda.is_available()
    dtype = weights_dtype(settings, torch.device("cuda" if cuda else "cpu"))
    evaluates = settings.val_path is not None
    devices: dict[str, Any] = {"use_cpu": not cuda} | sharding_arguments(settings, cuda=cuda)
    arguments = TrainingArguments(
        output_dir=str(settings.output_dir),
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
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16 and cuda,
        # finetune.make_plan decides on "auto", when the data is known
        activation_checkpointing=settings.gradient_checkpointing is True,
        activation_checkpointing_kwargs={"use_reentrant": False},
        # TrainingSet draws the order itself.
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_num_workers=settings.dataloader_workers,
        dataloader_pin_memory=cuda,
        logging_strategy="steps",
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,  # compute_loss stops instead
        eval_strategy="steps" if evaluates else "no",
        metric_for_best_model=f"eval_{settings.best_by}" if evaluates else None,
        greater_is_better=settings.best_by == "accuracy" if evaluates else None,
        save_strategy="steps",
        report_to=settings.report_to or "none",
        use_liger_kernel=settings.liger,
        # The loss is our own: supervised positions alone.
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
        disable_tqdm=True,
        log_level="error",
        **devices,
    )
    allow_fsdp_on_cpu(settings)
    if arguments.n_gpu > 1:
        # One process drives one device; several are scripts/finetune_lora.sh's torchrun.
        arguments._n_gpu = 1
    return arguments


def set_schedule(arguments: TrainingArguments, schedule: Schedule) -> None:
    """Give the Trainer the numbers that follow from the data."""
    arguments.num_train_epochs = schedule.epochs
    arguments.eval_steps = schedule.eval_steps
    arguments.save_steps = schedule.save_steps


def weights_dtype(settings: TrainSettings, device: torch.device) -> torch.dtype:
    """Return the type of the frozen weights: the settings', or for `auto` what the device computes in."""
    if settings.dtype != "auto":
        return DTYPES[settings.dtype]
    return torch.bfloat16 if bfloat16_is_native(device) else torch.float32


def dtype_name(dtype: torch.dtype) -> DtypeName:
    return next(name for name, known in DTYPES.items() if known == dtype)


def attention_implementation(settings: TrainSettings, arguments: TrainingArguments) -> str:
    """Return the name of the attention implementation: the settings', or for `auto` the device's best."""
    if settings.attn_implementation != "auto":
        return settings.attn_implementation
    return SDPA_FLOAT32 if arguments.bf16 and arguments.device.type == "cpu" else "sdpa"


def require_supported(settings: TrainSettings) -> None:
    """Raise InputError for number types, kernels or trackers that this machine does not have."""
    kind, cuda = settings.attn_implementation, torch.cuda.is_available()
    if not cuda:
        if settings.dtype == "float16":
            raise InputError("dtype=float16 needs a CUDA device: use float32 or bfloat16 on a CPU")
        if kind in (FLASH, FLEX):
            raise InputError(f"attn_implementation={kind} needs a CUDA device: use sdpa on a CPU")
        if settings.liger:
            raise InputError("liger=true needs a CUDA device: its kernels are written for one")
    if kind == FLASH and weights_dtype(settings, torch.device("cuda")) == torch.float32:
        raise InputError(f"attn_implementation={FLASH} computes in bfloat16 and float16: set dtype")
    wanted = {
        "flash_attn": (kind == FLASH, "attn_implementation=flash_attention_2", "pip install flash-attn"),
        "liger_kernel": (settings.liger, "liger=true", "pip install liger-kernel"),
        "bitsandbytes": (settings.bits is not None, f"bits={settings.bits}", how_to_install("quant")),
        "wandb": ("wandb" in settings.report_to, "report_to wandb", how_to_install("wandb")),
        "tensorboard": (
            "tensorboard" in settings.report_to, "report_to tensorboard", how_to_install("tensorboard"),
        ),
    }  # fmt: skip
    for module, (asked, setting, remedy) in wanted.items():
        if asked and importlib.util.find_spec(module) is None:
            raise InputError(f"{setting} needs {module}: {remedy}")
    try:
        for tracker in get_reporting_integration_callbacks(settings.report_to):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"report_to: {one_line(error)}") from None
