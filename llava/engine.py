"""Answers that read a picture once: batches of questions, and chats that keep what they have read.

A batch runs in three stages over one KV cache; rows are questions, columns are tokens:

    prefix            one row per picture    [BOS system USER: <image> x 576]      encoded and read once
    question          one row per question   [prefix, copied | question, padded on the left]
    answer            token by token         [prefix | question | answer so far]   finished rows dropped

The mask hides the padding and positions do not count it, so every row computes what it would alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from llava.decoding import AnswerText, Decoding, clean_text, next_tokens
from llava.errors import InputError
from llava.model.builder import LoadedModel
from llava.records import IMAGE_PLACEHOLDER
from llava.vision import Pixels, Size, picture_size

Picture = Image.Image | Pixels  # Pixels are what RecordProcessor.pixels made of a picture


@dataclass(frozen=True)
class Request:
    """A question. Requests that hold the same picture *object* share its reading.

    `<image>` in the text marks where a picture goes; without any mark the pictures come first, each on a
    line of its own, as LLaVA asks. `choices` are answers to give a probability for.
    """

    question_id: str | int
    text: str
    images: Sequence[Picture] = ()
    choices: Sequence[str] | None = None


@dataclass(frozen=True)
class Result:
    """An answer. `choices` maps each choice to its probability among them; `truncated` says that
    `max_new_tokens` or the model's context ended it; `error` says why there is none."""

    question_id: str | int
    text: str
    choices: dict[str, float] | None = None
    truncated: bool = False
    error: str | None = None


@dataclass(eq=False)
class _Row:
    """A question on its way. `ids` is the whole prompt, its first `prefix` tokens end with the last
    picture; `choices` are the supervised tokens of each choice."""

    request: Request
    order: int
    ids: list[int]
    prefix: int
    choices: list[list[int]]
    room: int
    draw: Random = field(default_factory=Random)
    answer: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    text: AnswerText | None = None
    done: bool = False
    truncated: bool = False

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows with equal keys share their prefix: the same pictures behind the same text."""
        return tuple(id(picture) for picture in self.request.images), tuple(self.ids[: self.prefix])


class Engine:
    """Answers batches of questions with one loaded model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.processor = loaded.processor
        self.context_len = loaded.context_len
        special = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        ends = self.model.generation_config.eos_token_id
        end_ids = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        end_ids += [self.tokenizer.convert_tokens_to_ids(s) for s in loaded.template.stop if s in special]
        self.end_ids = frozenset([*end_ids, self.tokenizer.eos_token_id])
        self.stop = tuple(s for s in loaded.template.stop if s not in special)
        pad = self.tokenizer.pad_token_id
        self.pad_id = int(self.tokenizer.eos_token_id if pad is None else pad)
        self._rows_that_fit: int | None = None  # learnt from running out of CUDA memory

    def answer(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int = 16,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        num_beams: int = 1,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Result]:
        """The answers to `requests`, in their order; see `Decoding` for the options.

        At most `batch_size` questions run together; on CUDA running out of memory the batch is halved and
        tried again. With a temperature, `seed` and the question's id decide the answer, not the batch.
        A question that cannot be asked (longer than the context, special tokens in it) has `error` set.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}; it must be at least 1")
        decoding = Decoding(max_new_tokens, temperature, top_p, num_beams, (*self.stop, *stop), seed)
        results: dict[int, Result] = {}
        groups: dict[object, list[_Row]] = {}
        for order, request in enumerate(requests):
            try:
                row = self._prepare(request, order, decoding)
            except InputError as error:
                results[order] = Result(request.question_id, "", error=str(error))
            else:
                groups.setdefault(row.key, []).append(row)
        waiting = [row for group in groups.values() for row in group]
        with self.evaluating():
            while waiting:
                size = min(batch_size, self._rows_that_fit or batch_size, len(waiting))
                batch = waiting[:size]
                if not self._fits(batch, decoding):
                    if size == 1:
                        raise InputError(
                            "one question at a time does not fit in the GPU's memory; "
                            "try --load-4bit or fewer new tokens"
                        )
                    self._rows_that_fit = size // 2
                    torch.cuda.empty_cache()
                    continue
                results.update((row.order, self._result(row)) for row in batch)
                waiting = waiting[size:]
        return [results[order] for order in range(len(requests))]

    def stream(
        self, requests: Iterable[Request], *, batch_size: int | None = None, **decoding: Any
    ) -> Iterator[Result]:
        """Results as they are found, requests taken as there is room for them; options as for `answer`."""
        size = batch_size or 16
        waiting = iter(requests)
        while batch := list(islice(waiting, size)):
            yield from self.answer(batch, batch_size=size, **decoding)

    def _fits(self, batch: list[_Row], decoding: Decoding) -> bool:
        """Answer `batch` in place; False, with nothing answered, if CUDA's memory did not suffice."""
        for row in batch:
            row.answer, row.done, row.truncated = [], False, False
            row.text = AnswerText(self.tokenizer, decoding.stop) if decoding.stop else None
            row.draw = Random(f"{decoding.seed}:{row.request.question_id}")
        try:
            self._answer_batch(batch, decoding)
        except torch.cuda.OutOfMemoryError:
            return False
        return True

    def _prepare(self, request: Request, order: int, decoding: Decoding) -> _Row:
        question = question_text(request.text, len(request.images))
        sizes = [picture_size(image) for image in request.images]
        ids = self.processor.encode_prompt([("human", question)], sizes)
        room = min(decoding.max_new_tokens, self.context_len - len(ids))
        if room < 1:
            raise InputError(f"the question has {len(ids)} tokens, the model's context is {self.context_len}")
        choices = [self._choice_tokens(question, sizes, choice, ids) for choice in request.choices or ()]
        return _Row(request, order, ids, self._prefix_length(ids), choices, room)

    def _prefix_length(self, ids: list[int]) -> int:
        """How many leading tokens reach to the end of the last picture; 0 without one."""
        image_token = self.processor.image_token_id
        return len(ids) - ids[::-1].index(image_token) if image_token in ids else 0

    def _choice_tokens(
        self, question: str, sizes: Sequence[Size], choice: str, prompt: list[int]
    ) -> list[int]:
        encoded = self.processor.encode([("human", question), ("gpt", choice)], sizes)
        if encoded.input_ids[: len(prompt)] != prompt:
            raise InputError(f"the choice {choice!r} does not begin on a token boundary in this template")
        if len(encoded.input_ids) > self.context_len:
            raise InputError(
                f"the choice {choice!r} does not fit in the context of {self.context_len} tokens"
            )
        return encoded.input_ids[len(prompt) :]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off, and back as it was: the trainer asks questions of the model it is training."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, mask: Tensor, cache: DynamicCache, pictures: Sequence[Pixels] = ()
    ) -> Tensor:
        """Read `ids` (rows, new) behind what `cache` holds; float32 logits (rows, vocabulary) of the last.

        `mask` (rows, cached + new) is 0 on padding; `pictures` fill the picture tokens among `ids` in order.
        """
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.model(
            input_ids=ids,
            **self._picture_inputs(pictures),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def new_cache(self) -> DynamicCache:
        """An empty cache that keeps every column (with the model's config it would drop old ones where
        attention has a sliding window, and could not be cut back)."""
        return DynamicCache()

    def pixels(self, pictures: Sequence[Picture]) -> list[Pixels]:
        """The pictures of one conversation made ready, where they are not yet."""
        alone = len(pictures) == 1
        return [p if isinstance(p, Pixels) else self.processor.pixels(p, alone=alone) for p in pictures]

    def _picture_inputs(self, pictures: Sequence[Pixels]) -> dict[str, Any]:
        inputs = self.processor.pictures.inputs(pictures)
        if inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        return inputs

    @torch.inference_mode()
    def _answer_batch(self, rows: list[_Row], decoding: Decoding) -> None:
        if decoding.num_beams > 1:
            for row in rows:
                self._beam_search(row, decoding)
        scored = any(row.choices for row in rows)
        if decoding.num_beams > 1 and not scored:
            return
        cache, mask, logits = self._prefill(rows)
        if scored:
            self._score_choices(rows, cache, mask, logits)
        if decoding.num_beams == 1:
            self._decode(rows, cache, mask, logits, decoding)

    def _prefill(self, rows: list[_Row]) -> tuple[DynamicCache, Tensor, Tensor]:
        """Read each distinct prefix once, then every question behind a copy of its prefix.

        Returns the cache, its mask (rows, columns) and the logits (rows, vocabulary) behind the questions.
        """
        cache = self.new_cache()
        mask = torch.zeros(len(rows), 0, dtype=torch.long, device=self.model.device)
        firsts = {row.key: row for row in rows if row.prefix}
        if firsts:
            ids, prefix_mask = self._pad_left([row.ids[: row.prefix] for row in firsts.values()])
            pictures = [made for row in firsts.values() for made in self.pixels(row.request.images)]
            self.forward(ids, prefix_mask, cache, pictures)
            place = {key: index for index, key in enumerate(firsts)}
            # a row without a picture sits behind some prefix too, all of it masked
            source = torch.tensor([place.get(row.key, 0) for row in rows], device=self.model.device)
            has_prefix = torch.tensor([[row.prefix > 0] for row in rows], device=self.model.device)
            cache.batch_select_indices(source)
            mask = prefix_mask[source] * has_prefix
        ids, question_mask = self._pad_left([row.ids[row.prefix :] for row in rows])
        mask = torch.cat([mask, question_mask], dim=1)
        return cache, mask, self.forward(ids, mask, cache)

    def _pad_left(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(ids) for ids in sequences)
        padded = [[self.pad_id] * (width - len(ids)) + ids for ids in sequences]
        kept = [[0] * (width - len(ids)) + [1] * len(ids) for ids in sequences]
        device = self.model.device
        return torch.tensor(padded, device=device), torch.tensor(kept, device=device)

    def _decode(
        self, rows: list[_Row], cache: DynamicCache, mask: Tensor, logits: Tensor, decoding: Decoding
    ) -> None:
        """Token by token until every row is done. Rows that are done stay in the batch, ignored, until
        half of it is: dropping them copies the cache."""
        while True:
            tokens = next_tokens(logits, decoding, [row.draw for row in rows])
            for row, token in zip(rows, tokens.tolist(), strict=True):
                self._take(row, token)
            going = [index for index, row in enumerate(rows) if not row.done]
            if not going:
                return
            if 2 * len(going) <= len(rows):
                kept = torch.tensor(going, device=tokens.device)
                cache.batch_select_indices(kept)
                tokens, mask, rows = tokens[kept], mask[kept], [rows[index] for index in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self.forward(tokens[:, None], mask, cache)

    def _take(self, row: _Row, token: int) -> None:
        if row.done:
            return
        if token in self.end_ids:
            row.done = True
            return
        row.answer.append(token)
        if row.text is not None:
            row.text.push(token)
            row.done = row.text.stopped
        if not row.done and len(row.answer) >= row.room:
            row.done = row.truncated = True

    def _score_choices(self, rows: list[_Row], cache: DynamicCache, mask: Tensor, logits: Tensor) -> None:
        """Set each row's `scores`: the log-probability of every choice, its end of turn included.

        All choices of a row run in one forward as branches behind its question: each sees the question and
        itself, never a sibling, and its positions restart behind the question. The cache is left as found.
        """
        first = logits.log_softmax(dim=-1)
        fed = [[choice[:-1] for choice in row.choices] for row in rows]
        width = max(sum(map(len, branches)) for branches in fed)
        columns = mask.shape[1]
        later = logits.new_zeros(len(rows), width, 0)
        if width:
            ids = torch.full((len(rows), width), self.pad_id)
            positions = torch.zeros(len(rows), width, dtype=torch.long)
            branch = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself only
            reads = torch.zeros(len(rows), width, 1, dtype=torch.bool)
            for index, (row, branches) in enumerate(zip(rows, fed, strict=True)):
                at = 0
                for tokens in branches:
                    span = slice(at, at + len(tokens))
                    ids[index, span] = torch.tensor(tokens, dtype=torch.long)
                    positions[index, span] = torch.arange(len(tokens)) + len(row.ids)
                    branch[index, span, span] = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
                    at += len(tokens)
                reads[index, :at] = True
            device = logits.device
            seen = torch.cat([reads.to(device) & mask.bool()[:, None], branch.to(device)], dim=2)
            lowest = torch.finfo(self.model.dtype).min
            bias = torch.zeros(seen.shape, dtype=self.model.dtype, device=device).masked_fill(~seen, lowest)
            output = self.model(
                input_ids=ids.to(device),
                attention_mask=bias[:, None],
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=True,
            )
            cut_cache(cache, columns)
            later = output.logits.float().log_softmax(dim=-1)
        for index, row in enumerate(rows):
            at = 0
            row.scores = []
            for choice in row.choices:
                score = float(first[index, choice[0]])
                for token in choice[1:]:
                    score += float(later[index, at, token])
                    at += 1
                row.scores.append(score)

    @torch.inference_mode()
    def _beam_search(self, row: _Row, decoding: Decoding) -> None:
        """transformers' own beam search, one question at a time."""
        ids = torch.tensor([row.ids], device=self.model.device)
        given = self._picture_inputs(self.pixels(row.request.images))
        output = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **given,
            generation_config=GenerationConfig(
                num_beams=decoding.num_beams,
                do_sample=False,
                max_new_tokens=row.room,
                eos_token_id=sorted(self.end_ids),
                pad_token_id=self.pad_id,
            ),
        )
        for token in output[0, len(row.ids) :].tolist():
            self._take(row, token)

    def _result(self, row: _Row) -> Result:
        if row.text is not None:
            row.text.finish()
            text = row.text.text
        else:
            text = clean_text(self.tokenizer, row.answer).strip()
        chances = None
        if row.choices and row.request.choices:
            values = torch.tensor(row.scores, dtype=torch.float64).softmax(dim=0).tolist()
            chances = dict(zip(row.request.choices, values, strict=True))
        return Result(row.request.question_id, text, chances, row.truncated)


def question_text(text: str, pictures: int) -> str:
    """The question with an `<image>` for each picture: its own marks, or as many lines before it."""
    marks = text.count(IMAGE_PLACEHOLDER)
    if marks not in (0, pictures):
        raise InputError(f"the question has {marks} {IMAGE_PLACEHOLDER} mark(s) for {pictures} picture(s)")
    return text if marks else f"{IMAGE_PLACEHOLDER}\n" * pictures + text


def cut_cache(cache: DynamicCache, columns: int) -> None:
    """Keep the first `columns` of the cache, also where an interrupt left its layers uneven."""
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            layer.keys = layer.keys[..., :columns, :]
            layer.values = layer.values[..., :columns, :]
