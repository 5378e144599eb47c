"""Answers that read a picture once: batches of questions, and the reading that chats are made of.

Questions about one picture are branches behind one copy of it (branches.py); pictures are read and answered
together, and the next ones enter as others are done (batching.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Cache, GenerationConfig

from llava.attention import SDPA_GROUPED
from llava.batching import Branch, ContinuousBatch
from llava.branches import new_cache
from llava.decoding import Decoding, clean_text
from llava.errors import InputError
from llava.model.builder import LoadedModel
from llava.records import question_text
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


class Engine:
    """Answers questions with one loaded model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.processor = loaded.processor
        text = self.model.config.text_config
        # with a window, attention forgets what is further back; a cache of branches does not
        self.context_len = min(
            loaded.context_len, getattr(text, "sliding_window", None) or loaded.context_len
        )
        special = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        ends = self.model.generation_config.eos_token_id
        end_ids = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        end_ids += [self.tokenizer.convert_tokens_to_ids(s) for s in loaded.template.stop if s in special]
        self.end_ids = frozenset([*end_ids, self.tokenizer.eos_token_id])
        self.stop = tuple(s for s in loaded.template.stop if s not in special)
        pad = self.tokenizer.pad_token_id
        self.pad_id = int(self.tokenizer.eos_token_id if pad is None else pad)
        grouped = text.num_key_value_heads < text.num_attention_heads
        if grouped or text._attn_implementation != "sdpa":  # other kinds take no bool mask (`read`)
            self.model.set_attn_implementation({"text_config": SDPA_GROUPED})
        self.most_at_once: int | None = None  # questions, learnt from running out of memory

    def answer(
        self, requests: Sequence[Request], *, batch_size: int | None = None, **options: Any
    ) -> list[Result]:
        """The answers to `requests`, in their order; `options` are those of `Decoding`.

        At most `batch_size` questions run together (None: as many as the free memory holds), fewer where
        memory runs out. With a temperature, `seed` and the question's id decide the answer, not the batch. A
        question that cannot be asked (longer than the context, special tokens in it) has `error` set.
        """
        decoding = self._decoding(**options)
        groups: dict[object, list[Branch]] = {}
        for order, request in enumerate(requests):
            branch = self._branch(request, order, decoding)
            groups.setdefault(branch.key, []).append(branch)
        # prefixes of nearly one length are read together
        ordered = sorted(groups.values(), key=lambda group: group[0].prefix)
        batch = ContinuousBatch(self, (b for group in ordered for b in group), batch_size, decoding)
        results = {branch.order: self._result(branch) for branch in batch}
        return [results[order] for order in range(len(requests))]

    def stream(
        self, requests: Iterable[Request], *, batch_size: int | None = None, **options: Any
    ) -> Iterator[Result]:
        """Results in the order in which they are found; requests are taken when there is room for them.

        Options are as for `answer`. Requests about the same picture should follow each other.
        """
        decoding = self._decoding(**options)
        branches = (self._branch(request, order, decoding) for order, request in enumerate(requests))
        return map(self._result, ContinuousBatch(self, branches, batch_size, decoding))

    def _decoding(self, stop: Sequence[str] = (), **options: Any) -> Decoding:
        return Decoding(stop=(*self.stop, *stop), **options)

    def _branch(self, request: Request, order: int, decoding: Decoding) -> Branch:
        try:
            question = question_text(request.text, len(request.images))
            sizes = [picture_size(image) for image in request.images]
            ids = self.processor.encode_prompt([("human", question)], sizes)
            room = min(decoding.max_new_tokens, self.context_len - len(ids))
            if room < 1:
                raise InputError(
                    f"the question has {len(ids)} tokens, the model's context is {self.context_len}"
                )
            choices = [self._choice_tokens(question, sizes, choice, ids) for choice in request.choices or ()]
        except InputError as error:
            return Branch(request, order, error=str(error))
        return Branch(request, order, ids, self._prefix_length(ids), choices, room)

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
        """Dropout off, and back on: the trainer asks questions of the model it is training."""
        if not self.model.training:  # either way goes through all modules, too slow for each word of a chat
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    def forward(self, ids: Tensor, mask: Tensor, cache: Cache, pictures: Sequence[Pixels] = ()) -> Tensor:
        """Read `ids` (rows, new) behind what `cache` holds; float32 logits (rows, vocabulary) of the last.

        `mask` (rows, cached + new) is 0 on padding; `pictures` fill the picture tokens among `ids` in order.
        """
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.read(ids, mask, positions, cache, pictures)[:, -1].float()

    @torch.inference_mode()
    def read(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        pictures: Sequence[Pixels] = (),
        keep: int = 1,
    ) -> Tensor:
        """As `forward`, at the given positions (rows, new); the logits (rows, keep, vocabulary) of the last
        `keep` tokens. `mask` may also say what each token sees: bool (rows, 1, new, cached + new)."""
        output = self.model(
            input_ids=ids,
            **self._picture_inputs(pictures),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits

    def new_cache(self) -> Cache:
        """An empty cache for `forward`."""
        return new_cache()

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
    def beam_search(self, branch: Branch, num_beams: int) -> list[int]:
        """The tokens of the best answer: transformers' own beam search, one question at a time."""
        ids = torch.tensor([branch.ids], device=self.model.device)
        given = self._picture_inputs(self.pixels(branch.request.images))
        config = GenerationConfig(
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=branch.room,
            eos_token_id=sorted(self.end_ids),
            pad_token_id=self.pad_id,
        )
        # else what the model's folder says (a repetition penalty, ...) is added, which greedy answers ignore
        theirs, self.model.generation_config = self.model.generation_config, config
        try:
            output = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), **given, generation_config=config
            )
        finally:
            self.model.generation_config = theirs
        tokens: list[int] = output[0, len(branch.ids) :].tolist()
        return tokens

    def _result(self, branch: Branch) -> Result:
        if branch.text is not None:
            branch.text.finish()
            text = branch.text.text
        else:
            text = clean_text(self.tokenizer, branch.answer).strip()
        chances = None
        if branch.scores and branch.request.choices:
            values = torch.tensor(branch.scores, dtype=torch.float64).softmax(dim=0).tolist()
            chances = dict(zip(branch.request.choices, values, strict=True))
        return Result(branch.request.question_id, text, chances, branch.truncated, branch.error)
