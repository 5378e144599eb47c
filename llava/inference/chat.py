"""A conversation with memory: the picture is read once, and each turn only what is new."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from random import Random

import torch

from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER, question_text
from llava.conversation import Speaker
from llava.inference.engine import Engine
from llava.inference.kv_cache import crop_cache
from llava.inference.sampling import AnswerText, SamplingOptions, next_tokens
from llava.processing.vision import ImageInput, Pixels, Size, image_size

_Key = int | tuple[ImageInput, int]


@dataclass
class _Turn:
    """`text` has an `<image>` mark for each of `pictures`."""

    speaker: Speaker
    text: str
    images: tuple[ImageInput, ...] = ()


class Chat:
    """Questions and answers about pictures, streamed; greedy unless a temperature is given.

    The KV cache lives on between turns. Each prompt is rendered whole and compared with what the cache
    holds: the common beginning (system text, picture, earlier turns) stays, only the rest is read. So an
    answer is what a fresh reading of the whole conversation would give, whatever happened before.

    When the conversation outgrows the model's context the oldest exchanges are forgotten, counted in
    `forgotten`; the pictures stay.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.engine = engine
        self.forgotten = 0
        # all of the template's ends as text too: a model may spell one out letter by letter
        stops = (*engine.loaded.template.stop, *stop)
        self._decoding = SamplingOptions(max_new_tokens, temperature, top_p, 1, stops, seed)
        self._turns: list[_Turn] = []
        self._waiting: tuple[ImageInput, ...] = ()
        self._held: list[_Key] = []  # the cache's columns, as `_keys` names them
        self.reset()

    def reset(self, *, keep_image: bool = False) -> None:
        """Forget everything, pictures included; with `keep_picture` all but the last that was shown, which
        goes with the next question. Where the talk began with it, it is not read again."""
        shown = [image for turn in self._turns for image in turn.images] + [*self._waiting]
        self._turns = []
        self._waiting = tuple(shown[-1:]) if keep_image else ()
        if not keep_image:
            self._cache = self.engine.new_cache()
            self._held = []
        self._draw = Random(self._decoding.seed)
        self._stopped = False
        self.forgotten = 0

    def undo(self) -> str | None:
        """Take back the last question and its answer; the pictures that went with it go with the next.
        Returns the question, None where there is none to take back."""
        if not self._turns:
            return None
        question = self._turns[-2]
        self._turns = self._turns[:-2]
        self._waiting = (*question.images, *self._waiting)
        return question.text.removeprefix(f"{IMAGE_PLACEHOLDER}\n" * len(question.images))

    @property
    def history(self) -> list[tuple[Speaker, str]]:
        """The turns so far, with `<image>` marks, oldest first."""
        return [(turn.speaker, turn.text) for turn in self._turns]

    @property
    def prompt(self) -> str:
        """The text of the conversation so far, as the model reads it."""
        turns = self.history
        return self.engine.loaded.template.text(turns, generation_prompt=len(turns) % 2 == 1)

    def add_image(self, image: ImageInput) -> None:
        """Show a picture; it goes with the next question."""
        self._waiting += (image,)

    def stop(self) -> None:
        """End the answer that is being streamed after its current token; what was said stays said."""
        self._stopped = True

    def ask(self, text: str) -> Generator[str, None, None]:
        """Ask, and stream the answer in pieces of text.

        However the stream ends (done, `stop()`, closed, an interrupt in the middle), the chat goes on: a
        partial answer is closed and kept; a question interrupted before its first word is taken back.
        InputError if the question does not fit the context even alone.
        """
        self._stopped = False
        question = _Turn("human", question_text(text, len(self._waiting)), self._waiting)
        earlier = list(self._turns)
        self._turns.append(question)
        self._waiting = ()
        answer = AnswerText(self.engine.tokenizer, self._decoding.stop)
        whole = False
        try:
            ids = self._fit()
            yield from self._stream(ids, answer)
            whole = True
        finally:
            if whole or answer.text:
                self._turns.append(_Turn("gpt", answer.text))
            else:
                self._turns, self._waiting = earlier, question.images

    def _stream(self, ids: list[int], answer: AnswerText) -> Iterator[str]:
        room = min(self._decoding.max_new_tokens, self.engine.context_len - len(ids))
        logits = self._read(ids)
        for count in range(1, room + 1):
            token = int(next_tokens(logits, self._decoding, [self._draw]))
            if token in self.engine.end_ids:
                break
            if piece := answer.push(token):
                yield piece
            if answer.stopped or self._stopped or count == room:
                break
            logits = self._step([token], [token])
        if piece := answer.finish():
            yield piece

    def _fit(self) -> list[int]:
        """The prompt's ids, after forgetting the oldest exchanges until question and answer have room."""
        context = self.engine.context_len
        reserve = min(self._decoding.max_new_tokens, context // 4)
        while True:
            ids = self.engine.processor.encode_prompt(self.history, self._sizes())
            if len(ids) + reserve <= context:
                return ids
            if len(self._turns) == 1:
                if len(ids) < context:
                    return ids
                raise InputError(f"the question has {len(ids)} tokens, the model's context is {context}")
            old, _, following, *rest = self._turns
            marks = f"{IMAGE_PLACEHOLDER}\n" * len(old.images)
            kept = _Turn("human", marks + following.text, (*old.images, *following.images))
            self._turns = [kept, *rest]
            self.forgotten += 1

    def _read(self, ids: list[int]) -> torch.Tensor:
        """Bring the cache to the prompt `ids`; logits (1, vocabulary) behind it."""
        images = [image for turn in self._turns for image in turn.images]
        tokens = self.engine.processor.vision.token_counts(self._sizes())
        keys = self._keys(ids, images, tokens)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(keys, self._held, strict=False))
        kept = min(sum(1 for _ in same), len(ids) - 1)
        read, seen = sum(isinstance(key, tuple) for key in keys[:kept]), 0
        while seen < len(tokens) and read >= tokens[seen]:
            read -= tokens[seen]
            seen += 1
        kept -= read  # a picture is only ever read whole
        self._held = self._held[:kept]
        if kept:
            crop_cache(self._cache, kept)
        else:
            self._cache = self.engine.new_cache()
        fresh = self.engine.pixels(images)[seen:] if seen < len(images) else []
        return self._step(ids[kept:], keys[kept:], fresh)

    def _step(self, ids: list[int], keys: Sequence[_Key], images: Sequence[Pixels] = ()) -> torch.Tensor:
        device = self.engine.model.device
        columns = len(self._held) + len(ids)
        mask = torch.ones(1, columns, dtype=torch.long, device=device)
        with self.engine.evaluating():
            logits = self.engine.forward(torch.tensor([ids], device=device), mask, self._cache, images)
        self._held += keys  # only now: an interrupt above leaves columns that the next cut removes
        return logits

    def _sizes(self) -> list[Size]:
        return [image_size(image) for turn in self._turns for image in turn.images]

    def _keys(self, ids: list[int], images: Sequence[ImageInput], tokens: Sequence[int]) -> list[_Key]:
        """`ids` with each picture's tokens replaced by what names it, so that another picture in the same
        place is not taken for it, nor the same one read otherwise (OneVision reads one of several so)."""
        names = iter([(p, count) for p, count in zip(images, tokens, strict=True) for _ in range(count)])
        image_token = self.engine.processor.image_token_id
        return [next(names) if token == image_token else token for token in ids]
