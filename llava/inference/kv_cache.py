"""The KV cache of images whose questions are branches.

A row holds one image, and all its questions lie one after another in that row:

    column   0 ...... 575 | 576 ...                          | then one token of each branch per step
    holds    prefix       | question 1 question 2  last last | answers
    owner    0 0 0 0 ... 0| 1 1 1 1 1  2 2 2 2 -1  1    2    | 1 2  1 2  1 2  ...

A token of branch b attends to the columns of its prefix (owner 0) and to those of its own branch (owner b) up
to itself, and to nothing else. So it computes what it would in a row of its own; its position counts only
what it attends to. The image's keys and values are stored once, and read once per step, for all of its
questions. Owner -1 is padding. Training packs rows the same way (train/packing.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

PADDING = -1
PREFIX = 0
States = list[tuple[Tensor, Tensor]]
"""The keys and values of some columns of one row, (heads, columns, head dim), layer by layer."""


class GrowingLayer(DynamicLayer):
    """A layer's keys and values, (rows, heads, columns, head dim), in buffers with spare columns.

    New columns are written into the spare ones, where DynamicLayer copies everything at each token.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []  # `keys` and `values` are views of their first columns

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns (rows, heads, new, head dim); returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cached = self.get_seq_length()
        columns = cached + key_states.shape[-2]
        if not self._buffers or columns > self._buffers[0].shape[-2]:
            spare = max(64, columns // 4)
            buffers = []
            for old, new in ((self.keys, key_states), (self.values, value_states)):
                buffers.append(new.new_empty(*new.shape[:-2], columns + spare, new.shape[-1]))
                if cached and old is not None:
                    buffers[-1][..., :cached, :] = old
            self._buffers = buffers
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., cached:columns, :] = new
        self.keys, self.values = (buffer[..., :columns, :] for buffer in self._buffers)
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Hold these keys and values instead."""
        self.keys, self.values, self._buffers = keys, values, []


def new_cache() -> Cache:
    """Return an empty cache that keeps every column.

    Made with the model's config it would drop old columns where attention has a sliding window, and could not
    be cropped.
    """
    return Cache(layer_class_to_replicate=GrowingLayer)


def crop_cache(cache: Cache, columns: int) -> None:
    """Keep the first `columns` of the cache, also where an interrupt left its layers with unequal lengths."""
    for layer in _layers(cache):
        if layer.keys is not None and layer.values is not None:
            layer.keys = layer.keys[..., :columns, :]
            layer.values = layer.values[..., :columns, :]


class BranchedKVCache:
    """A KV cache together with the owner of each column, as the module's docstring draws it.

    `past_key_values` is transformers' cache, which goes to the model; `owners` is (rows, columns) int64.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.past_key_values = new_cache()
        self.owners = torch.empty(rows, 0, dtype=torch.long, device=device)

    def attention_mask(self, owners: Tensor, parents: Tensor | None = None) -> Tensor:
        """Return what tokens that are about to be read attend to.

        Args:
            owners: (rows, new) the branch of each new token.
            parents: (rows, new) another branch that each new token attends to besides its own.

        Returns:
            bool (rows, 1, new, columns + new), True where the token attends to the column.
        """
        column_owners = torch.cat([self.owners, owners], dim=1)[:, None]
        mask = (column_owners == PREFIX) | (column_owners == owners[..., None])
        if parents is not None:
            mask |= column_owners == parents[..., None]
        new = owners.shape[1]
        mask[..., -new:] &= torch.ones(new, new, dtype=torch.bool, device=mask.device).tril()
        return mask[:, None]

    def append(self, owners: Tensor) -> None:
        """Record the owners (rows, new) of columns that the model has just written into the cache."""
        self.owners = torch.cat([self.owners, owners], dim=1)

    def keep(self, rows: list[int], branches: list[list[int]]) -> None:
        """Evict everything but the given rows, in this order, and each one's prefix and given branches.

        The kept columns are copied, those of a row close together.
        """
        index = torch.tensor(rows, device=self.owners.device)
        owners = self.owners[index]
        longest = max(map(len, branches))
        wanted = torch.tensor([kept + [PREFIX] * (longest - len(kept)) for kept in branches])
        keep = (owners[:, :, None] == wanted.to(owners.device)[:, None]).any(dim=2) | (owners == PREFIX)
        columns = int(keep.sum(dim=1).max())
        order = (~keep).long().argsort(dim=1, stable=True)[:, :columns]
        self.owners = owners.gather(1, order).masked_fill(~keep.gather(1, order), PADDING)
        for layer in _layers(self.past_key_values):
            layer_order = order.to(layer.device)
            layer_rows = index.to(layer.device)[:, None]
            layer.replace(
                *(states[layer_rows, :, layer_order].transpose(1, 2) for states in _keys_and_values(layer))
            )

    def extend(self, *others: BranchedKVCache) -> None:
        """Add the rows of the others after these."""
        parts = (self, *others)
        columns = max(part.owners.shape[1] for part in parts)
        owners = torch.cat([_pad(part.owners, columns, 1, PADDING) for part in parts])
        for layers in zip(*(_layers(part.past_key_values) for part in parts), strict=True):
            states = zip(*map(_keys_and_values, layers), strict=True)
            layers[0].replace(*(torch.cat([_pad(part, columns, 2) for part in parts]) for parts in states))
        self.owners = owners

    def place(self, row: int, other: BranchedKVCache, other_row: int) -> None:
        """Put a row of `other` in the place of a row here; the other rows are not copied for it."""
        self.owners[row] = PADDING
        self._write(row, 0, other, other_row, other.owners[other_row] != PADDING)

    def graft(self, row: int, other: BranchedKVCache, other_row: int, start: int) -> None:
        """Add the branches of a row of `other` to a row here that has the same prefix.

        Args:
            row: The row; it holds nothing from column `start` on.
            other: The cache that the branches come from.
            other_row: Their row there.
            start: Their first column here.
        """
        self._write(row, start, other, other_row, other.owners[other_row] > PREFIX)

    def _write(self, row: int, start: int, other: BranchedKVCache, other_row: int, wanted: Tensor) -> None:
        columns = wanted.nonzero().squeeze(1)
        end = start + len(columns)
        if (missing := end - self.owners.shape[1]) > 0:
            for layer in _layers(self.past_key_values):
                layer.update(*(_pad(states[:, :, :0], missing, 2) for states in _keys_and_values(layer)))
            self.append(torch.full_like(self.owners[:, :1], PADDING).expand(-1, missing))
        self.owners[row, start:end] = other.owners[other_row, columns]
        for ours, theirs in zip(_layers(self.past_key_values), _layers(other.past_key_values), strict=True):
            for target, source in zip(_keys_and_values(ours), _keys_and_values(theirs), strict=True):
                target[row, :, start:end] = source[other_row, :, columns.to(source.device)]

    @classmethod
    def of_prefix(cls, states: States, device: torch.device) -> BranchedKVCache:
        """Return a cache of one row, whose prefix has a copy of these states."""
        cache = cls(1, device)
        for index, (keys, values) in enumerate(states):
            cache.past_key_values.update(keys[None], values[None], index)
        columns = states[0][0].shape[1]
        cache.append(torch.full((1, columns), PREFIX, device=device))
        return cache

    def states(self, row: int, owner: int, start: int = 0, end: int | None = None) -> States:
        """Return a copy of what a row holds of its prefix and of one branch, as one sequence.

        Args:
            row: The row.
            owner: The branch; PREFIX for the prefix alone.
            start: The position of the sequence's first token that is wanted.
            end: That behind the last; None for all there are.
        """
        columns = self._columns(row, owner)[start:end]
        return [
            (keys[row, :, columns.to(keys.device)], values[row, :, columns.to(keys.device)])
            for keys, values in map(_keys_and_values, _layers(self.past_key_values))
        ]

    def length(self, row: int, owner: int) -> int:
        """Return how many tokens a row holds of its prefix and of one branch."""
        return len(self._columns(row, owner))

    def _columns(self, row: int, owner: int) -> Tensor:
        owners = self.owners[row]
        return ((owners == PREFIX) | (owners == owner)).nonzero().squeeze(1)

    def crop(self, columns: int) -> None:
        """Keep the first `columns`."""
        self.owners = self.owners[:, :columns]
        crop_cache(self.past_key_values, columns)


def _layers(cache: Cache) -> list[GrowingLayer]:
    return [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]


def _keys_and_values(layer: GrowingLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values


def _pad(values: Tensor, columns: int, dim: int, padding: int = 0) -> Tensor:
    """Append `padding` to `values` along `dim`, up to `columns`."""
    shape = list(values.shape)
    shape[dim] = columns - shape[dim]
    return torch.cat([values, values.new_full(shape, padding)], dim=dim) if shape[dim] else values
