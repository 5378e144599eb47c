"""Keys and values of prompts that were read before, kept for requests that begin alike.

A segment reaches from the end of another (or the beginning of the prompt) to the end of an image, or, for
conversations that go on, to the end of an answer:

    [system, image 1] --- [" What is it?", answer] --- [" And where?", answer]
            |
            +------------ ["\\n", image 2]

So the columns of an image are kept once, whatever follows it. The least recently used segment that nothing
follows is dropped first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llava.inference.kv_cache import States
from llava.inference.memory import free_bytes

STORE_SHARE = 0.2
"""How much of the memory that is free the store may take besides what it has."""

Keys = NDArray[np.int64]


@dataclass(eq=False)
class _Segment:
    """The columns that follow those of `parent`; `images` and `texts` are the segments that follow it."""

    keys: Keys
    states: States
    parent: _Segment | None
    images: dict[bytes, _Segment] = field(default_factory=dict)
    """Those that end with an image, by their keys."""
    texts: list[_Segment] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.states)


class PrefixStore:
    """Keeps prefixes by what they hold, at most `max_bytes` of them and what the free memory allows."""

    def __init__(self, device: torch.device, max_bytes: int | None = None) -> None:
        """Start empty.

        Args:
            device: The model's, whose free memory bounds the store.
            max_bytes: The most that is kept; None for what the free memory allows.
        """
        self.bytes = 0
        self._device = device
        self._max_bytes = max_bytes
        self._clear()

    def _clear(self) -> None:
        self._root = _Segment(np.empty(0, np.int64), [], None)
        self._segments: OrderedDict[_Segment, None] = OrderedDict()  # a segment always before its parent
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self._segments)

    def clear(self) -> bool:
        """Drop everything; returns whether there was anything."""
        had_any = bool(self._segments)
        self._clear()
        return had_any

    def match(self, keys: Keys, image_ends: Sequence[int]) -> int:
        """Return how many of a prompt's first columns are kept.

        Args:
            keys: The prompt's, as `Branch.prompt_keys`.
            image_ends: How many of them reach to the end of each image.
        """
        return sum(used for _, used in self._find(keys, image_ends))

    def load(self, keys: Keys, image_ends: Sequence[int]) -> tuple[int, States]:
        """Return how many of a prompt's columns are kept, and their states; arguments as for `match`."""
        found = self._find(keys, image_ends)
        self._touch(found[-1][0] if found else self._root)
        parts = [[(k[:, :used], v[:, :used]) for k, v in segment.states] for segment, used in found]
        states = [
            (_join([keys for keys, _ in layer]), _join([values for _, values in layer]))
            for layer in zip(*parts, strict=True)
        ]
        return sum(used for _, used in found), states

    def add(self, keys: Keys, image_ends: Sequence[int], states: Callable[[int, int], States]) -> None:
        """Keep the columns of a prompt that are not kept yet.

        Args:
            keys: Of the columns to keep.
            image_ends: As for `match`.
            states: Returns a copy of the states from one position up to another.
        """
        parent, start = self._root, 0
        for segment, used in self._find(keys, image_ends):
            if used == len(segment.keys):
                parent, start = segment, start + used
        for end in sorted({*image_ends, len(keys)}):
            if end <= start:
                continue
            segment = _Segment(keys[start:end].copy(), states(start, end), parent)
            if not self._make_room(segment.bytes, beside=parent):
                break
            if end in image_ends:
                parent.images[segment.keys.tobytes()] = segment
            else:
                parent.texts.append(segment)
            self._segments[segment] = None
            self.bytes += segment.bytes
            parent, start = segment, end
        self._touch(parent)

    def _find(self, keys: Keys, image_ends: Sequence[int]) -> list[tuple[_Segment, int]]:
        """Return the segments that a prompt begins with, and how many columns of each it has.

        All but the last are there whole. An image is there whole or not at all.
        """
        found: list[tuple[_Segment, int]] = []
        segment, start = self._root, 0
        while start < len(keys):
            image_end = next((end for end in image_ends if end > start), start)
            following = segment.images.get(keys[start:image_end].tobytes())
            used = image_end - start
            if following is None:
                if segment is self._root and image_ends:
                    break  # before the first image is only text, not worth a reading apart from others
                lengths = [_same(text.keys, keys[start:]) for text in segment.texts]
                used = max(lengths, default=0)
                if not used:
                    break
                following = segment.texts[lengths.index(used)]
            found.append((following, used))
            if used < len(following.keys):
                break
            segment, start = following, start + used
        return found

    def _touch(self, segment: _Segment) -> None:
        """Note that a segment and those before it were used last."""
        while segment.parent is not None:
            self._segments.move_to_end(segment)
            segment = segment.parent

    def _make_room(self, needed: int, beside: _Segment) -> bool:
        """Drop old segments until `needed` bytes may be taken; false where they may not, however many go.

        Those that lead to `beside` are kept.
        """
        self._touch(beside)
        limit = self.bytes + STORE_SHARE * free_bytes(self._device)
        if self._max_bytes is not None:
            limit = min(limit, self._max_bytes)
        while self.bytes + needed > limit:
            oldest = next(iter(self._segments), None)
            if oldest is None or oldest is beside:
                return False
            self._drop(oldest)
        return True

    def _drop(self, segment: _Segment) -> None:
        assert segment.parent is not None
        if segment in segment.parent.texts:
            segment.parent.texts.remove(segment)
        else:
            segment.parent.images.pop(segment.keys.tobytes(), None)
        del self._segments[segment]
        self.bytes -= segment.bytes


def _same(first: Keys, second: Keys) -> int:
    """Return how many of the first keys are equal."""
    count = min(len(first), len(second))
    different = np.flatnonzero(first[:count] != second[:count])
    return int(different[0]) if len(different) else count


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
