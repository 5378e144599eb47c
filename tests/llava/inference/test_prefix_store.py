"""The prefix store gives back what was put in, for prompts that begin so, within its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.inference import prefix_store
from llava.inference.kv_cache import States
from llava.inference.prefix_store import PrefixStore

CPU = torch.device("cpu")
COLUMN_BYTES = 2 * 2 * 3 * 4  # two layers' keys and values, a head of three floats


def states_of(keys: list[int]) -> States:
    """Make states that tell the keys, and those before them, apart: each column is a sum of its beginning."""
    sums = torch.tensor(keys, dtype=torch.float32).cumsum(0)
    return [
        (layer + sums[None, :, None].expand(1, -1, 3), layer - sums[None, :, None].expand(1, -1, 3))
        for layer in (1, 2)
    ]


def add(store: PrefixStore, keys: list[int], ends: list[int]) -> None:
    whole = states_of(keys)
    store.add(
        np.array(keys, np.int64),
        ends,
        lambda start, end: [(k[:, start:end].clone(), v[:, start:end].clone()) for k, v in whole],
    )


def loaded(store: PrefixStore, keys: list[int], ends: list[int]) -> int:
    """Return how many columns are found, after a check that they are the right ones."""
    count, states = store.load(np.array(keys, np.int64), ends)
    assert count == store.match(np.array(keys, np.int64), ends)
    for found, expected in zip(states, states_of(keys[:count]) if count else [], strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    return count


IMAGES = {1: [-11, -12, -11], 2: [-21, -22, -21], 3: [-11, -22, -31]}
"""The third begins as the first does."""


def prompt(parts: list[int]) -> tuple[list[int], list[int]]:
    """Make keys and image ends; parts of 1 to 3 are images, others tokens."""
    keys: list[int] = []
    ends = []
    for part in parts:
        keys += IMAGES.get(part, [part])
        if part in IMAGES:
            ends.append(len(keys))
    return keys, ends


PROMPTS = st.lists(
    st.lists(st.sampled_from([1, 2, 3, 7, 8, 9]), min_size=1, max_size=9), min_size=1, max_size=12
)


@settings(max_examples=150)
@given(prompts=PROMPTS, columns=st.none() | st.integers(0, 40))
def test_only_the_same_beginning_is_given_back(prompts: list[list[int]], columns: int | None) -> None:
    """`columns` are as many as may be kept."""
    most = None if columns is None else columns * COLUMN_BYTES
    store = PrefixStore(CPU, most)
    for parts in prompts:
        keys, ends = prompt(parts)
        found = loaded(store, keys, ends)
        assert not any(end - 3 < found < end for end in ends)  # an image whole or not at all
        add(store, keys, ends)
        if most is None:
            assert loaded(store, keys, ends) == len(keys)
        else:
            assert store.bytes <= most
        assert store.bytes == sum(segment.bytes for segment in store._segments)
    assert store.clear() or most is not None
    assert store.bytes == len(store) == 0 == loaded(store, *prompt(prompts[0]))


def test_an_image_is_kept_once_whatever_follows_it() -> None:
    store = PrefixStore(CPU)
    for parts in ([7, 1, 8], [7, 1, 9], [7, 1, 8, 9], [7, 1, 2]):
        add(store, *prompt(parts))
    assert store.bytes == (4 + 1 + 1 + 1 + 3) * COLUMN_BYTES
    assert loaded(store, *prompt([7, 1, 8, 8])) == 5
    assert loaded(store, *prompt([7, 1, 2, 9])) == 7
    assert loaded(store, *prompt([7, 1, 3])) == 4
    assert loaded(store, *prompt([7, 3])) == 0


def test_what_was_used_last_stays() -> None:
    store = PrefixStore(CPU, 10 * COLUMN_BYTES)
    add(store, *prompt([1, 7]))
    add(store, *prompt([2, 7]))
    assert loaded(store, *prompt([1, 8])) == 3  # the image is used, the text behind it is not
    add(store, *prompt([3, 7, 7]))
    assert [loaded(store, *prompt([n, 7])) for n in (1, 2, 3)] == [3, 0, 4]


def test_free_memory_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_store, "free_bytes", lambda device: 25 * COLUMN_BYTES)
    store = PrefixStore(CPU)
    add(store, *prompt([1, 7, 7]))
    assert store.bytes == 5 * COLUMN_BYTES  # a fifth
    monkeypatch.setattr(prefix_store, "free_bytes", lambda device: 0)
    add(store, *prompt([2]))
    assert store.bytes <= 5 * COLUMN_BYTES and loaded(store, *prompt([2])) == 3
    assert loaded(store, *prompt([1])) == 0
