"""`llava-inspect train` (and `scripts/finetune_lora.sh`): LoRA fine-tuning, with a process for each GPU."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from llava.common.errors import InputError
from llava.common.files import read_text
from llava.common.shipped import find_config
from llava.train.__main__ import main as train_in_this_process


def main(argv: Sequence[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        return train_in_this_process(list(argv))
    command = launch_command(argv)
    if command is None:
        return train_in_this_process(list(argv))
    print("+", shlex.join(command), flush=True)
    os.execv(command[0], command)


def launch_command(argv: Sequence[str]) -> list[str] | None:
    """Return the command that starts the training's processes; None if this process trains alone.

    The environment says how many there are: NUM_GPUS on this machine (by default all of its GPUs; without a
    GPU, a number above 1 starts processes on the CPU, to try it out), and for several machines NNODES,
    NODE_RANK, MASTER_ADDR and MASTER_PORT. DeepSpeed and FSDP need the launcher even for one process.
    """
    machines = _number("NNODES", "machines", 1)
    processes = _number("NUM_GPUS", "GPUs") if "NUM_GPUS" in os.environ else _count_gpus()
    if processes <= 1 and machines == 1 and not is_sharded(argv):
        return None
    command = [sys.executable, "-m", "llava.common.launch", "--nnodes", str(machines)]
    command += ["--nproc-per-node", str(max(processes, 1))]
    if machines == 1:
        command.append("--standalone")
    else:
        for name, meaning in (
            ("MASTER_ADDR", "the first machine's address"),
            ("NODE_RANK", "0 on the first machine, 1 on the next, ..."),
        ):
            if not os.environ.get(name):
                raise InputError(f"set {name} to {meaning}")
        command += ["--node-rank", os.environ["NODE_RANK"], "--master-addr", os.environ["MASTER_ADDR"]]
        command += ["--master-port", os.environ.get("MASTER_PORT") or "29500"]
    return [*command, "-m", "llava.train", *argv]


def is_sharded(argv: Sequence[str]) -> bool:
    """Tell whether an argument, or the config file among them, asks for DeepSpeed or FSDP."""
    values: dict[str, object] = {}
    for argument in argv:
        if "=" not in argument and not argument.startswith("-"):
            path = find_config(Path(argument))
            settings = yaml.safe_load(read_text(path)) if path.is_file() else None
            values |= settings if isinstance(settings, dict) else {}
    for argument in argv:
        name, equals, value = argument.partition("=")
        if equals and name in ("deepspeed", "fsdp"):
            values[name] = yaml.safe_load(value)
    return bool(values.get("deepspeed") or values.get("fsdp"))


def _number(name: str, noun: str, default: int = 0) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or (name == "NNODES" and int(text) < 1):
        raise InputError(f"{name}={text} is no number{'' if noun == 'GPUs' else f' of {noun}'}")
    return int(text)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
