"""Run the model on branches: prefill images and questions, decode a token for each, score choices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llava.inference.kv_cache import PADDING, PREFIX, BranchedKVCache, States
from llava.inference.model_runner import ModelRunner
from llava.inference.prefix_store import PrefixStore
from llava.inference.requests import Branch


class _Token(NamedTuple):
    """A token to be read; `parent` is a branch that it attends to besides its own, or its own again."""

    id: int
    owner: int
    position: int
    parent: int


class BranchRunner:
    """Runs the forward passes of branches on a branched KV cache. A group or row is one image's branches."""

    def __init__(self, runner: ModelRunner, store: PrefixStore | None = None) -> None:
        self._runner = runner
        self._store = store
        self._padding = _Token(runner.pad_id, PADDING, 0, PADDING)

    def prefill(self, groups: Sequence[Sequence[Branch]]) -> tuple[BranchedKVCache, Tensor]:
        """Read each group's prefix, or copy it from the store, then read all its questions.

        Args:
            groups: The groups, those of which nothing is stored (`stored_tokens`) first.

        Returns:
            Their cache, a row per group, and the logits after each question: (rows, most questions of a
            group, vocabulary), where a group with fewer questions has its logits first.
        """
        cache = self._prefill_prefixes(groups)
        # each question's last token comes after all the others, so that the wanted logits are the last ones
        bodies = [
            [
                _Token(token, branch.owner, at, branch.owner)
                for branch in group
                for at, token in enumerate(branch.tokens[branch.prefix_length : -1], branch.prefix_length)
            ]
            for group in groups
        ]
        width = max(map(len, bodies))
        rows = [
            [*body, *[self._padding] * (width - len(body)), *map(_last_token, group)]
            for body, group in zip(bodies, groups, strict=True)
        ]
        return cache, self._forward(cache, rows, keep=max(map(len, groups)))

    def stored_tokens(self, branch: Branch) -> int:
        """Return how many tokens of a branch's prefix the store has."""
        if self._store is None or not branch.prefix_length:
            return 0
        return self._store.match(branch.prompt_keys[: branch.prefix_length], branch.image_ends)

    def store_answer(self, cache: BranchedKVCache, row: int, branch: Branch) -> None:
        """Have the store keep all that was read of a branch of a row of the cache."""
        if self._store is not None:
            keys = np.concatenate([branch.prompt_keys, np.array(branch.answer_ids, np.int64)])
            read = cache.length(row, branch.owner)
            self._store.add(
                keys[:read], branch.image_ends, lambda start, end: cache.states(row, branch.owner, start, end)
            )

    def _prefill_prefixes(self, groups: Sequence[Sequence[Branch]]) -> BranchedKVCache:
        fresh = list(takewhile(lambda group: not self.stored_tokens(group[0]), groups))
        rows = [self._load_prefix(group) for group in groups[len(fresh) :]]
        if fresh:
            rows.insert(0, self._read_prefixes(fresh))
        cache = rows[0]
        if len(rows) > 1:
            cache.extend(*rows[1:])
        if self._store is not None:
            for row, group in enumerate(groups):
                if not all(branch.once for branch in group):
                    self._store_prefix(cache, row, group[0])
        return cache

    def _store_prefix(self, cache: BranchedKVCache, row: int, branch: Branch) -> None:
        def states(start: int, end: int) -> States:
            return cache.states(row, PREFIX, start, end)

        assert self._store is not None
        if branch.prefix_length:
            self._store.add(branch.prompt_keys[: branch.prefix_length], branch.image_ends, states)

    def _load_prefix(self, group: Sequence[Branch]) -> BranchedKVCache:
        """Copy a group's prefix from the store into a row, and read what the store has not."""
        assert self._store is not None
        first = group[0]
        length = first.prefix_length
        stored, states = self._store.load(first.prompt_keys[:length], first.image_ends)
        cache = BranchedKVCache.of_prefix(states, self._runner.model.device)
        for branch in group:
            if not branch.answer_ids:  # else it was preempted, and what is stored may be its own
                branch.cached_tokens = stored
        if stored < length:
            known = sum(end <= stored for end in first.image_ends)
            images = self._runner.prepare_images(first.request.images)[known:]
            self._runner.extend(first.prompt_ids[stored:length], cache.past_key_values, stored, images)
            cache.append(torch.full((1, length - stored), PREFIX, device=self._runner.model.device))
        return cache

    def _read_prefixes(self, groups: Sequence[Sequence[Branch]]) -> BranchedKVCache:
        device = self._runner.model.device
        cache = BranchedKVCache(len(groups), device)
        lengths = [group[0].prefix_length for group in groups]
        if longest := max(lengths):
            # padding comes after the prefix, where none of its tokens attends to it: the mask is plain causal
            rows = [
                group[0].prompt_ids[:length] + [self._runner.pad_id] * (longest - length)
                for group, length in zip(groups, lengths, strict=True)
            ]
            ids = torch.tensor(rows, device=device)
            images = [
                pixels for group in groups for pixels in self._runner.prepare_images(group[0].request.images)
            ]
            positions = torch.arange(longest, device=device).expand_as(ids)
            self._runner.forward(ids, torch.ones_like(ids), positions, cache.past_key_values, images)
            in_prefix = positions < torch.tensor(lengths, device=device)[:, None]
            cache.append(torch.where(in_prefix, PREFIX, PADDING))
        return cache

    def decode(self, cache: BranchedKVCache, rows: Sequence[Sequence[Branch]]) -> Tensor:
        """Read the last token of every branch; returns logits (rows, most branches of a row, vocabulary)."""
        return self._forward(cache, [list(map(_last_token, row)) for row in rows], max(map(len, rows)))

    def score_choices(
        self, cache: BranchedKVCache, groups: Sequence[Sequence[Branch]], logits: Tensor
    ) -> None:
        """Set the `choice_scores` of branches with choices: each choice's log-probability, its end included.

        All choices of all questions are read in one forward pass, as branches that attend to their question
        too; the cache is left as it was.

        Args:
            cache: The cache from `prefill` of `groups`.
            groups: The branches.
            logits: The logits from `prefill`.
        """
        columns = cache.owners.shape[1]
        rows = [_choice_tokens(group) for group in groups]
        width = max(map(len, rows))
        choice_logits = self._forward(cache, rows, keep=width) if width else logits[:, :0]
        cache.crop(columns)
        for index, group in enumerate(groups):  # row by row: float32 of all is several times the memory
            scores = torch.cat([logits[index], choice_logits[index]]).float().log_softmax(dim=-1)
            scored = _scored_tokens(group, first=logits.shape[1])
            if not scored:
                continue
            positions, tokens = torch.tensor(scored, device=scores.device).unbind(dim=1)
            log_probabilities = iter(scores[positions, tokens].tolist())
            for branch in group:
                if branch.unscored_choices:
                    branch.choice_scores = [
                        sum(islice(log_probabilities, len(choice))) for choice in branch.choice_ids
                    ]

    def _forward(self, cache: BranchedKVCache, rows: Sequence[Sequence[_Token]], keep: int) -> Tensor:
        """Read the tokens of each row; returns the logits (rows, keep, vocabulary) of the last `keep`."""
        width = max(map(len, rows))
        padded = [[*row, *[self._padding] * (width - len(row))] for row in rows]
        tokens = torch.tensor(padded, device=self._runner.model.device)
        ids, owners, positions, parents = tokens.unbind(dim=-1)
        mask = cache.attention_mask(owners, parents)
        logits = self._runner.forward(ids, mask, positions, cache.past_key_values, keep=keep)
        cache.append(owners)
        return logits


def _last_token(branch: Branch) -> _Token:
    """Return the last token of the question, or of the answer so far."""
    token = branch.answer_ids[-1] if branch.answer_ids else branch.prompt_ids[-1]
    return _Token(token, branch.owner, branch.prefix_length + branch.own_length - 1, branch.owner)


def _choice_tokens(group: Sequence[Branch]) -> list[_Token]:
    """Return the tokens of the group's choices but each one's last, each choice as a branch of its own."""
    tokens: list[_Token] = []
    owner = max(branch.owner for branch in group)
    for branch in group:
        for choice in branch.unscored_choices:
            owner += 1
            start = len(branch.prompt_ids)
            tokens += [_Token(id, owner, start + at, branch.owner) for at, id in enumerate(choice[:-1])]
    return tokens


def _scored_tokens(group: Sequence[Branch], first: int) -> list[tuple[int, int]]:
    """Return (index of its logits, id) of all tokens of the group's choices, in order.

    A choice's first token is predicted after its question, the others after the choice's token before; the
    logits of the choices' tokens begin at index `first`.
    """
    scored: list[tuple[int, int]] = []
    for question, branch in enumerate(group):
        for choice in branch.unscored_choices:
            scored += [(question, choice[0])]
            scored += [(first + offset, token) for offset, token in enumerate(choice[1:])]
            first += len(choice) - 1
    return scored
