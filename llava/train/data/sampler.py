"""Which process reads which examples: those of a global batch are shared out so that none waits for another.

A process that has nothing left to read, or no image where others have one, reads a spare example with nothing
to learn in it: gradients are summed, and sharded weights gathered, by all processes together, so each must
run the same parts of the model the same number of times.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch.utils.data import DataLoader, Sampler

from llava.train.data.packing import attention_cost

SPARE = -1
"""The index of an example that is read and not learned."""


class ExampleLengths(Protocol):
    """The lengths of examples 0 to len - 1, which is all that sharing them out needs."""

    def __len__(self) -> int: ...

    def lengths(self, index: int) -> list[int]:
        """Count the tokens of each of the example's groups, packed."""

    def has_image(self, index: int) -> bool: ...


def assign_to_processes(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Assign positions 0 to len(costs) - 1 to processes; each process gets its positions in ascending order.

    The most expensive position goes first, always to the process with the least so far (Graham's LPT rule:
    the largest share is at most 4/3 of the best possible one). No process is left out while another has two.
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [(0.0, 0, process) for process in range(processes)]
    for position in sorted(range(len(costs)), key=lambda position: -costs[position]):
        load, count, process = heapq.heappop(loads)
        shares[process].append(position)
        heapq.heappush(loads, (load + costs[position], count + 1, process))
    return [sorted(share) for share in shares]


def global_batches(
    examples: ExampleLengths, size: int, processes: int, hidden_size: int
) -> Iterator[list[list[int]]]:
    """Yield, for each global batch in order, the example indices that each process reads.

    Each example is assigned once. Of the last batch a process may get nothing but SPARE.

    Args:
        examples: The examples' lengths, in the order of the epoch.
        size: The examples of a process in a batch; a global batch has `size * processes`.
        processes: The number of processes.
        hidden_size: The language model's, for the cost of an example (`packing.pack_rows`).
    """
    images = processes > 1 and any(examples.has_image(index) for index in range(len(examples)))
    for start in range(0, len(examples), size * processes):
        batch = range(start, min(start + size * processes, len(examples)))
        if processes == 1:
            yield [list(batch)]
            continue
        costs = [sum(attention_cost(length, hidden_size) for length in examples.lengths(i)) for i in batch]
        shares = [[batch[position] for position in share] for share in assign_to_processes(costs, processes)]
        for share in shares:
            if not share or (images and not any(examples.has_image(index) for index in share)):
                share.append(SPARE)
        yield shares


class BalancedBatches(Sampler[list[int]]):
    """Yields the batches of an epoch: those of one global batch after the other, process 0's first.

    accelerate gives process p the batches p, p + processes, ...; there are as many for each.
    """

    batch_size = (
        None  # of varying size: without it accelerate would fill short batches with repeated examples
    )
    drop_last = False

    def __init__(self, examples: ExampleLengths, size: int, processes: int, hidden_size: int) -> None:
        self.examples = examples
        self.size = size
        self.processes = processes
        self.hidden_size = hidden_size

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / (self.size * self.processes)) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for shares in global_batches(self.examples, self.size, self.processes, self.hidden_size):
            yield from shares


def train_loader(examples: Any, collate: Any, arguments: Any) -> DataLoader:
    """Load the batches of all processes, for accelerate to choose from; `collate` is a dataset.Collator."""
    return DataLoader(
        examples,
        batch_sampler=BalancedBatches(
            examples, arguments.per_device_train_batch_size, arguments.world_size, collate.hidden_size
        ),
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
    )
