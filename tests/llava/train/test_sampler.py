"""What each process reads: everything once, groups whole, costs balanced, nobody idle."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from hypothesis import given
from hypothesis import strategies as st

from llava.train.config import AugmentSettings
from llava.train.data.packing import IGNORE, attention_cost
from llava.train.data.sampler import SPARE, BalancedBatches, assign_to_processes, global_batches
from llava.train.dataset import TrainingSet
from tests.support.record_sets import read_records
from tests.support.train_data import ask, many, write_data

HIDDEN = 64


class Units:
    """Items of so many tokens each (0: a short text without a picture)."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def lengths(self, index: int) -> list[int]:
        return [self.tokens[index] or 5]

    def has_image(self, index: int) -> bool:
        return self.tokens[index] > 0


costs = st.lists(st.integers(1, 1000), max_size=30)
units = st.lists(st.integers(0, 2000), min_size=1, max_size=40).map(Units)


@given(costs, st.integers(1, 6))
def test_all_is_dealt_once_and_fairly(given_costs: list[int], processes: int) -> None:
    shares = assign_to_processes(given_costs, processes)
    assert sorted(chain(*shares)) == list(range(len(given_costs)))
    assert all(share == sorted(share) for share in shares) and len(shares) == processes
    loads = [sum(given_costs[position] for position in share) for share in shares]
    # Graham 1969: no worse than 4/3 of a bound that no deal can beat.
    bound = max([sum(given_costs) / processes, *given_costs]) if given_costs else 0
    assert max(loads) <= 4 / 3 * bound + max(given_costs, default=0) / 3
    if min(map(len, shares)) == 0:
        assert max(map(len, shares)) <= 1


@given(units, st.integers(1, 5), st.integers(1, 4))
def test_each_process_has_as_many_batches_and_reads_its_own(items: Units, size: int, processes: int) -> None:
    batches = BalancedBatches(items, size, processes, HIDDEN)
    assert len(list(batches)) == len(batches)
    shards = [list(BatchSamplerShard(batches, processes, process)) for process in range(processes)]
    assert len({len(shard) for shard in shards}) == 1
    read_items = [index for shard in shards for batch in shard for index in batch if index != SPARE]
    assert sorted(read_items) == list(range(len(items)))
    images = any(items.tokens)
    for number, together in enumerate(zip(*shards, strict=True)):
        expected = range(number * size * processes, min((number + 1) * size * processes, len(items)))
        assert sorted(index for index in chain(*together) if index != SPARE) == list(expected)
        for batch in together:
            assert batch and batch.count(SPARE) <= 1
            if processes > 1 and images:
                assert SPARE in batch or any(map(items.has_image, batch))


@given(units, st.integers(1, 5))
def test_one_process_reads_on_in_order(items: Units, size: int) -> None:
    expected = torch.utils.data.BatchSampler(range(len(items)), size, drop_last=False)
    assert list(BalancedBatches(items, size, 1, HIDDEN)) == list(expected)


@given(units, st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_resuming_skips_what_was_read(items: Units, size: int, processes: int, done: int) -> None:
    for process in range(processes):
        shard = BatchSamplerShard(BalancedBatches(items, size, processes, HIDDEN), processes, process)
        skipped = min(done, len(shard))
        assert list(SkipBatchSampler(shard, skipped)) == list(shard)[skipped:]


def test_a_long_item_is_balanced_by_many_short_ones() -> None:
    ((first, second),) = global_batches(Units([400, 100, 100, 100, 100, 100]), 3, 2, HIDDEN)
    assert attention_cost(400, HIDDEN) > 4 * attention_cost(100, HIDDEN)
    assert first == [0] and second == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("image", [True, False])
def test_a_spare_item_has_nothing_to_learn(tiny_model_dir: Path, tmp_path: Path, image: bool) -> None:
    texts = [ask("t", None, "Hi?", "Hello."), ask("u", None, "A longer text?", "Yes, it is.")]
    write_data(tmp_path, [*texts, *(many(2, 2) if image else [])])
    items = TrainingSet(
        read_records(tiny_model_dir, tmp_path),
        seed=0,
        questions_per_picture=None,
        augmentation=AugmentSettings(),
    )
    spare: Any = items[SPARE]
    ((record,),) = [group.records for group in spare.groups]
    assert (record.labels == IGNORE).all() and bool(spare.pixels) == image
    assert any((s.labels != IGNORE).any() for g in items[0].groups for s in g.records)  # left as they were


def test_costs_are_those_of_the_questions_drawn(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(3, 6))
    items = TrainingSet(
        read_records(tiny_model_dir, tmp_path),
        seed=0,
        questions_per_picture=2,
        augmentation=AugmentSettings(),
    )
    for index in range(len(items)):
        assert items.lengths(index) == [group.length for group in items[index].groups]
