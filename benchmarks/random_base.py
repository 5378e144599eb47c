"""A base model that is no file: random weights of a given shape, made tensor by tensor as they are loaded.

Whoever loads it goes the way of a real model's weights: names, casts, quantisation, devices. The tokenizer is
the embedded model's. Equal names and shapes get equal weights, on every kind of device that makes them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from llava.common.files import read_json
from llava.common.shipped import EMBEDDED_MODEL, shipped_root
from llava.model.builder import empty_model
from llava.model.known_shapes import SHAPES, KnownShape
from llava.model.shards import StoredTensor

STORED = torch.bfloat16
"""The weights are numbers of this type, so that both float32 and bfloat16 hold them exactly."""


@dataclass(frozen=True, eq=False)
class RandomBase(KnownShape):
    """A model of random weights, of standard deviation `spread`, that the device `maker` draws."""

    spread: float = 0.02
    maker: str = "cpu"

    def open_tensors(self) -> dict[str, StoredTensor]:
        """Return a tensor of each name and shape that the config asks for."""
        expected = empty_model(self.config).state_dict()
        return {
            name: StoredTensor(tuple(tensor.shape), STORED, partial(self._draw, name, tuple(tensor.shape)))
            for name, tensor in expected.items()
        }

    @property
    def fingerprint(self) -> str:  # type: ignore[override]  # there are no files to hash
        return f"random {self.name} {self.spread}"

    def _draw(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1:  # a normalisation's weight, or a bias
            return torch.full(shape, float(name.endswith("weight")), dtype=STORED, device=self.maker)
        generator = torch.Generator(self.maker).manual_seed(zlib.crc32(name.encode()))
        drawn = torch.empty(shape, dtype=STORED, device=self.maker)
        return drawn.normal_(0, self.spread, generator=generator)


def random_base(name: str, settings: dict[str, Any] | None = None, **options: Any) -> RandomBase:
    """Make the base of a published model's shape, by its name, or of the config.json `settings`."""
    embedded = shipped_root() / EMBEDDED_MODEL
    image_token = read_json(embedded / "config.json")["image_token_index"]
    shape = (settings or SHAPES[name]) | {"image_token_index": image_token}
    return RandomBase(embedded, name, "hf", shape, **options)
