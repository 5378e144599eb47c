"""Parameters sharded over processes by DeepSpeed's ZeRO or PyTorch's FSDP, and what each needs.

ZeRO-2 shards gradients and optimiser states; ZeRO-3 and FSDP the parameters too, so that every
process must run the same modules together (see sampler.py), and what is saved must first be gathered.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainingArguments, training_args

from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.train.config import TrainSettings


def zero_stage(settings: TrainSettings) -> int:
    """Read the stage from the DeepSpeed file, 0 without one; InputError if it cannot be used."""
    if settings.deepspeed is None:
        return 0
    config = read_json(settings.deepspeed)
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (1, 2, 3):
        raise InputError(f"{settings.deepspeed}: zero_optimization.stage must be 1, 2 or 3, not {stage!r}")
    if "optimizer" in config or "scheduler" in config:
        raise InputError(
            f"{settings.deepspeed}: remove optimizer and scheduler; the learning rates are the run's own"
        )
    if stage == 3 and settings.bits is not None:
        raise InputError(
            f"{settings.deepspeed}: ZeRO-3 cannot spread quantised weights: leave out bits, or take stage 2"
        )
    return stage


def is_sharded(settings: TrainSettings) -> bool:
    """Tell whether a process holds only a part of each parameter."""
    return settings.fsdp or zero_stage(settings) == 3


def require_sharding(settings: TrainSettings) -> None:
    """Raise InputError where the sharding that is asked for is not possible."""
    stage = zero_stage(settings)
    if not (stage or settings.fsdp):
        return
    key = "deepspeed" if stage else "fsdp"
    if stage and importlib.util.find_spec("deepspeed") is None:
        raise InputError(f"deepspeed needs DeepSpeed: {how_to_install('deepspeed')}")
    if "LOCAL_RANK" not in os.environ:
        raise InputError(
            f"{key} needs a process a device: start it with scripts/finetune_lora.sh or llava-inspect train"
        )
    if is_sharded(settings) and settings.best_by == "accuracy":
        raise InputError("best_by: accuracy needs answers, which sharded parameters do not give; use loss")


def sharding_arguments(settings: TrainSettings, *, cuda: bool) -> dict[str, Any]:
    """Return the TrainingArguments that set up the sharding; on a CPU, first set up the process group."""
    require_sharding(settings)
    if not cuda:  # accelerate imports DeepSpeed wherever it is installed, and it warns that it sees no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Not for the user: DeepSpeed and accelerate call older names of torch's, and each counts accumulation.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)
    if settings.deepspeed is not None:
        if cuda:
            return {"deepspeed": str(settings.deepspeed)}
        # transformers starts DeepSpeed where accelerate finds a GPU; a state that is there is taken as it is.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        import deepspeed

        # All-reduce over shared memory: it would be compiled here, and its processes wait by spinning.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # transformers would look for a GPU that computes in bfloat16.
        vars(training_args)["is_torch_bf16_gpu_available"] = lambda: True
        PartialState(backend="gloo")
        return {
            "deepspeed": str(settings.deepspeed),
            "use_cpu": False,
            "accelerator_config": {"use_configured_state": True},
        }
    if settings.fsdp:
        return {"fsdp": True, "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    return {}


def allow_fsdp_on_cpu(settings: TrainSettings) -> None:
    """Let accelerate run FSDP on CPUs: it knows it for several GPUs alone, so say that the CPUs are that."""
    state = PartialState()
    if settings.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def name_fsdp_layers(arguments: TrainingArguments, model: nn.Module) -> None:
    """Set what FSDP gathers at a time: a layer of either tower (transformers' list names absent parts)."""
    if arguments.fsdp_plugin_args is not None:
        stacks = [m for name, m in model.named_modules() if name.endswith(".layers")]
        layers = {type(layer).__name__ for stack in stacks for layer in stack.children()}
        arguments.fsdp_plugin_args["transformer_cls_names_to_wrap"] = sorted(layers)


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the shape of the full parameter (under ZeRO-3 its own is empty)."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


@contextmanager
def full_parameters(model: nn.Module, *, keep_changes: bool = False) -> Iterator[None]:
    """Gather every trained parameter in full on every process; all processes must enter together.

    Changes are lost unless `keep_changes`: then process 0's are spread to all.
    """
    trained = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad
    ]
    with ExitStack() as stack:
        if zero := [parameter for _, _, parameter in trained if hasattr(parameter, "ds_id")]:
            import deepspeed

            modifier = 0 if keep_changes else None
            stack.enter_context(deepspeed.zero.GatheredParameters(zero, modifier_rank=modifier))
        sharded = [entry for entry in trained if isinstance(entry[2].data, DTensor)]
        for module, name, parameter in sharded:
            module._parameters[name] = nn.Parameter(_tensor(parameter).full_tensor())
        try:
            yield
        finally:
            for module, name, parameter in sharded:
                changed = module._parameters[name]
                module._parameters[name] = parameter
                if keep_changes and changed is not None:
                    _scatter(_tensor(parameter), changed.detach())


def _tensor(parameter: nn.Parameter) -> DTensor:
    tensor: Any = parameter.detach()
    return tensor


def _scatter(part: DTensor, value: torch.Tensor) -> None:
    part.to_local().copy_(distribute_tensor(value, part.device_mesh, part.placements).to_local())


def require_same_processes(checkpoint: Path, settings: TrainSettings, processes: int) -> None:
    """Raise InputError if another number of processes or another kind of sharding wrote the checkpoint: the
    batches of its epoch and the parts of its optimiser would not be those of this run."""
    states = len(list(checkpoint.glob("rng_state_*.pth"))) or 1
    if states != processes:
        raise InputError(
            f"{checkpoint} cannot be resumed: it was written by {states} processes and this run has "
            f"{processes}; start as many"
        )
    kinds = {"latest": "deepspeed", "optimizer.bin": "fsdp"}
    written_with = next((kind for name, kind in kinds.items() if (checkpoint / name).exists()), "neither")
    now = "deepspeed" if settings.deepspeed else "fsdp" if settings.fsdp else "neither"
    if written_with != now:
        raise InputError(
            f"{checkpoint} cannot be resumed: of deepspeed and fsdp it was written with {written_with}, "
            f"this run has {now}"
        )
