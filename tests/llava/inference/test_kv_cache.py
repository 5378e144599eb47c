"""The branched KV cache: its mask, and what is kept, added and cropped; grouped attention against plain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Module
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llava.inference.attention import sdpa_grouped
from llava.inference.kv_cache import BranchedKVCache, GrowingLayer, crop_cache, new_cache

LAYERS, HEADS, DIM = 2, 3, 4


def append(cache: BranchedKVCache, owners: list[list[int]], start: int = 0) -> None:
    """Append columns whose keys are their own numbers from `start`, so that they can be told apart."""
    branch = torch.tensor(owners)
    columns = torch.arange(start, start + branch.shape[1], dtype=torch.float32)
    states = columns[None, None, :, None].expand(len(owners), HEADS, -1, DIM)
    for layer in range(LAYERS):
        cache.past_key_values.update(states + 100 * layer, -states, layer)
    cache.append(branch)


def held(cache: BranchedKVCache, row: int) -> list[tuple[int, int]]:
    """(owner, number) of the columns of a row that are not padding, in order, the same in all layers."""
    found = []
    for index, layer in enumerate(cache.past_key_values.layers):
        assert isinstance(layer, GrowingLayer) and layer.keys is not None and layer.values is not None
        assert layer.keys.shape[-2] == cache.owners.shape[1]
        keys = layer.keys[row, 0, :, 0] - 100 * index
        assert torch.equal(layer.keys[row, 0] - 100 * index, keys[:, None].expand(-1, DIM))
        pairs = list(zip(cache.owners[row].tolist(), keys.int().tolist(), strict=True))
        kept = [pair for pair in pairs if pair[0] >= 0]
        values = [-int(v) for v, pair in zip(layer.values[row, 0, :, 0], pairs, strict=True) if pair[0] >= 0]
        assert values == [number for _, number in kept]
        found.append(kept)
    assert all(pairs == found[0] for pairs in found)
    return found[0]


def test_a_branch_attends_to_its_image_and_itself() -> None:
    cache = BranchedKVCache(1, torch.device("cpu"))
    append(cache, [[0, 0, 1, 2, 2, -1]])
    mask = cache.attention_mask(torch.tensor([[1, 2, 2]]))
    assert mask.shape == (1, 1, 3, 9)
    assert mask[0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 1, 0],
        [1, 1, 0, 1, 1, 0, 0, 1, 1],
    ]
    # a choice attends to the question that it answers too
    mask = cache.attention_mask(torch.tensor([[3, 3]]), torch.tensor([[2, 2]]))
    assert mask[0, 0].int().tolist() == [[1, 1, 0, 1, 1, 0, 1, 0], [1, 1, 0, 1, 1, 0, 1, 1]]


OWNERS = st.integers(1, 3).flatmap(
    lambda rows: st.lists(
        st.lists(st.integers(-1, 3), min_size=rows, max_size=rows), min_size=1, max_size=12
    ).map(lambda columns: [list(row) for row in zip(*columns, strict=True)])
)


@settings(max_examples=60)
@given(owners=OWNERS, other=OWNERS, data=st.data())
def test_what_is_kept_and_extended_stays_what_it_was(
    owners: list[list[int]], other: list[list[int]], data: st.DataObject
) -> None:
    cache = BranchedKVCache(len(owners), torch.device("cpu"))
    append(cache, [row[:1] for row in owners])
    if len(owners[0]) > 1:
        append(cache, [row[1:] for row in owners], start=1)
    rows = data.draw(st.lists(st.integers(0, len(owners) - 1), min_size=1, max_size=3, unique=True))
    wanted = [data.draw(st.lists(st.integers(1, 3), min_size=1, unique=True)) for _ in rows]
    cache.keep(rows, wanted)
    expected = [
        [(owner, column) for column, owner in enumerate(owners[row]) if owner in (0, *kept)]
        for row, kept in zip(rows, wanted, strict=True)
    ]
    assert [held(cache, row) for row in range(len(rows))] == expected
    assert cache.owners.shape[1] == max(map(len, expected))

    second = BranchedKVCache(len(other), torch.device("cpu"))
    append(second, other)
    cache.extend(second)
    expected += [[(owner, column) for column, owner in enumerate(row) if owner >= 0] for row in other]
    assert [held(cache, row) for row in range(len(expected))] == expected

    columns = cache.owners.shape[1]
    append(cache, [[1, 2]] * len(expected), start=50)
    cache.crop(columns + 1)
    assert [held(cache, row) for row in range(len(expected))] == [[*row, (1, 50)] for row in expected]


@settings(max_examples=60)
@given(owners=OWNERS, other=OWNERS, data=st.data())
def test_rows_are_placed_and_grafted_where_they_are(
    owners: list[list[int]], other: list[list[int]], data: st.DataObject
) -> None:
    cache, second = (BranchedKVCache(len(rows), torch.device("cpu")) for rows in (owners, other))
    append(cache, owners)
    append(second, other, start=50)
    expected = [held(cache, row) for row in range(len(owners))]
    row, other_row = data.draw(st.integers(0, len(owners) - 1)), data.draw(st.integers(0, len(other) - 1))
    theirs = held(second, other_row)
    if data.draw(st.booleans()):
        cache.place(row, second, other_row)
        expected[row] = theirs
    else:
        cache.graft(row, second, other_row, cache.owners.shape[1])
        expected[row] += [(owner, number) for owner, number in theirs if owner > 0]
    assert [held(cache, number) for number in range(len(owners))] == expected
    for owner in (0, 1, 2):
        sequence = [number for branch, number in expected[row] if branch in (0, owner)]
        assert cache.length(row, owner) == len(sequence)
        for layer, (keys, values) in enumerate(cache.states(row, owner, 1, 4)):
            assert (keys[0, :, 0] - 100 * layer).tolist() == sequence[1:4]
            assert (-values[0, :, 0]).tolist() == sequence[1:4]


@settings(max_examples=40)
@given(steps=st.lists(st.integers(1, 90) | st.integers(-5, -1), min_size=1, max_size=8))
def test_a_growing_layer_holds_what_a_dynamic_one_does(steps: list[int]) -> None:
    """Negative steps crop as many columns."""
    growing, plain = new_cache(), DynamicLayer()
    generator = torch.Generator().manual_seed(0)
    for step in steps:
        if step < 0:
            left = max(0, growing.get_seq_length() + step)
            crop_cache(growing, left)
            if plain.keys is not None and plain.values is not None:
                plain.keys, plain.values = plain.keys[..., :left, :], plain.values[..., :left, :]
            continue
        keys, values = torch.randn(2, 1, HEADS, step, DIM, generator=generator)
        new, expected = growing.update(keys, values, 0), plain.update(keys, values)
        assert torch.equal(new[0], expected[0]) and torch.equal(new[1], expected[1])
    assert growing.get_seq_length() == plain.get_seq_length()


def test_a_growing_layer_copies_seldom() -> None:
    cache, rooms = new_cache(), set()
    for _ in range(300):
        keys, _ = cache.update(torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8), 0)
        rooms.add(keys.untyped_storage().data_ptr())
    assert len(rooms) <= 6


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4), (7, 1)])
@pytest.mark.parametrize("new", [1, 5])
def test_grouped_attention_is_that_of_transformers(heads: int, shared: int, new: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(heads + new)
    query = torch.randn(2, new, heads, 8, generator=generator, dtype=torch.float64).transpose(1, 2)
    columns = 9 if masked else new
    key, value = torch.randn(2, 2, shared, columns, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, new, columns, generator=generator) < 0.5
    mask[..., 0] = True
    module = Module()
    module.num_key_value_groups = heads // shared
    given_mask = mask if masked else None
    output, _ = sdpa_grouped(module, query, key, value, given_mask, scaling=0.3)
    expected, _ = sdpa_attention_forward(module, query, key, value, given_mask, scaling=0.3)
    torch.testing.assert_close(output, expected)
