"""Encode conversations as token ids and labels, for training and inference alike. Images: vision.py."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
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


@dataclass(frozen=True, eq=False)
class CompactConversation:
    """Holds one conversation as token ids in which an image is a single one.

    `input_ids` is (T,) int32 and `supervised` (T,) bool; `image_at` has the position of each image's token,
    `image_tokens` how many the model reads in its place.
    """

    input_ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    image_at: tuple[int, ...]
    image_tokens: tuple[int, ...]

    def __len__(self) -> int:
        """Count the tokens that the model reads."""
        return len(self.input_ids) + sum(self.image_tokens) - len(self.image_at)


def expand(values: NDArray, image_at: Sequence[int], image_tokens: Sequence[int]) -> NDArray:
    """Repeat the value of each image's token as often as the model reads it.

    Args:
        values: (T,) a value for each token, images as one.
        image_at: The positions of the images' tokens.
        image_tokens: How many tokens each of them is.

    Returns:
        (T + sum(image_tokens) - len(image_at),) of the type of `values`.
    """
    if not len(image_at):
        return values
    repeats = np.ones(len(values), dtype=np.int64)
    repeats[list(image_at)] = image_tokens
    return np.repeat(values, repeats)


@dataclass(frozen=True)
class RenderedConversation:
    """Holds a conversation as pieces of text, each with whether it is supervised, and how many tokens each
    of its images is."""

    pieces: tuple[tuple[str, bool], ...]
    image_tokens: tuple[int, ...]

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces)


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
        reserved = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} - {IMAGE_PLACEHOLDER, ""}
        # Of tokens that begin alike the longest is named.
        self._reserved = re.compile(
            "|".join(map(re.escape, sorted(reserved, key=lambda t: (-len(t), t)))) or "(?!)"
        )

    def fingerprint(self) -> str:
        """Return a hash of all that the tokens of a conversation and its images' canvases follow from, beside
        the text and the images."""
        facts = [
            self.tokenizer.backend_tokenizer.to_str(),
            repr(self.template),
            f"{self.image_token_id} {self.vision.rules()}",
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def pixels(self, image: Image.Image, *, alone: bool = True) -> Pixels:
        """Prepare an RGB image; `alone` says whether it is the only one of its conversation."""
        return self.vision.pixels(image, alone=alone)

    def encode(
        self, turns: ChatTurns, sizes: Sequence[Size] | None = None, system: str | None = None
    ) -> EncodedConversation:
        """Encode a conversation that ends with an answer.

        `system` replaces the template's own system text.

        Raises:
            InputError: no token is supervised, there are more than `max_length`, the text contains special
                tokens, or there are not as many sizes as `<image>` marks.
        """
        found = self.encode_compact(turns, sizes, system)
        ids = expand(found.input_ids, found.image_at, found.image_tokens)
        supervised = expand(found.supervised, found.image_at, found.image_tokens)
        labels = np.where(supervised, ids, IGNORE_INDEX)
        return EncodedConversation(ids.tolist(), labels.tolist(), len(found.image_at))

    def encode_compact(
        self, turns: ChatTurns, sizes: Sequence[Size] | None = None, system: str | None = None
    ) -> CompactConversation:
        """Encode a conversation as `encode` does, an image as one token."""
        found = self._compact(self.render(turns, sizes, system))
        self.require_learnable(found)
        return found

    def encode_prompt(
        self, turns: ChatTurns, sizes: Sequence[Size] | None = None, system: str | None = None
    ) -> list[int]:
        """Return the ids of a conversation whose last turn is a question, up to where the answer begins.

        Raises:
            InputError: as for `encode`, but for the labels and the length.
        """
        found = self._compact(self.render(turns, sizes, system, generation_prompt=True))
        return expand(found.input_ids, found.image_at, found.image_tokens).tolist()

    def require_learnable(self, conversation: CompactConversation) -> None:
        """Raise InputError if no token of a conversation is supervised, or if it has more than
        `max_length`."""
        if not conversation.supervised.any():
            raise InputError("the conversation has no supervised token: nothing to train on")
        if self.max_length is not None and len(conversation) > self.max_length:
            raise InputError(
                f"the conversation has {len(conversation)} tokens, more than max_length {self.max_length}; "
                "split it or raise max_length"
            )

    def render(
        self,
        turns: ChatTurns,
        sizes: Sequence[Size] | None = None,
        system: str | None = None,
        *,
        generation_prompt: bool = False,
    ) -> RenderedConversation:
        """Write a conversation as text; with `generation_prompt` it ends where the next answer begins.

        Raises:
            InputError: the text contains special tokens, or there are not as many sizes as `<image>` marks.
        """
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
        return RenderedConversation(
            tuple(template.render(turns, generation_prompt=generation_prompt)), tuple(image_tokens)
        )

    def tokenise(self, conversations: Sequence[RenderedConversation]) -> Sequence[Any]:
        """Tokenise each conversation's text as a whole, in parallel and outside the interpreter's lock.

        The encodings are those that calling the tokenizer makes; `compact` reads them.
        """
        tokenizer = self.tokenizer.backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer.encode_batch([conversation.text for conversation in conversations])

    def compact(
        self, conversations: Sequence[RenderedConversation], encodings: Sequence[Any]
    ) -> Iterator[CompactConversation]:
        """Yield each conversation as token ids; a token is supervised if any of its characters is.

        Args:
            conversations: What `render` returned.
            encodings: What `tokenise` returned for them.
        """
        if not conversations:
            return
        pieces = [piece for conversation in conversations for piece in conversation.pieces]
        flags = np.repeat([is_supervised for _, is_supervised in pieces], [len(text) for text, _ in pieces])
        # supervised_before[i] counts the supervised ones among the first i characters of all texts
        supervised_before = np.concatenate([[0], np.cumsum(flags)])
        texts = [len(conversation.text) for conversation in conversations]
        tokens = [len(encoding) for encoding in encodings]
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
        characters = np.concatenate([
            np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings
        ])  # fmt: skip
        characters += np.repeat(np.cumsum([0, *texts[:-1]]), tokens)[:, None]
        supervised = supervised_before[characters[:, 1]] > supervised_before[characters[:, 0]]
        end = 0
        for conversation, length in zip(conversations, tokens, strict=True):
            part = slice(end, end := end + length)
            image_at = tuple(np.flatnonzero(ids[part] == self.image_token_id).tolist())
            yield CompactConversation(ids[part], supervised[part], image_at, conversation.image_tokens)

    def _compact(self, conversation: RenderedConversation) -> CompactConversation:
        return next(self.compact([conversation], self.tokenise([conversation])))

    def _refuse_special_text(self, place: str, text: str, *, marks_allowed: bool) -> None:
        """Raise InputError for text that the tokenizer would read as the template's own control tokens."""
        found = self._reserved.search(text)
        special = found and found[0]
        if special is None and not marks_allowed and IMAGE_PLACEHOLDER in text:
            special = IMAGE_PLACEHOLDER
        if special is not None:
            raise InputError(
                f"{place} contains {special!r}, which the tokenizer reads as a special token; "
                "write it differently"
            )
