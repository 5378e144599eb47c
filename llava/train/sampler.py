"""Which process reads which items: the pictures of a global batch, dealt so that none waits long for another.

A process that has nothing left to read, or no picture where others have one, reads a spare item that has
nothing to learn in it: gradients are summed, and sharded weights gathered, by all processes together, so each
must run the same parts of the model the same number of times.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch.utils.data import DataLoader, Sampler

from llava.train.packing import attention_cost

SPARE = -1
"""The index of an item that is read and not learned."""


class Items(Protocol):
    """What can be dealt: items 0 to len - 1."""

    def __len__(self) -> int: ...

    def lengths(self, index: int) -> list[int]:
        """The tokens of each of the item's groups, packed."""

    def has_image(self, index: int) -> bool: ...


def deal(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Positions 0 to len(costs) - 1, each given to one process, in ascending order for each.

    The dearest first, always to the process with the least so far (Graham's LPT rule: the largest share is
    at most 4/3 of the best possible one). No process is left out while another has two.
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [(0.0, 0, process) for process in range(processes)]
    for position in sorted(range(len(costs)), key=lambda position: -costs[position]):
        load, count, process = heapq.heappop(loads)
        shares[process].append(position)
        heapq.heappush(loads, (load + costs[position], count + 1, process))
    return [sorted(share) for share in shares]


def global_batches(items: Items, size: int, processes: int, hidden_size: int) -> Iterator[list[list[int]]]:
    """For `size * processes` items after the other, in order, what each process reads.

    An item is dealt once and whole. Of the last batch a process may get nothing but SPARE. `hidden_size` is
    the language model's, for the cost (see `packing.pack_rows`).
    """
    images = processes > 1 and any(items.has_image(index) for index in range(len(items)))
    for start in range(0, len(items), size * processes):
        batch = range(start, min(start + size * processes, len(items)))
        if processes == 1:
            yield [list(batch)]
            continue
        costs = [sum(attention_cost(length, hidden_size) for length in items.lengths(i)) for i in batch]
        shares = [[batch[position] for position in share] for share in deal(costs, processes)]
        for share in shares:
            if not share or (images and not any(items.has_image(index) for index in share)):
                share.append(SPARE)
        yield shares


class BalancedBatches(Sampler[list[int]]):
    """The batches of an epoch: those of one global batch after the other, process 0's first.

    accelerate gives process p the batches p, p + processes, ...; there are as many for each.
    """

    batch_size = None  # of varying size: without it accelerate would fill short batches with repeated items
    drop_last = False

    def __init__(self, items: Items, size: int, processes: int, hidden_size: int) -> None:
        self.items = items
        self.size = size
        self.processes = processes
        self.hidden_size = hidden_size

    def __len__(self) -> int:
        return math.ceil(len(self.items) / (self.size * self.processes)) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for shares in global_batches(self.items, self.size, self.processes, self.hidden_size):
            yield from shares


def train_loader(items: Any, collate: Any, arguments: Any) -> DataLoader:
    """The batches of all processes, for accelerate to choose from; `collate` is a dataset.Collator."""
    return DataLoader(
        items,
        batch_sampler=BalancedBatches(
            items, arguments.per_device_train_batch_size, arguments.world_size, collate.hidden_size
        ),
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
    )
