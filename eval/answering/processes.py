"""One process for each GPU, started by torchrun, accelerate launch or llava.common.launch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from llava.common.errors import InputError


@dataclass(frozen=True)
class Processes:
    """`count` processes answer together; this is number `index`. `device`: where its model belongs, None to
    choose."""

    index: int
    count: int
    device: str | None

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


def join(device: str | None) -> Processes:
    """This process among those that the launcher started, alone without one. With CUDA each takes the GPU of
    its place on the machine, unless `device` is "cpu"."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, device)
    if device not in (None, "cpu", "cuda"):
        raise InputError(
            f"--device {device}: each of several processes takes its own; say cuda, cpu or nothing"
        )
    import torch
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    # gloo on GPUs too: the processes only wait for each other, and NCCL would give up after ten minutes.
    # accelerate refuses some GPUs unless NCCL is told what they cannot do, though it is not used.
    os.environ |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    state = PartialState(cpu=cpu, backend="gloo")
    return Processes(state.process_index, state.num_processes, str(state.device))
