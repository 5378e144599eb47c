"""A conversation with memory: an image is read once, and each turn only what is new."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from random import Random

import torch

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER, question_text
from llava.conversation import Speaker
from llava.inference.kv_cache import crop_cache
from llava.inference.model_runner import ModelRunner
from llava.inference.sampling import AnswerText, SamplingOptions, next_tokens
from llava.processing.vision import ImageInput, Pixels, Size, image_size

_ColumnKey = int | tuple[ImageInput, int]
"""What a column of the cache holds: a token id, or an image and the number of its tokens."""


@dataclass
class _Turn:
    """One turn of the conversation; `text` has an `<image>` mark for each of `images`."""

    speaker: Speaker
    text: str
    images: tuple[ImageInput, ...] = ()


class Chat:
    """Questions and answers about images, streamed; greedy unless a temperature is given.

    The KV cache is kept between turns. Each prompt is rendered as a whole and compared with what the cache
    holds: the common beginning (system text, image, earlier turns) stays, and only the rest is read. So an
    answer is what a fresh reading of the whole conversation would give, whatever happened before.

    When the conversation exceeds the model's context, the oldest exchanges are dropped and counted in
    `forgotten`; the images stay.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        """Start an empty conversation.

        Args:
            runner: Runs the model; several chats may share it.
            max_new_tokens: The longest answer, in tokens.
            temperature: As for `SamplingOptions`, and so are the others.
            top_p: Sample only among the most probable tokens that together reach this probability.
            stop: Strings that end an answer besides the template's own.
            seed: Of sampling, with a temperature.

        Raises:
            InputError: an option is out of range.
        """
        self.runner = runner
        self.forgotten = 0
        # all of the template's ends as text too: a model may spell one out character by character
        stops = (*runner.loaded.template.stop, *stop)
        self._options = SamplingOptions(max_new_tokens, temperature, top_p, 1, stops, seed)
        self._turns: list[_Turn] = []
        self._pending_images: tuple[ImageInput, ...] = ()
        self._cached: list[_ColumnKey] = []  # the columns of the cache, as `_column_keys` names them
        self.reset()

    def reset(self, *, keep_image: bool = False) -> None:
        """Drop all turns and images; with `keep_image` all but the last image.

        That one goes with the next question. Where the conversation began with it, it is not read again.
        """
        images = [image for turn in self._turns for image in turn.images] + [*self._pending_images]
        self._turns = []
        self._pending_images = tuple(images[-1:]) if keep_image else ()
        if not keep_image:
            self._cache = self.runner.new_cache()
            self._cached = []
        self._generator = Random(self._options.seed)
        self._stopped = False
        self.forgotten = 0

    def undo(self) -> str | None:
        """Take back the last question and its answer; images that went with it go with the next one.

        Returns:
            The question, None where there is none to take back.
        """
        if not self._turns:
            return None
        question = self._turns[-2]
        self._turns = self._turns[:-2]
        self._pending_images = (*question.images, *self._pending_images)
        return question.text.removeprefix(f"{IMAGE_PLACEHOLDER}\n" * len(question.images))

    @property
    def history(self) -> list[tuple[Speaker, str]]:
        """The turns so far, with `<image>` marks, oldest first."""
        return [(turn.speaker, turn.text) for turn in self._turns]

    @property
    def prompt(self) -> str:
        """The text of the conversation so far, as the model reads it."""
        turns = self.history
        return self.runner.loaded.template.text(turns, generation_prompt=len(turns) % 2 == 1)

    def add_image(self, image: ImageInput) -> None:
        """Add an image that goes with the next question."""
        self._pending_images += (image,)

    def stop(self) -> None:
        """End the answer that is being streamed after its current token; what was streamed is kept."""
        self._stopped = True

    def ask(self, text: str) -> Generator[str, None, None]:
        """Ask a question and stream the answer in pieces of text.

        However the stream ends (finished, `stop()`, closed, an interrupt in the middle), the chat goes on: a
        partial answer is closed and kept; a question interrupted before its first piece is taken back.

        Raises:
            InputError: the question does not fit the context even alone.
        """
        self._stopped = False
        question = _Turn("human", question_text(text, len(self._pending_images)), self._pending_images)
        earlier = list(self._turns)
        self._turns.append(question)
        self._pending_images = ()
        answer = AnswerText(self.runner.tokenizer, self._options.stop)
        completed = False
        try:
            ids = self._encode_prompt()
            yield from self._stream(ids, answer)
            completed = True
        finally:
            if completed or answer.text:
                self._turns.append(_Turn("gpt", answer.text))
            else:
                self._turns, self._pending_images = earlier, question.images

    def _stream(self, ids: list[int], answer: AnswerText) -> Iterator[str]:
        limit = min(self._options.max_new_tokens, self.runner.context_len - len(ids))
        logits = self._prefill(ids)
        for count in range(1, limit + 1):
            token = int(next_tokens(logits, self._options, [self._generator]))
            if token in self.runner.stop_token_ids:
                break
            if piece := answer.push(token):
                yield piece
            if answer.stopped or self._stopped or count == limit:
                break
            logits = self._extend([token], [token])
        if piece := answer.finish():
            yield piece

    def _encode_prompt(self) -> list[int]:
        """Return the prompt's ids, with the oldest exchanges dropped until question and answer have room."""
        context = self.runner.context_len
        reserved = min(self._options.max_new_tokens, context // 4)
        while True:
            ids = self.runner.processor.encode_prompt(self.history, self._image_sizes())
            if len(ids) + reserved <= context:
                return ids
            if len(self._turns) == 1:
                if len(ids) < context:
                    return ids
                raise InputError(f"the question has {len(ids)} tokens, the model's context is {context}")
            question, _, following, *rest = self._turns
            marks = f"{IMAGE_PLACEHOLDER}\n" * len(question.images)
            first = _Turn("human", marks + following.text, (*question.images, *following.images))
            self._turns = [first, *rest]
            self.forgotten += 1

    def _prefill(self, ids: list[int]) -> torch.Tensor:
        """Bring the cache to the prompt `ids`; returns the logits (1, vocabulary) after it."""
        images = [image for turn in self._turns for image in turn.images]
        counts = self.runner.processor.vision.token_counts(self._image_sizes())
        keys = self._column_keys(ids, images, counts)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(keys, self._cached, strict=False))
        kept = min(sum(1 for _ in same), len(ids) - 1)
        image_tokens, cached_images = sum(isinstance(key, tuple) for key in keys[:kept]), 0
        while cached_images < len(counts) and image_tokens >= counts[cached_images]:
            image_tokens -= counts[cached_images]
            cached_images += 1
        kept -= image_tokens  # of an image that is cached in part: images are only read as a whole
        self._cached = self._cached[:kept]
        if kept:
            crop_cache(self._cache, kept)
        else:
            self._cache = self.runner.new_cache()
        new_images = self.runner.prepare_images(images)[cached_images:] if cached_images < len(images) else []
        return self._extend(ids[kept:], keys[kept:], new_images)

    def _extend(
        self, ids: list[int], keys: Sequence[_ColumnKey], images: Sequence[Pixels] = ()
    ) -> torch.Tensor:
        with self.runner.eval_mode():
            logits = self.runner.extend(ids, self._cache, len(self._cached), images)
        self._cached += keys  # only now: the next crop removes columns that an interrupt above has left
        return logits

    def _image_sizes(self) -> list[Size]:
        return [image_size(image) for turn in self._turns for image in turn.images]

    def _column_keys(
        self, ids: list[int], images: Sequence[ImageInput], counts: Sequence[int]
    ) -> list[_ColumnKey]:
        """Return `ids` with each image's tokens replaced by the image and the number of its tokens.

        So neither another image in the same place is taken for it, nor the same image read in another way, as
        OneVision reads one of several.
        """
        image_keys = iter(
            [(image, count) for image, count in zip(images, counts, strict=True) for _ in range(count)]
        )
        image_token = self.runner.processor.image_token_id
        return [next(image_keys) if token == image_token else token for token in ids]
