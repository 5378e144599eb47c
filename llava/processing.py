"""A record becomes token ids, labels and pixel values; the same code serves training and inference.

Pictures are padded to a square with the processor's mean colour before they are resized, as LLaVA-1.5 was
trained; nothing is cropped. Only values of the image processor are used, so torchvision is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX
from llava.conversation import ChatTurns, ConvTemplate
from llava.errors import InputError
from llava.pictures import open_picture
from llava.records import IMAGE_PLACEHOLDER

__all__ = ["Encoded", "PictureProcessor", "RecordProcessor", "open_picture", "pad_to_square"]


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens. `labels` equal `input_ids` where supervised and are -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]
    n_images: int


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """`image` centred on a square of `colour`, its side the longer of the two (LLaVA's expand2square)."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class PictureProcessor:
    """Pictures as the vision tower takes them, by the values of a Hugging Face image processor.

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


class RecordProcessor:
    """Turns conversations and pictures into model inputs for one model.

    `image_tokens` is how many tokens a picture takes; `<image>` in the text becomes that many copies of
    `image_token_id`. `max_length` bounds `encode`: a longer record is an InputError, never cut.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        template: ConvTemplate,
        image_token_id: int,
        image_tokens: int,
        max_length: int | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                "the tokenizer gives no character offsets: the model folder needs tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.image_token_id = image_token_id
        self.image_tokens = image_tokens
        self.max_length = max_length
        reserved = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
        self._reserved = sorted(reserved - {IMAGE_PLACEHOLDER, ""})
        self.pictures = PictureProcessor(image_processor)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """An RGB image as float32 (3, H, W): padded to a square, resized, normalised."""
        return self.pictures(image)

    def encode(self, turns: ChatTurns) -> Encoded:
        """A conversation with its answers: ids and labels of equal length.

        The rendered text is tokenised once; a token is supervised if any of its characters is. InputError
        if nothing is supervised, the text is longer than `max_length` or holds special tokens.
        """
        ids, supervised, n_images = self._tokenise(turns, generation_prompt=False)
        if not any(supervised):
            raise InputError("the conversation has no supervised token: nothing to train on")
        if self.max_length is not None and len(ids) > self.max_length:
            raise InputError(
                f"the conversation has {len(ids)} tokens, more than max_length {self.max_length}; "
                "split it or raise max_length"
            )
        labels = [token if use else IGNORE_INDEX for token, use in zip(ids, supervised, strict=True)]
        return Encoded(ids, labels, n_images)

    def encode_prompt(self, turns: ChatTurns) -> list[int]:
        """The ids of a conversation whose last turn is a question, up to where the answer begins."""
        return self._tokenise(turns, generation_prompt=True)[0]

    def _tokenise(self, turns: ChatTurns, *, generation_prompt: bool) -> tuple[list[int], list[bool], int]:
        self._refuse_special_text(turns)
        pieces = self.template.render(turns, generation_prompt=generation_prompt)
        text = "".join(piece for piece, _ in pieces)
        # supervised_before[i]: how many of the first i characters are supervised
        flags = [use for piece, use in pieces for _ in piece]
        supervised_before = list(accumulate(flags, initial=0))
        encoding = self.tokenizer(
            text, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        ids: list[int] = []
        supervised: list[bool] = []
        n_images = 0
        for token, (start, end) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
            copies = 1
            if token == self.image_token_id:
                copies = self.image_tokens
                n_images += 1
            ids += [token] * copies
            supervised += [supervised_before[end] > supervised_before[start]] * copies
        return ids, supervised, n_images

    def _refuse_special_text(self, turns: ChatTurns) -> None:
        """Text that the tokenizer would read as control tokens must not pass for the template's own."""
        for position, (speaker, text) in enumerate(turns):
            found = next((token for token in self._reserved if token in text), None)
            if found is None and speaker == "gpt" and IMAGE_PLACEHOLDER in text:
                found = IMAGE_PLACEHOLDER
            if found is not None:
                raise InputError(
                    f"turn {position} contains {found!r}, which the tokenizer reads as a special token; "
                    "write it differently"
                )


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
