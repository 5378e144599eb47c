"""Helpers under the names that LLaVA users import (haotian-liu/LLaVA, llava/mm_utils.py)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image

from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.records import IMAGE_PLACEHOLDER
from llava.constants import IMAGE_TOKEN_INDEX
from llava.processing.vision import SquareProcessor, make_vision_processor, pad_to_square

expand2square = pad_to_square


def get_model_name_from_path(model_path: str) -> str:
    """Return the last part of a path or Hub name; for a checkpoint its run's name and its own."""
    parts = model_path.strip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]


def load_image_from_base64(image: str | bytes) -> Image.Image:
    """Open a base64-encoded image file as RGB; InputError if it is neither."""
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"not base64: {error}") from None
    return open_image(BytesIO(data))


def process_images(
    images: Sequence[Image.Image], image_processor: Any, model_cfg: Any = None
) -> torch.Tensor | list[torch.Tensor]:
    """Return RGB images as one float32 tensor (N, 3, H, W), each padded to a square first.

    For LLaVA-1.6 and OneVision (by the model's config `model_cfg`) as a list of (P, 3, H, W), their squares
    and tiles. Without `model_cfg` they are LLaVA-1.5's.
    """
    if getattr(model_cfg, "model_type", "llava") == "llava":
        square_processor = SquareProcessor(image_processor)
        return torch.stack([square_processor(image) for image in images])
    processor = make_vision_processor(model_cfg, image_processor)
    return [processor.pixels(image, alone=len(images) == 1).patches for image in images]


def tokenizer_image_token(
    prompt: str, tokenizer: Any, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> Any:
    """Return the ids of `prompt` with one `image_token_index` per `<image>`: a list, or a 1-D tensor for
    "pt".

    This is the original LLaVA's form of a prompt; models here take `RecordProcessor.encode_prompt`'s.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"unsupported return_tensors {return_tensors!r}; use 'pt' or None")
    first, *others = (tokenizer(chunk).input_ids for chunk in prompt.split(IMAGE_PLACEHOLDER))
    ids = list(first)
    for chunk in others:
        has_bos = bool(chunk) and chunk[0] == tokenizer.bos_token_id
        ids += [image_token_index, *chunk[has_bos:]]
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids
