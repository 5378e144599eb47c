"""How much memory is free for the KV cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

CACHE_SHARE = 0.6
"""Of the free memory; the rest is for what a forward pass needs besides the cache."""


def tokens_that_fit(model: Any) -> int:
    """Return for how many tokens the free memory of the model's device can hold keys and values."""
    config = model.config.text_config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * model.dtype.itemsize
    return max(1, int(CACHE_SHARE * free_bytes(model.device) / token_bytes))


def free_bytes(device: torch.device) -> float:
    """Return how much memory this process can still take on a device."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    return min(psutil.virtual_memory().available, container_free_bytes())


def container_free_bytes(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes that a container still leaves to this process; infinite without a limit.

    They are read from Linux's cgroup files, version 2 or 1. File pages that the kernel can drop are free.
    """
    for folder, limit_file, usage_file, dropped in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            pages = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            limit, used = ((folder / name).read_text("ascii") for name in (limit_file, usage_file))
            return max(0.0, float(limit.replace("max", "inf")) - int(used) + int(pages.get(dropped, 0)))
        except (OSError, ValueError):  # no such files on this machine
            continue
    return float("inf")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out; CUDA has an error class for it, the CPU and cuBLAS have only messages."""
    messages = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in messages)
