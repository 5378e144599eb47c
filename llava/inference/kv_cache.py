"""The KV cache of pictures whose questions are branches.

A row is a picture, and its questions lie one behind the other in the same row:

    column   0 ...... 575 | 576 ...                          | then a token of each branch at a time
    holds    prefix       | question 1 question 2  last last | answers
    owner    0 0 0 0 ... 0| 1 1 1 1 1  2 2 2 2 -1  1    2    | 1 2  1 2  1 2  ...

A token of branch b sees the columns of its picture (owner 0) and its own (owner b) up to itself, and nothing
else, so that it computes what it would in a row of its own; its position counts only what it sees. The
picture's keys and values are held, and read at each step, once for all of its questions. -1 is padding. It is
what training's packing does (train/packing.py), token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

PADDING = -1
PREFIX = 0


class GrowingLayer(DynamicLayer):
    """The keys and values of a layer, (rows, heads, columns, head dim). New ones are written into spare room
    behind the others, where DynamicLayer copies all that it holds at every token."""

    def __init__(self) -> None:
        super().__init__()
        self._room: list[Tensor] = []  # what `keys` and `values` are the first columns of

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns (rows, heads, new, head dim); all there are now."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        columns = held + key_states.shape[-2]
        if not self._room or columns > self._room[0].shape[-2]:
            spare = max(64, columns // 4)
            rooms = []
            for old, new in ((self.keys, key_states), (self.values, value_states)):
                rooms.append(new.new_empty(*new.shape[:-2], columns + spare, new.shape[-1]))
                if held and old is not None:
                    rooms[-1][..., :held, :] = old
            self._room = rooms
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., held:columns, :] = new
        self.keys, self.values = (room[..., :columns, :] for room in self._room)
        return self.keys, self.values

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Hold these instead."""
        self.keys, self.values, self._room = keys, values, []


def new_cache() -> Cache:
    """An empty cache that keeps every column (with the model's config it would drop old ones where attention
    has a sliding window, and could not be cut back)."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def crop_cache(cache: Cache, columns: int) -> None:
    """Keep the first `columns` of the cache, also where an interrupt left its layers uneven."""
    for layer in _layers(cache):
        if layer.keys is not None and layer.values is not None:
            layer.keys = layer.keys[..., :columns, :]
            layer.values = layer.values[..., :columns, :]


class BranchedKVCache:
    """`cache` holds `owner.shape` (rows, columns); see the module's docstring. Owners are int64."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.cache = new_cache()
        self.owner = torch.empty(rows, 0, dtype=torch.long, device=device)

    def sees(self, branch: Tensor, parent: Tensor | None = None) -> Tensor:
        """What tokens that are about to be read see: their branches (rows, new) -> bool (rows, 1, new,
        columns + new). `parent` (rows, new), where given, is another branch that each sees too."""
        owner = torch.cat([self.owner, branch], dim=1)[:, None]
        seen = (owner == PREFIX) | (owner == branch[..., None])
        if parent is not None:
            seen |= owner == parent[..., None]
        new = branch.shape[1]
        seen[..., -new:] &= torch.ones(new, new, dtype=torch.bool, device=seen.device).tril()
        return seen[:, None]

    def append(self, branch: Tensor) -> None:
        """Note that columns of the branches (rows, new) have been read into the cache."""
        self.owner = torch.cat([self.owner, branch], dim=1)

    def keep(self, rows: list[int], branches: list[list[int]]) -> None:
        """Keep only `rows`, in this order, and of each its prefix and these of its branches."""
        index = torch.tensor(rows, device=self.owner.device)
        owner = self.owner[index]
        most = max(map(len, branches))
        wanted = torch.tensor([kept + [PREFIX] * (most - len(kept)) for kept in branches])
        alive = (owner[:, :, None] == wanted.to(owner.device)[:, None]).any(dim=2) | (owner == PREFIX)
        columns = int(alive.sum(dim=1).max())
        order = (~alive).long().argsort(dim=1, stable=True)[:, :columns]
        self.owner = owner.gather(1, order).masked_fill(~alive.gather(1, order), PADDING)
        for layer in _layers(self.cache):
            at = order.to(layer.device)
            chosen = index.to(layer.device)[:, None]
            layer.put(*(part[chosen, :, at].transpose(1, 2) for part in _held(layer)))

    def join(self, other: BranchedKVCache) -> None:
        """Add the rows of `other` behind these."""
        columns = max(self.owner.shape[1], other.owner.shape[1])
        self.owner = torch.cat([_widened(part.owner, columns, 1, PADDING) for part in (self, other)])
        for mine, theirs in zip(_layers(self.cache), _layers(other.cache), strict=True):
            pairs = zip(_held(mine), _held(theirs), strict=True)
            mine.put(*(torch.cat([_widened(part, columns, 2) for part in pair]) for pair in pairs))

    def cut(self, columns: int) -> None:
        """Forget what was read behind the first `columns`."""
        self.owner = self.owner[:, :columns]
        crop_cache(self.cache, columns)


def _layers(cache: Cache) -> list[GrowingLayer]:
    return [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]


def _held(layer: GrowingLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values


def _widened(values: Tensor, columns: int, dim: int, filling: int = 0) -> Tensor:
    """`values` with `filling` behind, up to `columns` along `dim`."""
    shape = list(values.shape)
    shape[dim] = columns - shape[dim]
    return torch.cat([values, values.new_full(shape, filling)], dim=dim) if shape[dim] else values
