"""The group of processes that answer together, one per GPU.

Started by torchrun, accelerate launch or llava.common.launch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from llava.common.errors import InputError


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process among those that answer together.

    `device` is where its model belongs, None to choose.
    """

    rank: int
    world_size: int
    device: str | None

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            from torch import distributed

            distributed.barrier()


def join_process_group(device: str | None) -> ProcessGroup:
    """Join the processes that the launcher started; without a launcher this process is alone.

    With CUDA each takes the GPU of its local rank, unless `device` is "cpu". InputError for a device that
    names one GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessGroup(0, 1, device)
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
    return ProcessGroup(state.process_index, state.num_processes, str(state.device))
