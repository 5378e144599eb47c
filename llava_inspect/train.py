"""`llava-inspect train` (and `scripts/finetune_lora.sh`): LoRA fine-tuning, with a process for each GPU."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from llava.common.errors import InputError
from llava.train.__main__ import main as train_in_this_process
from llava.train.__main__ import parse_arguments
from llava.train.config import TrainSettings


def main(argv: Sequence[str]) -> int:
    if "LOCAL_RANK" in os.environ:  # one of the processes that torchrun or accelerate started
        return train_in_this_process(argv)
    _, settings = parse_arguments(argv)  # --help and mistakes end here, once
    command = launch_command(argv, settings)
    if command and os.name == "nt":
        raise InputError(
            "several GPUs or machines, deepspeed and fsdp need Linux, on Windows that of WSL2; here set "
            "NUM_GPUS=1 (CUDA_VISIBLE_DEVICES says which GPU)"
        )
    print("+", shlex.join(command or [sys.executable, "-m", "llava.train", *argv]), flush=True)
    if command is None:  # the same without another start of Python
        return train_in_this_process(argv)
    os.execv(command[0], command)


def launch_command(argv: Sequence[str], settings: TrainSettings) -> list[str] | None:
    """Return the command that starts the training's processes; None if this process trains alone.

    The environment says how many there are: NUM_GPUS on this machine (by default all of its GPUs; without a
    GPU, a number above 1 starts processes on the CPU, to try it out), and for several machines NNODES,
    NODE_RANK, MASTER_ADDR and MASTER_PORT. DeepSpeed and FSDP need the launcher even for one process.
    """
    machines = _read_number("NNODES", " of machines") or 1
    processes = _read_number("NUM_GPUS")
    if processes is None:
        processes = _count_gpus()
    sharded = settings.deepspeed is not None or settings.fsdp
    if processes <= 1 and machines == 1 and not sharded:
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


def _read_number(name: str, noun: str = "") -> int | None:
    """Return the environment variable as a number; None if it is not set. Zero machines are no number."""
    text = os.environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or (name == "NNODES" and int(text) < 1):
        raise InputError(f"{name}={text} is no number{noun}")
    return int(text)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
