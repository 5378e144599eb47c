"""Answer many questions with one model, reading each image once.

Questions about one image are branches after one copy of it in the KV cache (kv_cache.py). Images are read and
their questions answered together, and the next ones are admitted as others finish (batching.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from llava.common.errors import InputError
from llava.common.records import question_text
from llava.inference.batching import ContinuousBatch
from llava.inference.model_runner import ModelRunner
from llava.inference.requests import Branch, Request, Result
from llava.inference.sampling import SamplingOptions, decode_text
from llava.model.builder import LoadedModel
from llava.processing.vision import Size, image_size

__all__ = ["Engine", "Request", "Result"]


class Engine:
    """Answers questions with one loaded model; its `runner` may serve chats besides."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.runner = ModelRunner(loaded)

    def answer(
        self, requests: Sequence[Request], *, batch_size: int | None = None, **options: Any
    ) -> list[Result]:
        """Answer all `requests`.

        Args:
            requests: The questions, in any order.
            batch_size: How many run together at most; None for as many as the free memory holds. Fewer run
                where memory runs out.
            **options: The fields of `SamplingOptions`. With a temperature, `seed` and the question's id
                decide the answer, not the batch.

        Returns:
            The results in the order of `requests`. A question that cannot be asked (longer than the context,
            special tokens in it) or does not fit in the memory has its `error` set.

        Raises:
            InputError: an option is out of range, or the first question tried does not fit in the memory.
        """
        sampling = self._sampling_options(**options)
        groups: dict[object, list[Branch]] = {}
        for order, request in enumerate(requests):
            branch = self._make_branch(request, order, sampling)
            groups.setdefault(branch.prefix_key, []).append(branch)
        # prefixes of nearly the same length are read together
        ordered = sorted(groups.values(), key=lambda group: group[0].prefix_length)
        batch = ContinuousBatch(self.runner, batch_size, sampling)
        branches = (branch for group in ordered for branch in group)
        results = {branch.order: self._make_result(branch) for branch in batch.run(branches)}
        return [results[order] for order in range(len(requests))]

    def stream(
        self, requests: Iterable[Request], *, batch_size: int | None = None, **options: Any
    ) -> Iterator[Result]:
        """Yield results in the order in which they are found; requests are taken as there is room for them.

        Arguments and errors are as for `answer`. Requests about the same image should follow each other.
        """
        sampling = self._sampling_options(**options)
        branches = (self._make_branch(request, order, sampling) for order, request in enumerate(requests))
        return map(self._make_result, ContinuousBatch(self.runner, batch_size, sampling).run(branches))

    def _sampling_options(self, stop: Sequence[str] = (), **options: Any) -> SamplingOptions:
        return SamplingOptions(stop=(*self.runner.stop_strings, *stop), **options)

    def _make_branch(self, request: Request, order: int, sampling: SamplingOptions) -> Branch:
        """Encode a request; the branch of one that cannot be asked has its `error` set."""
        context_len = self.runner.context_len
        try:
            question = question_text(request.text, len(request.images))
            sizes = [image_size(image) for image in request.images]
            ids = self.runner.processor.encode_prompt([("human", question)], sizes)
            max_new_tokens = min(sampling.max_new_tokens, context_len - len(ids))
            if max_new_tokens < 1:
                raise InputError(f"the question has {len(ids)} tokens, the model's context is {context_len}")
            choices = [self._choice_ids(question, sizes, choice, ids) for choice in request.choices or ()]
        except InputError as error:
            return Branch(request, order, error=str(error))
        return Branch(request, order, ids, self._prefix_length(ids), choices, max_new_tokens)

    def _prefix_length(self, ids: list[int]) -> int:
        """Return how many leading tokens reach to the end of the last image; 0 without one."""
        image_token = self.runner.processor.image_token_id
        return len(ids) - ids[::-1].index(image_token) if image_token in ids else 0

    def _choice_ids(
        self, question: str, sizes: Sequence[Size], choice: str, prompt_ids: list[int]
    ) -> list[int]:
        """Return the tokens of a choice as the answer to the question.

        Raises:
            InputError: they do not begin where the prompt ends, or do not fit in the context.
        """
        encoded = self.runner.processor.encode([("human", question), ("gpt", choice)], sizes)
        if encoded.input_ids[: len(prompt_ids)] != prompt_ids:
            raise InputError(f"the choice {choice!r} does not begin on a token boundary in this template")
        if len(encoded.input_ids) > self.runner.context_len:
            raise InputError(
                f"the choice {choice!r} does not fit in the context of {self.runner.context_len} tokens"
            )
        return encoded.input_ids[len(prompt_ids) :]

    def _make_result(self, branch: Branch) -> Result:
        if branch.answer_text is not None:
            branch.answer_text.finish()
            text = branch.answer_text.text
        else:
            text = decode_text(self.runner.tokenizer, branch.answer_ids).strip()
        probabilities = None
        if branch.choice_scores and branch.request.choices:
            values = torch.tensor(branch.choice_scores, dtype=torch.float64).softmax(dim=0).tolist()
            probabilities = dict(zip(branch.request.choices, values, strict=True))
        return Result(branch.request.question_id, text, probabilities, branch.truncated, branch.error)
