"""Continuous batching: branches are admitted as others finish, an image's questions together.

    waiting --admit--> prefill the images' prefixes, then all their questions at once; choose first tokens
    running --step---> read and choose one more token for every running branch
            --evict--> finished ones at once; their columns of the cache once they are half of it

An image's questions are branches of one row of the cache (kv_cache.py). Prefixes of nearly the same length
are read together, wherever they are in the queue; the question that has waited longest is always among those
that are admitted. Where memory runs out, the prefix store is emptied; where that is not enough, all running
branches go back to the queue, with their answers so far, and half as many run at a time; a question that does
not fit alone gets an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, count
from random import Random

import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.inference.branch_runner import BranchRunner
from llava.inference.grammar import mask_logits
from llava.inference.kv_cache import BranchedKVCache
from llava.inference.memory import is_out_of_memory, tokens_that_fit
from llava.inference.model_runner import ModelRunner
from llava.inference.prefix_store import PrefixStore
from llava.inference.requests import Branch
from llava.inference.sampling import next_tokens, token_logprobs

MAX_RUNNING = {"cuda": 64, "cpu": 32}
"""How many branches run at a time where no batch size is given."""
MAX_PREFILL_TOKENS = 16_384
"""That are read in one forward pass, padding included."""
LIVE_PREFILL_TOKENS = {"cuda": 8192, "cpu": 1024}
"""The same in a live batch: those that run wait for it."""
MAX_PADDING = 1.1
"""How many times its own length a prefix may be padded to, to be read with others."""
CACHE_GROWTH = 1.25
"""The buffers of a cache are at most so many times what it holds (GrowingLayer)."""
LIVE_RECOVERY = 256
"""After so many answers without want of memory a live batch tries twice as many branches at a time again."""
LIVE_PADDING = 2
"""For the sake of shared rows, a step of a live batch may read so many times the tokens of its branches."""
REMEDY = "try --load-4bit or fewer new tokens"
TOO_LARGE = f"the question does not fit in the memory, though asked alone; {REMEDY}"


class ContinuousBatch:
    """Runs branches together, on one KV cache, until each is finished.

    `add` takes branches at any time; `step` advances those that are here and returns the finished ones. `run`
    does both for an iterator of branches.
    """

    def __init__(
        self,
        runner: ModelRunner,
        batch_size: int | None,
        store: PrefixStore | None = None,
        *,
        live: bool = False,
    ) -> None:
        """Start with an empty queue.

        Args:
            runner: Runs the model.
            batch_size: How many branches may run at a time; None for as many as the free memory holds.
            store: Keeps prefixes from one branch to the next; None for no longer than they run.
            live: Whether somebody waits for each branch: they are admitted in their order, as soon as there
                is a place, and not only once half of the places are free.

        Raises:
            InputError: the batch size is below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size is {batch_size}; it must be at least 1")
        self._runner = runner
        self._store = store
        self._store_emptied = False  # for want of memory, since the last branch that finished
        self._since_preempted = 0  # branches that have finished
        self._branch_runner = BranchRunner(runner, store)
        self._live = live
        device = runner.model.device.type
        self._max_read = LIVE_PREFILL_TOKENS.get(device, 1024) if live else MAX_PREFILL_TOKENS
        self._admitted = False  # in the last step
        self._owners = count(1)
        self._max_running = batch_size or MAX_RUNNING.get(device, MAX_RUNNING["cpu"])
        self._limit = min(self._max_running, runner.max_branches or self._max_running)  # as memory allows
        self._max_cached = tokens_that_fit(runner.model) if batch_size is None else None
        self._waiting: deque[Branch] = deque()
        self._entering: list[Branch] = []  # while they are being admitted
        self._running: list[list[Branch]] = []  # the branches of each row of `_cache`
        self._cache: BranchedKVCache | None = None
        self._finished: list[Branch] = []  # since the last step returned

    def run(self, branches: Iterator[Branch]) -> Iterator[Branch]:
        """Yield `branches` in the order in which they finish; they are taken as there is room in the queue.

        Raises:
            InputError: not even the first branch that was tried fits in the memory.
        """
        answered = False
        with self._runner.eval_mode():
            while True:
                # one more than may run: then all branches of the next images that can be admitted have come
                while len(self._waiting) <= self._limit and (branch := next(branches, None)) is not None:
                    self.add(branch)
                if not self.has_work:
                    return
                for branch in self.step():
                    if branch.error == TOO_LARGE and not answered:
                        raise InputError(f"not even one question at a time fits in the memory; {REMEDY}")
                    answered |= branch.error is None
                    yield branch

    def add(self, branch: Branch) -> None:
        """Put a branch at the end of the queue; one with an error is finished."""
        if branch.finished:
            self._finished.append(branch)
            return
        if branch.kept and self._store is not None:  # its conversation may be stored beyond the last image
            stored = self._store.match(branch.prompt_keys[:-1], branch.image_ends)
            branch.prefix_length = max(branch.prefix_length, stored)
        self._waiting.append(branch)

    def cancel(self, branch: Branch, error: str | None = None) -> None:
        """End a branch that waits or runs, with an error or none; the next `step` frees its place."""
        if branch.finished:
            return
        if error is None:
            branch.finish_reason = "cancelled"
        else:
            branch.fail(error)
        if branch in self._waiting:
            self._waiting.remove(branch)
            self._finish(branch)

    @property
    def places(self) -> int:
        """How many branches may run at a time, where memory allows."""
        return self._max_running

    @property
    def waiting(self) -> int:
        """How many branches wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many branches run."""
        return sum(map(len, self._running))

    @property
    def has_work(self) -> bool:
        """Whether any branch has not been returned by `step` yet."""
        return bool(self._waiting or self.running or self._finished)

    def step(self) -> list[Branch]:
        """Admit waiting branches or, where none can be, choose one more token for every running one.

        Returns:
            The branches that are finished since the last step.
        """
        if self._waiting or self._running:
            out_of_memory = False
            try:
                self._evict_finished()  # what was cancelled
                if groups := self._next_groups():
                    self._admit(groups)
                elif self.running:
                    self._decode()
                self._admitted = bool(groups)
                self._evict_finished()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            if out_of_memory:  # outside the handler, which keeps the tensors of the failed pass alive
                self.preempt(TOO_LARGE)
        finished, self._finished = self._finished, []
        if finished:
            self._store_emptied = False
        self._since_preempted += len(finished)
        if self._live and self._since_preempted >= LIVE_RECOVERY:
            self._limit = min(2 * self._limit, self._max_running)
            self._since_preempted = 0
        return finished

    # --- admission ------------------------------------------------------------------------------------

    def _next_groups(self) -> list[list[Branch]]:
        """Take the branches to admit now out of the queue, one list per image.

        None are admitted while more than half of the places are taken; in a live batch, while all are, and
        not in two steps one after the other, so that those that run go on. An image's branches are admitted
        together; they are split only where they are more than the limit or do not fit; in a live batch also
        where they are more than the free places, unless they are the only ones (`once`).
        """
        free = self._limit - self.running
        if self._running and (self._admitted if self._live else 2 * free < self._limit):
            return []
        waiting: dict[object, list[Branch]] = {}
        for place, branch in enumerate(self._waiting):
            if self._live and place >= free and not (branch.once and branch.prefix_key in waiting):
                break
            waiting.setdefault(branch.prefix_key, []).append(branch)
        groups: list[list[Branch]] = []
        for group in waiting.values():
            if not groups and len(group) > self._limit:
                group = group[:free]
            split = not groups and (self._live or not self._running)
            while split and len(group) > 1 and not self._can_admit([group]):
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
        if len(groups) > 1 and any(prefixes):
            read = [length for length, group in zip(prefixes, groups, strict=True) if not self._stored(group)]
            uneven = max(read, default=0) > MAX_PADDING * min(read, default=0)
            if uneven or not all(prefixes) or len(read) * max(read, default=0) > self._max_read:
                return False
        if len(groups) == 1 == len(groups[0]):  # a single question, however long, is read at once
            return self._fits_cache(groups)
        question_tokens = len(groups) * max(sum(branch.own_length for branch in group) for group in groups)
        return question_tokens <= self._max_read and self._fits_cache(groups)

    def _stored(self, group: Sequence[Branch]) -> bool:
        """Whether the store has the group's prefix, or some of it."""
        return self._branch_runner.stored_tokens(group[0]) > 0

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
        groups = sorted(groups, key=self._stored)
        self._entering = list(chain(*groups))
        if self._cache is not None and not self._live:
            self._compact(self._cache)  # `_fits_cache` counts on it, and extending copies everything anyway
        for branch in self._entering:
            self._start(branch)
        cache = None
        if any(branch.unscored_choices or branch.options.num_beams == 1 for branch in self._entering):
            cache, logits = self._branch_runner.prefill(groups)
            if any(branch.unscored_choices for branch in self._entering):
                self._branch_runner.score_choices(cache, groups, logits)
            self._choose(groups, logits)
        for branch in self._entering:
            if branch.options.num_beams > 1:
                self._beam_search(branch)
        rows = self._without_finished(groups, cache)
        if cache is not None and any(rows):
            self._join(rows, cache)
        self._entering = []

    def _join(self, rows: list[list[Branch]], cache: BranchedKVCache) -> None:
        """Add the rows of a new cache to the running ones.

        That copies all of them. So in a live batch, where a few come at a time, they go to the row of their
        image or to one that has become free, wherever there is one.
        """
        if self._cache is None:
            self._cache, self._running = cache, rows
            return
        left = list(range(len(rows)))
        if self._live:
            end = self._cache.owners.shape[1]
            left = []
            for index, row in enumerate(rows):
                if row and (shared := self._row_of_prefix(row)) is not None:
                    self._cache.graft(shared, cache, index, end)
                    self._running[shared] += row
                elif row and [] in self._running:
                    free = self._running.index([])
                    self._cache.place(free, cache, index)
                    self._running[free] = row
                elif row:
                    left.append(index)
        if left:
            rows = [rows[index] for index in left]
            if self._live:
                cache.keep(left, [[branch.owner for branch in row] for row in rows])
            self._cache.extend(cache)
            self._running += rows

    def _row_of_prefix(self, group: Sequence[Branch]) -> int | None:
        """Return the running row of the same prefix, unless too many branches of it make the others wide."""
        for index, row in enumerate(self._running):
            if row and row[0].prefix_key == group[0].prefix_key:
                width = max(len(row) + len(group), *map(len, self._running))
                if len(self._running) * width <= LIVE_PADDING * (self.running + len(group)):
                    return index
        return None

    def _start(self, branch: Branch) -> None:
        """Prepare a branch for the batch; it may have been there before (`preempt`)."""
        branch.owner = next(self._owners)
        branch.generator = Random(f"{branch.options.seed}:{branch.request.question_id}")
        for _ in branch.answer_ids:
            branch.generator.random()
        if branch.grammar is not None:
            branch.grammar.restart(branch.answer_ids)

    def _beam_search(self, branch: Branch) -> None:
        images = self._runner.prepare_images(branch.request.images)
        beams = branch.options.num_beams
        for token in self._runner.beam_search(branch.prompt_ids, images, beams, branch.max_new_tokens):
            if not branch.finished:
                self._append_token(branch, token)
        branch.finish_reason = branch.finish_reason or "stop"

    # --- running --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _decode(self) -> None:
        """Read the last token of every running branch, and choose its next."""
        assert self._cache is not None
        logits = self._branch_runner.decode(self._cache, self._running)
        self._choose(self._running, logits)

    def _choose(self, rows: Sequence[Sequence[Branch]], logits: Tensor) -> None:
        """Choose the next token of each branch from logits (rows, branches of a row, vocabulary)."""
        places = [
            (row, place)
            for row, branches in enumerate(rows)
            for place, branch in enumerate(branches)
            if branch.options.num_beams == 1
        ]
        if not places:
            return
        branches = [rows[row][place] for row, place in places]
        row, place = torch.tensor(places, device=logits.device).unbind(dim=1)
        logits = logits[row, place].float()
        options = [branch.options for branch in branches]
        allowed = mask_logits(logits, [branch.grammar for branch in branches])
        tokens = next_tokens(allowed, options, [branch.generator for branch in branches]).tolist()
        asked = [index for index, option in enumerate(options) if option.top_logprobs is not None]
        if asked:
            found = token_logprobs(
                logits[asked], [tokens[i] for i in asked], [options[i].top_logprobs or 0 for i in asked]
            )
            for index, logprobs in zip(asked, found, strict=True):
                if tokens[index] not in self._runner.stop_token_ids:
                    branches[index].logprobs.append(logprobs)
        for branch, token in zip(branches, tokens, strict=True):
            self._append_token(branch, token)

    def _append_token(self, branch: Branch, token: int) -> None:
        """Add a token to the branch's answer, and find out whether that ends it."""
        grammar = branch.grammar
        if grammar is not None and grammar.error is not None:  # it allows no token
            branch.fail(grammar.error)
            return
        if token in self._runner.stop_token_ids:
            branch.finish_reason = "stop"
            return
        branch.answer_ids.append(token)
        if branch.answer_text is not None:
            branch.answer_text.push(token)
            if branch.answer_text.stopped:
                branch.finish_reason = "stop"
        if grammar is not None:
            grammar.advance(token)
            if grammar.error is not None:
                branch.fail(grammar.error)
            elif grammar.complete:
                branch.finish_reason = "stop"
        if not branch.finished and len(branch.answer_ids) >= branch.max_new_tokens:
            branch.finish_reason = "length"

    # --- eviction -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _evict_finished(self) -> None:
        """Take the finished branches out.

        Their columns go once they are half of the cache, or where it outgrows the memory: the others are
        copied for it.
        """
        if self._cache is None:
            return
        self._running = self._without_finished(self._running, self._cache)
        lengths = [
            row[0].prefix_length + sum(branch.own_length for branch in row) for row in self._running if row
        ]
        if not lengths:
            self._cache, self._running = None, []
            return
        held = self._cache.owners.numel()
        outgrown = self._max_cached is not None and held * CACHE_GROWTH > self._max_cached
        if 2 * sum(lengths) <= held or (outgrown and len(lengths) * max(lengths) < 0.9 * held):
            self._compact(self._cache)

    def _without_finished(
        self, rows: Sequence[Sequence[Branch]], cache: BranchedKVCache | None
    ) -> list[list[Branch]]:
        """Finish what is finished among the branches of a cache's rows; returns the others."""
        for index, row in enumerate(rows):
            for branch in row:
                if branch.finished:
                    self._finish(branch)
                    if cache is not None and branch.kept and branch.error is None:
                        self._branch_runner.store_answer(cache, index, branch)
        return [[branch for branch in row if not branch.finished] for row in rows]

    def _finish(self, branch: Branch) -> None:
        if branch.answer_text is not None:
            branch.answer_text.finish()
        self._finished.append(branch)

    def _compact(self, cache: BranchedKVCache) -> None:
        """Copy the columns of running branches, and nothing else."""
        kept = [index for index, row in enumerate(self._running) if row]
        self._running = [self._running[index] for index in kept]
        cache.keep(kept, [[branch.owner for branch in row] for row in self._running])

    def preempt(self, error: str) -> None:
        """Put all running branches back to the front of the queue, and run half as many at a time.

        Finished ones stay finished, and none loses its answer so far. Where the prefix store is not empty, it
        is emptied in place of the first halving. A branch that fails even alone finishes with the error, and
        the others run together again.
        """
        known = dict.fromkeys(chain(*self._running, self._entering))  # some may be in both
        for branch in known:
            if branch.finished and branch not in self._finished:
                self._finish(branch)
        unfinished = [branch for branch in known if not branch.finished]
        self._cache, self._running, self._entering = None, [], []
        self._since_preempted = 0
        if self._store is not None and self._store.clear() and not self._store_emptied:
            self._store_emptied = True
            self._waiting.extendleft(reversed(unfinished))
        elif self._limit > 1:
            self._waiting.extendleft(reversed(unfinished))
            self._limit = self._runner.max_branches = max(1, len(unfinished) // 2)
        else:
            for branch in unfinished:  # at most one
                branch.fail(error)
                self._finish(branch)
            self._limit, self._runner.max_branches = self._max_running, None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
