"""Continuous batching: branches are admitted as others finish, an image's questions together.

    waiting --admit--> prefill the images' prefixes, then all their questions at once; choose first tokens
    running --step---> read and choose one more token for every running branch
            --evict--> finished ones at once; their columns of the cache once they are half of it

An image's questions are branches of one row of the cache (kv_cache.py). Prefixes of nearly the same length
are read together, wherever they are in the queue; the question that has waited longest is always among those
that are admitted. Where memory runs out, all running branches go back to the queue and half as many run at a
time; a question that does not fit alone gets an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from random import Random

import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.inference.branch_runner import BranchRunner
from llava.inference.kv_cache import BranchedKVCache
from llava.inference.memory import is_out_of_memory, tokens_that_fit
from llava.inference.model_runner import ModelRunner
from llava.inference.requests import Branch
from llava.inference.sampling import AnswerText, SamplingOptions, next_tokens

MAX_RUNNING = {"cuda": 64, "cpu": 32}
"""How many branches run at a time where no batch size is given."""
MAX_PREFILL_TOKENS = 16_384
"""That are read in one forward pass, padding included."""
MAX_PADDING = 1.1
"""How many times its own length a prefix may be padded to, to be read with others."""
CACHE_GROWTH = 1.25
"""The buffers of a cache are at most so many times what it holds (GrowingLayer)."""
REMEDY = "try --load-4bit or fewer new tokens"


class ContinuousBatch:
    """Runs branches together, on one KV cache, until each is finished.

    `add` takes branches at any time; `step` advances those that are here and returns the finished ones. `run`
    does both for an iterator of branches.
    """

    def __init__(self, runner: ModelRunner, batch_size: int | None, options: SamplingOptions) -> None:
        """Start with an empty queue.

        Args:
            runner: Runs the model.
            batch_size: How many branches may run at a time; None for as many as the free memory holds.
            options: How all answers are sampled.

        Raises:
            InputError: the batch size is below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size is {batch_size}; it must be at least 1")
        self._runner = runner
        self._branch_runner = BranchRunner(runner)
        self._options = options
        self._max_running = batch_size or MAX_RUNNING.get(runner.model.device.type, MAX_RUNNING["cpu"])
        self._limit = min(self._max_running, runner.max_branches or self._max_running)  # as memory allows
        self._max_cached = tokens_that_fit(runner.model) if batch_size is None else None
        self._waiting: deque[Branch] = deque()
        self._entering: list[Branch] = []  # while they are being admitted
        self._running: list[list[Branch]] = []  # the branches of each row of `_cache`
        self._cache: BranchedKVCache | None = None
        self._finished: list[Branch] = []  # since the last step returned
        self._answered = False  # any branch yet

    def run(self, branches: Iterator[Branch]) -> Iterator[Branch]:
        """Yield `branches` in the order in which they finish; they are taken as there is room in the queue.

        Raises:
            InputError: not even the first branch fits in the memory.
        """
        with self._runner.eval_mode():
            while True:
                # one more than may run: then all branches of the next images that can be admitted have come
                while len(self._waiting) <= self._limit and (branch := next(branches, None)) is not None:
                    self.add(branch)
                if not self.has_work:
                    return
                yield from self.step()

    def add(self, branch: Branch) -> None:
        """Put a branch at the end of the queue; one with an error is finished."""
        if branch.error is not None:
            self._finished.append(branch)
        else:
            self._waiting.append(branch)

    @property
    def has_work(self) -> bool:
        """Whether any branch has not been returned by `step` yet."""
        return bool(self._waiting or self._running or self._finished)

    def step(self) -> list[Branch]:
        """Admit waiting branches or, where none can be, choose one more token for every running one.

        Returns:
            The branches that are finished since the last step.

        Raises:
            InputError: not even the first branch of all fits in the memory.
        """
        if self._waiting or self._running:
            out_of_memory = False
            try:
                if groups := self._next_groups():
                    self._admit(groups)
                else:
                    self._decode()
                self._evict_finished()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            if out_of_memory:  # outside the handler, which keeps the tensors of the failed pass alive
                self._preempt()
        finished, self._finished = self._finished, []
        self._answered |= any(branch.error is None for branch in finished)
        return finished

    # --- admission ------------------------------------------------------------------------------------

    def _next_groups(self) -> list[list[Branch]]:
        """Take the branches to admit now out of the queue, one list per image.

        None are admitted while more than half of the places are taken. An image's branches are admitted
        together; they are split only where they are more than the limit or do not fit.
        """
        free = self._limit - sum(map(len, self._running))
        if self._running and 2 * free < self._limit:
            return []
        waiting: dict[object, list[Branch]] = {}
        for branch in self._waiting:
            waiting.setdefault(branch.prefix_key, []).append(branch)
        groups: list[list[Branch]] = []
        for group in waiting.values():
            if not groups and len(group) > self._limit:
                group = group[:free]
            while not groups and not self._running and len(group) > 1 and not self._can_admit([group]):
                group = group[: len(group) // 2]
            alone = not groups and not self._running  # a single branch is tried, whatever the estimate says
            if alone or (len(group) <= free and self._can_admit([*groups, group])):
                groups.append(group)
                free -= len(group)
            elif not groups:
                return []  # the first in the queue goes first
        admitted = set(chain(*groups))
        self._waiting = deque(branch for branch in self._waiting if branch not in admitted)
        return groups

    def _can_admit(self, groups: Sequence[Sequence[Branch]]) -> bool:
        """Whether the groups can be read together, and the cache has room for them."""
        prefixes = [group[0].prefix_length for group in groups]
        prefix_tokens = len(groups) * max(prefixes)
        question_tokens = len(groups) * max(
            sum(len(branch.prompt_ids) - branch.prefix_length for branch in group) for group in groups
        )
        if len(groups) > 1:
            uneven = max(prefixes) > MAX_PADDING * min(prefixes)
            if uneven or prefix_tokens > MAX_PREFILL_TOKENS:
                return False
        return question_tokens <= MAX_PREFILL_TOKENS and self._fits_cache(groups)

    def _fits_cache(self, groups: Sequence[Sequence[Branch]]) -> bool:
        """Whether the cache has room for the groups beside the running rows, if all answers are longest."""
        if self._max_cached is None:
            return True
        rows = [row for row in (*self._running, *groups) if row]
        columns = (
            max(row[0].prefix_length for row in rows)
            + max(sum(branch.own_length for branch in row) for row in rows)
            + max(map(len, rows)) * max(branch.max_new_tokens for branch in chain(*rows))
        )  # fmt: skip
        return len(rows) * columns * CACHE_GROWTH <= self._max_cached

    @torch.inference_mode()
    def _admit(self, groups: list[list[Branch]]) -> None:
        """Prefill the groups, choose their first tokens and add them to the running rows."""
        self._entering = list(chain(*groups))
        if self._cache is not None:
            self._compact(self._cache)  # `_fits_cache` counts on it, and extending copies everything anyway
        for group in groups:
            for owner, branch in enumerate(group, start=1):
                self._start(branch, owner)
        beam_search = self._options.num_beams > 1
        if beam_search:
            for branch in self._entering:
                self._beam_search(branch)
        scored = any(branch.choice_ids for branch in self._entering)
        if scored or not beam_search:
            cache, logits = self._branch_runner.prefill(groups)
            if scored:
                self._branch_runner.score_choices(cache, groups, logits)
            if not beam_search:
                self._choose(groups, logits)
        self._finished += [branch for branch in self._entering if branch.finished]
        rows = [[branch for branch in group if not branch.finished] for group in groups]
        if any(rows):
            if self._cache is None:
                self._cache = cache
            else:
                self._cache.extend(cache)
            self._running += rows
        self._entering = []

    def _start(self, branch: Branch, owner: int) -> None:
        branch.restart()
        branch.owner = owner
        if self._options.stop:
            branch.answer_text = AnswerText(self._runner.tokenizer, self._options.stop)
        branch.generator = Random(f"{self._options.seed}:{branch.request.question_id}")

    def _beam_search(self, branch: Branch) -> None:
        images = self._runner.prepare_images(branch.request.images)
        beams = self._options.num_beams
        for token in self._runner.beam_search(branch.prompt_ids, images, beams, branch.max_new_tokens):
            self._append_token(branch, token)
        branch.finished = True

    # --- running --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _decode(self) -> None:
        """Read the last token of every running branch, and choose its next."""
        assert self._cache is not None
        logits = self._branch_runner.decode(self._cache, self._running)
        self._choose(self._running, logits)
        for index, row in enumerate(self._running):
            self._finished += [branch for branch in row if branch.finished]
            self._running[index] = [branch for branch in row if not branch.finished]

    def _choose(self, rows: Sequence[Sequence[Branch]], logits: Tensor) -> None:
        """Choose the next token of each branch from logits (rows, branches of a row, vocabulary)."""
        places = [(row, place) for row, branches in enumerate(rows) for place in range(len(branches))]
        branches = list(chain(*rows))
        row, place = torch.tensor(places, device=logits.device).unbind(dim=1)
        generators = [branch.generator for branch in branches]
        tokens = next_tokens(logits[row, place].float(), self._options, generators)
        for branch, token in zip(branches, tokens.tolist(), strict=True):
            self._append_token(branch, token)

    def _append_token(self, branch: Branch, token: int) -> None:
        """Add a token to the branch's answer, and find out whether that ends it."""
        if branch.finished:
            return
        if token in self._runner.stop_token_ids:
            branch.finished = True
            return
        branch.answer_ids.append(token)
        if branch.answer_text is not None:
            branch.answer_text.push(token)
            branch.finished = branch.answer_text.stopped
        if not branch.finished and len(branch.answer_ids) >= branch.max_new_tokens:
            branch.finished = branch.truncated = True

    # --- eviction -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _evict_finished(self) -> None:
        """Evict the columns of finished branches once they are half of the cache: it copies the others."""
        if self._cache is None:
            return
        if not any(self._running):
            self._cache, self._running = None, []
            return
        needed = sum(
            row[0].prefix_length + sum(branch.own_length for branch in row) for row in self._running if row
        )
        if 2 * needed <= self._cache.owners.numel():
            self._compact(self._cache)

    def _compact(self, cache: BranchedKVCache) -> None:
        """Copy the columns of running branches, and nothing else."""
        kept = [index for index, row in enumerate(self._running) if row]
        self._running = [self._running[index] for index in kept]
        cache.keep(kept, [[branch.owner for branch in row] for row in self._running])

    def _preempt(self) -> None:
        """Put all running branches back to the front of the queue, and run half as many at a time.

        Finished ones stay finished. A branch that does not fit even alone finishes with an error, and the
        others run together again.

        Raises:
            InputError: it is the very first.
        """
        unfinished = [b for b in chain(*self._running, self._entering) if b not in self._finished]
        self._cache, self._running, self._entering = None, [], []
        if self._limit > 1:
            self._waiting.extendleft(reversed(unfinished))
            self._limit = self._runner.max_branches = max(1, len(unfinished) // 2)
        elif not self._answered:
            raise InputError(f"not even one question at a time fits in the memory; {REMEDY}")
        else:
            (branch,) = unfinished
            branch.restart()
            branch.error = f"the question does not fit in the memory, though asked alone; {REMEDY}"
            self._finished.append(branch)
            self._limit, self._runner.max_branches = self._max_running, None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
