"""A record becomes token ids and labels; the same code serves training and inference. Pictures: vision.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from PIL import Image

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER
from llava.constants import IGNORE_INDEX
from llava.conversation import ChatTurns, ConvTemplate
from llava.processing.vision import Pixels, Size, VisionProcessor


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens. `labels` equal `input_ids` where supervised and are -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]
    n_images: int


class RecordProcessor:
    """Turns conversations and pictures into model inputs for one model.

    `<image>` in the text becomes as many copies of `image_token_id` as `pictures` says that the picture there
    takes. `max_length` bounds `encode`: a longer record is an InputError, never cut.

    `sizes` are those of the conversation's pictures in their order; they may be left out (None) where every
    picture takes the same number of tokens (LLaVA-1.5).
    """

    def __init__(
        self,
        tokenizer: Any,
        images: VisionProcessor,
        template: ConvTemplate,
        image_token_id: int,
        max_length: int | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                "the tokenizer gives no character offsets: the model folder needs tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.images = images
        self.template = template
        self.image_token_id = image_token_id
        self.max_length = max_length
        reserved = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
        self._reserved = sorted(reserved - {IMAGE_PLACEHOLDER, ""})

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        """An RGB image made ready; `alone` is whether it is the only picture of its conversation."""
        return self.images.pixels(image, alone=alone)

    def encode(self, turns: ChatTurns, sizes: Sequence[Size] | None = None) -> Encoded:
        """A conversation with its answers: ids and labels of equal length.

        The rendered text is tokenised once; a token is supervised if any of its characters is. InputError
        if nothing is supervised, the text is longer than `max_length` or holds special tokens.
        """
        ids, supervised, n_images = self._tokenise(turns, sizes, generation_prompt=False)
        if not any(supervised):
            raise InputError("the conversation has no supervised token: nothing to train on")
        if self.max_length is not None and len(ids) > self.max_length:
            raise InputError(
                f"the conversation has {len(ids)} tokens, more than max_length {self.max_length}; "
                "split it or raise max_length"
            )
        labels = [token if use else IGNORE_INDEX for token, use in zip(ids, supervised, strict=True)]
        return Encoded(ids, labels, n_images)

    def encode_prompt(self, turns: ChatTurns, sizes: Sequence[Size] | None = None) -> list[int]:
        """The ids of a conversation whose last turn is a question, up to where the answer begins."""
        return self._tokenise(turns, sizes, generation_prompt=True)[0]

    def _tokenise(
        self, turns: ChatTurns, sizes: Sequence[Size] | None, *, generation_prompt: bool
    ) -> tuple[list[int], list[bool], int]:
        self._refuse_special_text(turns)
        marks = sum(text.count(IMAGE_PLACEHOLDER) for _, text in turns)
        if sizes is None and marks and self.images.by_size:
            raise ValueError("the tokens of this model's pictures depend on their sizes: give `sizes`")
        if sizes is not None and len(sizes) != marks:
            raise InputError(f"{len(sizes)} picture(s) but {marks} {IMAGE_PLACEHOLDER} mark(s)")
        image_tokens = self.images.tokens([(0, 0)] * marks if sizes is None else sizes)
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
                copies = image_tokens[n_images]
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
