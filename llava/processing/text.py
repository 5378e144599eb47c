"""Encode conversations as token ids and labels, for training and inference alike. Images: vision.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from PIL import Image

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER
from llava.constants import IGNORE_INDEX
from llava.conversation import ChatTurns, ConvTemplate
from llava.processing.vision import Pixels, Size, VisionProcessor


@dataclass(frozen=True)
class EncodedConversation:
    """Holds one conversation as token ids.

    `labels` equal `input_ids` where the token is supervised and are -100 elsewhere; `n_images` is the number
    of its images.
    """

    input_ids: list[int]
    labels: list[int]
    n_images: int


class RecordProcessor:
    """Turns conversations and images into the inputs of one model.

    Each `<image>` in the text becomes as many copies of `image_token_id` as `vision` counts for the image.

    The `sizes` that its methods take are the (height, width) of the conversation's images in their order;
    None will do where every image takes the same number of tokens (LLaVA-1.5).
    """

    def __init__(
        self,
        tokenizer: Any,
        vision: VisionProcessor,
        template: ConvTemplate,
        image_token_id: int,
        max_length: int | None = None,
    ) -> None:
        """Check the tokenizer and list its special tokens, which no text may contain.

        Args:
            tokenizer: The model's; it must be a fast one, which gives character offsets.
            vision: Makes the images' pixel values and counts their tokens.
            template: How a conversation is written as text.
            image_token_id: The id that stands for image features in `input_ids`.
            max_length: The limit of `encode` in tokens; a longer record is an InputError, never cut.

        Raises:
            InputError: the tokenizer gives no character offsets.
        """
        if not tokenizer.is_fast:
            raise InputError(
                "the tokenizer gives no character offsets: the model folder needs tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.vision = vision
        self.template = template
        self.image_token_id = image_token_id
        self.max_length = max_length
        reserved = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
        self._reserved = sorted(reserved - {IMAGE_PLACEHOLDER, ""})

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        """Prepare an RGB image; `alone` says whether it is the only one of its conversation."""
        return self.vision.pixels(image, alone=alone)

    def encode(
        self, turns: ChatTurns, sizes: Sequence[Size] | None = None, system: str | None = None
    ) -> EncodedConversation:
        """Encode a conversation that ends with an answer.

        The rendered text is tokenised once, as a whole; a token is supervised if any of its characters is.
        `system` replaces the template's own system text.

        Raises:
            InputError: no token is supervised, there are more than `max_length`, the text contains special
                tokens, or there are not as many sizes as `<image>` marks.
        """
        ids, supervised, n_images = self._tokenise(turns, sizes, system, generation_prompt=False)
        if not any(supervised):
            raise InputError("the conversation has no supervised token: nothing to train on")
        if self.max_length is not None and len(ids) > self.max_length:
            raise InputError(
                f"the conversation has {len(ids)} tokens, more than max_length {self.max_length}; "
                "split it or raise max_length"
            )
        labels = [token if use else IGNORE_INDEX for token, use in zip(ids, supervised, strict=True)]
        return EncodedConversation(ids, labels, n_images)

    def encode_prompt(
        self, turns: ChatTurns, sizes: Sequence[Size] | None = None, system: str | None = None
    ) -> list[int]:
        """Return the ids of a conversation whose last turn is a question, up to where the answer begins.

        Raises:
            InputError: as for `encode`, but for the labels and the length.
        """
        return self._tokenise(turns, sizes, system, generation_prompt=True)[0]

    def _tokenise(
        self, turns: ChatTurns, sizes: Sequence[Size] | None, system: str | None, *, generation_prompt: bool
    ) -> tuple[list[int], list[bool], int]:
        """Return the token ids, whether each is supervised, and the number of images."""
        for position, (speaker, text) in enumerate(turns):
            self._refuse_special_text(f"turn {position}", text, marks_allowed=speaker == "human")
        template = self.template
        if system is not None:
            self._refuse_special_text("the system text", system, marks_allowed=False)
            template = replace(template, system=system)
        marks = sum(text.count(IMAGE_PLACEHOLDER) for _, text in turns)
        if sizes is None and marks and self.vision.tokens_depend_on_size:
            raise ValueError("the tokens of this model's pictures depend on their sizes: give `sizes`")
        if sizes is not None and len(sizes) != marks:
            raise InputError(f"{len(sizes)} picture(s) but {marks} {IMAGE_PLACEHOLDER} mark(s)")
        image_tokens = self.vision.token_counts([(0, 0)] * marks if sizes is None else sizes)
        pieces = template.render(turns, generation_prompt=generation_prompt)
        text = "".join(piece for piece, _ in pieces)
        flags = [is_supervised for piece, is_supervised in pieces for _ in piece]
        # supervised_before[i] counts the supervised ones among the first i characters
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
                copies = image_tokens[n_images]
                n_images += 1
            ids += [token] * copies
            supervised += [supervised_before[end] > supervised_before[start]] * copies
        return ids, supervised, n_images

    def _refuse_special_text(self, place: str, text: str, *, marks_allowed: bool) -> None:
        """Raise InputError for text that the tokenizer would read as the template's own control tokens."""
        special = next((token for token in self._reserved if token in text), None)
        if special is None and not marks_allowed and IMAGE_PLACEHOLDER in text:
            special = IMAGE_PLACEHOLDER
        if special is not None:
            raise InputError(
                f"{place} contains {special!r}, which the tokenizer reads as a special token; "
                "write it differently"
            )
