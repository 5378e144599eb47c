"""Answer many questions with one model, reading each image once.

Questions about one image are branches after one copy of it in the KV cache (kv_cache.py). Images are read and
their questions answered together, and the next ones are admitted as others finish (batching.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llava.inference.batching import ContinuousBatch
from llava.inference.encoding import make_branch, make_result
from llava.inference.model_runner import ModelRunner
from llava.inference.requests import Branch, Request, Result
from llava.inference.sampling import SamplingOptions
from llava.model.builder import LoadedModel

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
            branch = make_branch(self.runner, request, sampling, order=order)
            groups.setdefault(branch.prefix_key, []).append(branch)
        # prefixes of nearly the same length are read together
        ordered = sorted(groups.values(), key=lambda group: group[0].prefix_length)
        batch = ContinuousBatch(self.runner, batch_size)
        branches = (branch for group in ordered for branch in group)
        results = {branch.order: make_result(self.runner, branch) for branch in batch.run(branches)}
        return [results[order] for order in range(len(requests))]

    def stream(
        self, requests: Iterable[Request], *, batch_size: int | None = None, **options: Any
    ) -> Iterator[Result]:
        """Yield results in the order in which they are found; requests are taken as there is room for them.

        Arguments and errors are as for `answer`. Requests about the same image should follow each other.
        """
        sampling = self._sampling_options(**options)
        branches = (
            make_branch(self.runner, request, sampling, order=order) for order, request in enumerate(requests)
        )
        finished = ContinuousBatch(self.runner, batch_size).run(branches)
        return (make_result(self.runner, branch) for branch in finished)

    def _sampling_options(self, stop: Sequence[str] = (), **options: Any) -> SamplingOptions:
        return SamplingOptions(stop=tuple(stop), **options).with_ends(self.runner.stop_strings)
