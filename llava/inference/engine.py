"""Answers that read a picture once.

Questions about one picture are branches behind one copy of it (branches.py); pictures are read (reader.py)
and answered together, and the next ones enter as others are done (batching.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llava.common.errors import InputError
from llava.common.records import question_text
from llava.inference.batching import Branch, ContinuousBatch, Request
from llava.inference.model_runner import ModelRunner
from llava.inference.sampling import SamplingOptions, decode_text
from llava.processing.vision import Size, image_size

__all__ = ["Engine", "Request", "Result"]


@dataclass(frozen=True)
class Result:
    """An answer. `choices` maps each choice to its probability among them; `truncated` says that
    `max_new_tokens` or the model's context ended it; `error` says why there is none."""

    question_id: str | int
    text: str
    choices: dict[str, float] | None = None
    truncated: bool = False
    error: str | None = None


class Engine(ModelRunner):
    """Answers questions with one loaded model."""

    def answer(
        self, requests: Sequence[Request], *, batch_size: int | None = None, **options: Any
    ) -> list[Result]:
        """The answers to `requests`, in their order; `options` are those of `Decoding`.

        At most `batch_size` questions run together (None: as many as the free memory holds), fewer where
        memory runs out. With a temperature, `seed` and the question's id decide the answer, not the batch. A
        question that cannot be asked (longer than the context, special tokens in it) has `error` set, and so
        has one that does not fit in the memory; InputError if the first that is tried does not.
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

    def _decoding(self, stop: Sequence[str] = (), **options: Any) -> SamplingOptions:
        return SamplingOptions(stop=(*self.stop, *stop), **options)

    def _branch(self, request: Request, order: int, decoding: SamplingOptions) -> Branch:
        try:
            question = question_text(request.text, len(request.images))
            sizes = [image_size(image) for image in request.images]
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

    def _result(self, branch: Branch) -> Result:
        if branch.text is not None:
            branch.text.finish()
            text = branch.text.text
        else:
            text = decode_text(self.tokenizer, branch.answer).strip()
        chances = None
        if branch.scores and branch.request.choices:
            values = torch.tensor(branch.scores, dtype=torch.float64).softmax(dim=0).tolist()
            chances = dict(zip(branch.request.choices, values, strict=True))
        return Result(branch.request.question_id, text, chances, branch.truncated, branch.error)
