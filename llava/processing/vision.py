"""Turn images into the pixel values that each LLaVA family's vision tower takes, and count their tokens.

    family            an image becomes                               tokens (336 or 384 pixels, patch 14)
    LLaVA-1.5         one square, padded with the mean colour        576
    LLaVA-1.6         the whole image resized to one square, and     576 + the tiles' rows without padding,
                      its tiles ("anyres"), padded with black        a newline token after each: up to 2,928
    LLaVA-OneVision   the same, at most anyres_max_9 tiles' worth;   729 + at most about 8,000
                      with several images in one conversation,
                      each is one padded square and a newline token  730

The number of tokens follows from the image's size alone, so that a text can be encoded before any image is
decoded. Nothing here needs torchvision.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from llava.common.errors import InputError

Size = tuple[int, int]
"""The (height, width) of an image in pixels."""
_SIZES_KNOWN = 4096  # sizes of images whose numbers of tokens are remembered


@dataclass(frozen=True, eq=False)
class Pixels:
    """Holds the pixel values of one image, ready for the vision tower.

    `patches` is (P, 3, H, W) float32: one square, or the whole image and its tiles. `size` is the source
    image's. `alone` says whether it is the only image of its conversation, which matters to OneVision.
    """

    patches: torch.Tensor
    size: Size
    alone: bool = True

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 of all that the model reads of the image: equal only for equal pixel values.

        `alone` is not part of it: where it matters, the number of patches differs.
        """
        header = f"{tuple(self.patches.shape)} {self.size}\n"
        return hashlib.sha256(header.encode() + self.patches.cpu().contiguous().numpy().tobytes()).digest()


ImageInput = Image.Image | Pixels


def image_size(image: ImageInput) -> Size:
    """Return the (height, width) in pixels of the image, or of the image that the pixels were made from."""
    return image.size if isinstance(image, Pixels) else (image.height, image.width)


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Return `image` centred on a square of `colour` whose side is its longer one (LLaVA's expand2square)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class SquareProcessor:
    """Turns images into padded squares, with the values of a Hugging Face image processor.

    `size` is the squares' (height, width) in pixels, `mean_colour` the RGB colour of the padding.
    """

    def __init__(self, image_processor: Any) -> None:
        self.size = _height_width(image_processor)
        red, green, blue = (int(x * 255) for x in image_processor.image_mean)
        self.mean_colour = (red, green, blue)
        self._resample = Image.Resampling(int(image_processor.resample))
        mean, std = (np.array(v, np.float32) for v in (image_processor.image_mean, image_processor.image_std))
        # Rescaling and normalising map each byte by itself, so a table of 256 values per channel is exact
        # and faster; it rounds where transformers' rescale and normalize do.
        grey = (np.arange(256, dtype=np.float64) * image_processor.rescale_factor).astype(np.float32)
        self._levels = np.ascontiguousarray(((grey[:, None] - mean) / std).T)  # (3, 256)

    def rules(self) -> str:
        """Return in a line all that `square` follows from, beside the image."""
        return f"{self.size} {self.mean_colour} {self._resample.name}"

    def square(self, image: Image.Image) -> Image.Image:
        """Pad an RGB image to a square and resize it to the model's size."""
        height, width = self.size
        return pad_to_square(image, self.mean_colour).resize((width, height), self._resample)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Pad, resize and normalise an RGB image; returns float32 (3, H, W)."""
        resized = np.asarray(self.square(image))  # (H, W, 3) bytes
        return torch.from_numpy(np.stack([self._levels[c][resized[..., c]] for c in range(3)]))


class VisionProcessor:
    """Makes the vision inputs of LLaVA-1.5, and is the base class for the other families.

    `tokens_depend_on_size` says whether the number of an image's tokens depends on its size.
    """

    tokens_depend_on_size = False

    def __init__(self, config: Any, image_processor: Any) -> None:
        """Take the sizes from the model's `config` and its Hugging Face image processor.

        Raises:
            InputError: the image processor makes other pixels than the model takes.
        """
        vision = config.vision_config
        self.square_processor = SquareProcessor(image_processor)
        self.patches_per_side = vision.image_size // vision.patch_size
        self.tokens_per_square = self.patches_per_side**2 + (config.vision_feature_select_strategy == "full")
        if self.square_processor.size != (vision.image_size, vision.image_size):
            raise InputError(
                f"the image processor makes {self.square_processor.size} pixels, "
                f"the model takes {(vision.image_size, vision.image_size)}"
            )

    def token_counts(self, sizes: Sequence[Size]) -> list[int]:
        """Return how many tokens each image of one conversation takes, from all the images' sizes."""
        return [self.tokens_per_square] * len(sizes)

    def rules(self) -> str:
        """Return in a line all that `token_counts` and `canvas` follow from, beside the image."""
        return f"{type(self).__name__} {self.tokens_per_square} {self.square_processor.rules()}"

    def canvas_size(self, size: Size) -> Size:
        """Return the size of the `canvas` of an image of `size`."""
        return self.square_processor.size

    def canvas(self, image: Image.Image) -> Image.Image:
        """Return the RGB image in the form that training caches and augments.

        `pixels` gives the same for the canvas as for the image.
        """
        return self.square_processor.square(image)

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        """Prepare an RGB image; `alone` says whether it is the only one of its conversation."""
        return Pixels(self.square_processor(image)[None], image_size(image), alone)

    def inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        """Return the model's keyword arguments for images in the order of their tokens; empty for none."""
        if not images:
            return {}
        return {"pixel_values": torch.cat([image.patches for image in images])}


class AnyresVisionProcessor(VisionProcessor):
    """Makes the vision inputs of LLaVA-1.6 or, where `config` is one of OneVision, of OneVision."""

    tokens_depend_on_size = True

    def __init__(self, config: Any, image_processor: Any) -> None:
        super().__init__(config, image_processor)
        self.tokens_per_square = self.patches_per_side**2 + 1  # a padded square's patches and a newline
        self._image_processor = image_processor
        self._tile_size = config.vision_config.image_size
        self._pinpoints = [[int(edge) for edge in shape] for shape in config.image_grid_pinpoints]
        self._onevision = config.model_type == "llava_onevision"
        # anyres_max_9: features of more than 9 tiles' worth are scaled down
        self._max_tiles = (
            int(config.vision_aspect_ratio.removeprefix("anyres_max_")) if self._onevision else None
        )
        self._tokens_of_size: dict[Size, int] = {}
        if [list(shape) for shape in image_processor.image_grid_pinpoints] != self._pinpoints:
            raise InputError("the image processor and the model have different image_grid_pinpoints")
        strategy = "default" if config.vision_config.model_type == "clip_vision_model" else "full"
        if config.vision_feature_select_strategy != strategy:
            raise InputError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; anyres with a "
                f"{config.vision_config.model_type} needs {strategy!r}"
            )

    def token_counts(self, sizes: Sequence[Size]) -> list[int]:
        if self._onevision and len(sizes) > 1:
            return [self.tokens_per_square] * len(sizes)
        return [self._anyres_tokens(size) for size in sizes]

    def _anyres_tokens(self, size: Size) -> int:
        if size not in self._tokens_of_size:
            if len(self._tokens_of_size) >= _SIZES_KNOWN:
                self._tokens_of_size.clear()
            self._tokens_of_size[size] = self._count_anyres_tokens(size)
        return self._tokens_of_size[size]

    def _count_anyres_tokens(self, size: Size) -> int:
        """Count the features that transformers' `pack_image_features` makes of an image."""
        rows, columns = get_anyres_image_grid_shape(size, self._pinpoints, self._tile_size)
        tiles = torch.empty(1, rows * self.patches_per_side, columns * self.patches_per_side, device="meta")
        _, height, width = unpad_image(tiles, size).shape
        if self._max_tiles is not None:
            ratio = math.sqrt(height * width / (self._max_tiles * self.patches_per_side**2))
            if ratio > 1.1:
                height, width = int(height // ratio), int(width // ratio)
        return self.patches_per_side**2 + height * (width + 1)

    def rules(self) -> str:
        tiles = f"{self._tile_size} {self._pinpoints} {self._onevision} {self._max_tiles}"
        return f"{super().rules()} {self.patches_per_side} {tiles}"

    def canvas_size(self, size: Size) -> Size:
        return size

    def canvas(self, image: Image.Image) -> Image.Image:
        return image

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        if self._onevision and not alone:
            return super().pixels(image, alone=False)
        patches = self._image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return Pixels(patches, image_size(image), alone)

    def inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        inputs = super().inputs(images)
        if not images:
            return inputs
        # Lists, not tensors: the model reads them number by number, and each read from a GPU waits for it.
        inputs["image_sizes"] = [image.size for image in images]
        if self._onevision:
            inputs["batch_num_images"] = _images_per_conversation([image.alone for image in images])
        return inputs


def _images_per_conversation(alone: Sequence[bool]) -> list[int]:
    """Return how many images each conversation has, for OneVision, which only checks whether that is 1.

    Neighbouring images that are not alone count as one conversation, whichever they belong to. One that
    remains by itself, because the other images of its conversation are in the KV cache already, counts as 2
    (transformers takes as many as it needs).
    """
    counts: list[int] = []
    for is_alone, run in groupby(alone):
        length = sum(1 for _ in run)
        counts += [1] * length if is_alone else [max(length, 2)]
    return counts


def make_vision_processor(config: Any, image_processor: Any) -> VisionProcessor:
    """Return the processor for the model that `config` describes.

    Raises:
        InputError: the Hugging Face image processor does not belong to the model.
    """
    processor_class = VisionProcessor if config.model_type == "llava" else AnyresVisionProcessor
    if processor_class is AnyresVisionProcessor and not hasattr(image_processor, "image_grid_pinpoints"):
        raise InputError(
            f"the model is a {config.model_type} but the image processor knows no image_grid_pinpoints; "
            "take preprocessor_config.json from the model it is made of"
        )
    return processor_class(config, image_processor)


def _height_width(image_processor: Any) -> tuple[int, int]:
    """Return the (height, width) in pixels of the image processor's output."""
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    values: Mapping[str, int] = dict(size)
    if values.get("height") and values.get("width"):
        return int(values["height"]), int(values["width"])
    edge = values.get("shortest_edge")
    if not edge:
        raise InputError(f"the image processor has no usable size: {values}")
    return int(edge), int(edge)
