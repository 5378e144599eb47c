"""Pictures as the vision towers of LLaVA's families take them, and how many tokens each takes.

    family            a picture becomes                              tokens (336 or 384 pixels, patch 14)
    LLaVA-1.5         one square, padded with the mean colour        576
    LLaVA-1.6         the whole, squeezed into one square, and       576 + the tiles' rows without padding,
                      its tiles ("anyres"), padded with black        a newline token behind each: up to 2,928
    LLaVA-OneVision   the same, at most anyres_max_9 tiles' worth;   729 + at most about 8,000
                      of several pictures in one conversation each
                      is one padded square and a newline token       730

The number of tokens follows from the picture's size alone, so a text is encoded before any picture is
decoded. Nothing here needs torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from llava.common.errors import InputError

Size = tuple[int, int]
"""The (height, width) of a picture in pixels."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """A picture made ready for the vision tower: `patches` is (P, 3, H, W) float32, `size` its source's,
    `alone` whether it is the only one of its conversation (to OneVision that is a difference)."""

    patches: torch.Tensor
    size: Size
    alone: bool = True


ImageInput = Image.Image | Pixels


def image_size(image: ImageInput) -> Size:
    return image.size if isinstance(image, Pixels) else (image.height, image.width)


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """`image` centred on a square of `colour`, its side the longer of the two (LLaVA's expand2square)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class SquareProcessor:
    """Pictures as padded squares, by the values of a Hugging Face image processor.

    `size` is the (height, width) in pixels, `mean_colour` the RGB colour of the padding.
    """

    def __init__(self, image_processor: Any) -> None:
        self.size = _height_width(image_processor)
        red, green, blue = (int(x * 255) for x in image_processor.image_mean)
        self.mean_colour = (red, green, blue)
        self._resample = Image.Resampling(int(image_processor.resample))
        mean, std = (np.array(v, np.float32) for v in (image_processor.image_mean, image_processor.image_std))
        # Rescaling and normalising look at one byte at a time, so a table of 256 values per channel is
        # exact and quicker; the roundings are those of transformers' rescale and normalize.
        grey = (np.arange(256, dtype=np.float64) * image_processor.rescale_factor).astype(np.float32)
        self._levels = np.ascontiguousarray(((grey[:, None] - mean) / std).T)  # (3, 256)

    def square(self, image: Image.Image) -> Image.Image:
        """An RGB image padded to a square and resized to the model's size."""
        height, width = self.size
        return pad_to_square(image, self.mean_colour).resize((width, height), self._resample)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """An RGB image as float32 (3, H, W): padded to a square, resized, normalised."""
        small = np.asarray(self.square(image))  # (H, W, 3) bytes
        return torch.from_numpy(np.stack([self._levels[c][small[..., c]] for c in range(3)]))


class VisionProcessor:
    """The pictures of LLaVA-1.5, and what every family's have: see the module's docstring.

    `by_size` says whether a picture's tokens depend on its size.
    """

    by_size = False

    def __init__(self, config: Any, image_processor: Any) -> None:
        """`config` is the model's; InputError where the image processor makes other pixels than it takes."""
        vision = config.vision_config
        self.squares = SquareProcessor(image_processor)
        self.grid = vision.image_size // vision.patch_size  # patches along a side
        self.tokens_each = self.grid**2 + (config.vision_feature_select_strategy == "full")
        if self.squares.size != (vision.image_size, vision.image_size):
            raise InputError(
                f"the image processor makes {self.squares.size} pixels, "
                f"the model takes {(vision.image_size, vision.image_size)}"
            )

    def tokens(self, sizes: Sequence[Size]) -> list[int]:
        """How many tokens each of a conversation's pictures takes."""
        return [self.tokens_each] * len(sizes)

    def canvas(self, image: Image.Image) -> Image.Image:
        """The RGB image in the form that is kept and augmented; `pixels` of it are those of the image."""
        return self.squares.square(image)

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        """An RGB image made ready; `alone` is whether it is the only picture of its conversation."""
        return Pixels(self.squares(image)[None], image_size(image), alone)

    def inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        """The model's inputs for pictures in the order of their tokens; empty without any."""
        if not images:
            return {}
        return {"pixel_values": torch.cat([image.patches for image in images])}


class AnyresVisionProcessor(VisionProcessor):
    """The pictures of LLaVA-1.6 and, where `config` is its, of OneVision."""

    by_size = True

    def __init__(self, config: Any, image_processor: Any) -> None:
        super().__init__(config, image_processor)
        self.tokens_each = self.grid**2 + 1  # of one that is no anyres: its patches and a newline
        self._prepare = image_processor
        self._side = config.vision_config.image_size
        self._pinpoints = [[int(edge) for edge in shape] for shape in config.image_grid_pinpoints]
        self._onevision = config.model_type == "llava_onevision"
        # anyres_max_9: tiles beyond so many patches' worth are scaled down
        self._most = int(config.vision_aspect_ratio.removeprefix("anyres_max_")) if self._onevision else None
        if [list(shape) for shape in image_processor.image_grid_pinpoints] != self._pinpoints:
            raise InputError("the image processor and the model have different image_grid_pinpoints")
        strategy = "default" if config.vision_config.model_type == "clip_vision_model" else "full"
        if config.vision_feature_select_strategy != strategy:
            raise InputError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; anyres with a "
                f"{config.vision_config.model_type} needs {strategy!r}"
            )

    def tokens(self, sizes: Sequence[Size]) -> list[int]:
        if self._onevision and len(sizes) > 1:
            return [self.tokens_each] * len(sizes)
        return [self._anyres_tokens(size) for size in sizes]

    def _anyres_tokens(self, size: Size) -> int:
        """The features that transformers' `pack_image_features` makes of a picture, counted without them."""
        rows, columns = get_anyres_image_grid_shape(size, self._pinpoints, self._side)
        tiles = torch.empty(1, rows * self.grid, columns * self.grid, device="meta")
        _, height, width = unpad_image(tiles, size).shape
        if self._most is not None:
            ratio = math.sqrt(height * width / (self._most * self.grid**2))
            if ratio > 1.1:
                height, width = int(height // ratio), int(width // ratio)
        return self.grid**2 + height * (width + 1)

    def canvas(self, image: Image.Image) -> Image.Image:
        return image

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        if self._onevision and not alone:
            return super().pixels(image, alone=False)
        made = self._prepare(images=image, return_tensors="pt")["pixel_values"]
        return Pixels(made[0], image_size(image), alone)

    def inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        given = super().inputs(images)
        if not images:
            return given
        # Lists: the model reads them number by number, and each read of a GPU's tensor would wait for it.
        given["image_sizes"] = [image.size for image in images]
        if self._onevision:
            given["batch_num_images"] = _conversations([image.alone for image in images])
        return given


def _conversations(alone: Sequence[bool]) -> list[int]:
    """How many pictures the conversations have, for OneVision, which only asks whether that is 1.

    Neighbours of several conversations count as one. Of a conversation whose other pictures are in the cache
    already a single one may be left, as the last: 2 is said of it too (transformers takes what it needs).
    """
    counts: list[int] = []
    for is_alone, run in groupby(alone):
        length = sum(1 for _ in run)
        counts += [1] * length if is_alone else [max(length, 2)]
    return counts


def vision_processor_for(config: Any, image_processor: Any) -> VisionProcessor:
    """The pictures of the model that `config` describes; InputError if the image processor is not its own."""
    family = VisionProcessor if config.model_type == "llava" else AnyresVisionProcessor
    if family is AnyresVisionProcessor and not hasattr(image_processor, "image_grid_pinpoints"):
        raise InputError(
            f"the model is a {config.model_type} but the image processor knows no image_grid_pinpoints; "
            "take preprocessor_config.json from the model it is made of"
        )
    return family(config, image_processor)


def _height_width(image_processor: Any) -> tuple[int, int]:
    """The (height, width) in pixels that the image processor hands to the model."""
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    values: Mapping[str, int] = dict(size)
    if values.get("height") and values.get("width"):
        return int(values["height"]), int(values["width"])
    edge = values.get("shortest_edge")
    if not edge:
        raise InputError(f"the image processor has no usable size: {values}")
    return int(edge), int(edge)
