"""Continuous batching: questions enter as others are done, a picture's questions together.

    waiting --admit--> read the pictures' prefixes, then all their questions in one go; first tokens
            --step---> one more token for every question on its way
            --leave--> done ones at once; what the cache holds of them when that is half of it

A picture's questions are branches of one row of the cache (branches.py). Prefixes of nearly one length are
read together, wherever they are among the waiting; the question that has waited longest is always among those
that enter. Where memory runs out all questions on their way wait again and half as many run at a time; one
that does not fit alone is given up.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import psutil
import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.inference.kv_cache import PADDING, PREFIX, BranchedKVCache
from llava.inference.model_runner import ModelRunner
from llava.inference.sampling import AnswerText, SamplingOptions, next_tokens
from llava.processing.vision import ImageInput

MOST_QUESTIONS = {"cuda": 64, "cpu": 32}  # at a time, where no batch size is asked for
PREFILL_TOKENS = 16_384  # that are read in one forward pass, padding included
PADDED = 1.1  # times its own length is what a prefix may be padded to, to be read with others
CACHE_SHARE = 0.6  # of the free memory; the rest is for what a forward pass needs besides
ROOM = 1.25  # of a cache to what it holds (GrowingLayer)
REMEDY = "try --load-4bit or fewer new tokens"


@dataclass(frozen=True)
class Request:
    """A question. Requests that hold the same picture *object* share its reading.

    `<image>` in the text marks where a picture goes; without any mark the pictures come first, each on a
    line of its own, as LLaVA asks. `choices` are answers to give a probability for.
    """

    question_id: str | int
    text: str
    images: Sequence[ImageInput] = ()
    choices: Sequence[str] | None = None


@dataclass(eq=False)
class Branch:
    """A question on its way. `ids` is the whole prompt, its first `prefix` tokens end with the last picture;
    `choices` are the supervised tokens of each choice, `scores` their log-probabilities; `room` is how many
    tokens the answer may have. `number` names it within its row of the cache."""

    request: Request
    order: int
    ids: list[int] = field(default_factory=list)
    prefix: int = 0
    choices: list[list[int]] = field(default_factory=list)
    room: int = 0
    error: str | None = None
    number: int = 0
    draw: Random = field(default_factory=Random)
    answer: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    text: AnswerText | None = None
    done: bool = False
    truncated: bool = False

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for questions that share their prefix: the same pictures behind the same text."""
        if not self.prefix:
            return (self.order,)
        images = (id(image) for image in self.request.images)
        ids = array("q", self.ids[: self.prefix]).tobytes()  # thousands of them: quick to compare
        return *images, ids

    @property
    def length(self) -> int:
        """Its own tokens so far."""
        return len(self.ids) - self.prefix + len(self.answer)


# A token to be read: its id, its branch, its position, and the branch that it sees besides (its own: none).
_Token = tuple[int, int, int, int]


class ContinuousBatch:
    """Iterate over it for the branches of `source` in the order in which they are done.

    At most `batch_size` run at a time; None takes as many as the free memory holds.
    """

    def __init__(
        self, reader: ModelRunner, source: Iterator[Branch], batch_size: int | None, decoding: SamplingOptions
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size is {batch_size}; it must be at least 1")
        device = reader.model.device
        self._reader = reader
        self._filling: _Token = (reader.pad_id, PADDING, 0, PADDING)
        self._source = source
        self._decoding = decoding
        self._limit = batch_size or MOST_QUESTIONS.get(device.type, MOST_QUESTIONS["cpu"])
        self._most = self._limit
        self._limit = min(self._limit, reader.most_at_once or self._limit)
        self._cells = cells_that_fit(reader.model) if batch_size is None else None
        self._waiting: deque[Branch] = deque()
        self._entering: list[Branch] = []
        self._running: BranchedKVCache | None = None
        self._rows: list[list[Branch]] = []  # those on their way in each row of `_running`
        self._done: list[Branch] = []
        self._answered = False  # any question

    def __iter__(self) -> Iterator[Branch]:
        with self._reader.evaluating():
            while True:
                self._look_ahead()
                if not self._waiting and not self._rows:
                    yield from self._leave()
                    return
                short = False
                try:
                    if groups := self._groups():
                        self._admit(groups)
                    else:
                        self._step()
                    self._tidy()
                except RuntimeError as error:
                    if not _out_of_memory(error):
                        raise
                    short = True
                if short:  # outside of the handler, which holds on to the tensors of the failed pass
                    self._shrink()
                yield from self._leave()

    def _look_ahead(self) -> None:
        """Take questions until all those about the next pictures that may enter are here."""
        while len(self._waiting) <= self._limit and (branch := next(self._source, None)) is not None:
            if branch.error is not None:
                self._done.append(branch)
            else:
                self._waiting.append(branch)

    def _leave(self) -> Iterator[Branch]:
        done, self._done = self._done, []
        self._answered |= any(branch.error is None for branch in done)
        return iter(done)

    # --- entering -------------------------------------------------------------------------------------

    def _groups(self) -> list[list[Branch]]:
        """The questions to admit now, one list a picture, taken out of those that wait; none while more than
        half of the places are taken. A picture's enter together; only those that are more than the limit,
        or than fit at all, are parted."""
        free = self._limit - sum(map(len, self._rows))
        if self._rows and 2 * free < self._limit:
            return []
        waiting: dict[object, list[Branch]] = {}
        for branch in self._waiting:
            waiting.setdefault(branch.key, []).append(branch)
        groups: list[list[Branch]] = []
        for group in waiting.values():
            if not groups and len(group) > self._limit:
                group = group[:free]
            while not groups and not self._rows and len(group) > 1 and not self._enter([group]):
                group = group[: len(group) // 2]
            alone = not groups and not self._rows  # a single question is tried, whatever the estimate says
            if alone or (len(group) <= free and self._enter([*groups, group])):
                groups.append(group)
                free -= len(group)
            elif not groups:
                return []  # the first in the queue goes first
        taken = set(chain(*groups))
        self._waiting = deque(branch for branch in self._waiting if branch not in taken)
        return groups

    def _enter(self, groups: Sequence[Sequence[Branch]]) -> bool:
        """Whether these can be read together, and the cache has room for them."""
        prefixes = [group[0].prefix for group in groups]
        read = len(groups) * max(prefixes)
        asked = len(groups) * max(sum(len(b.ids) - b.prefix for b in group) for group in groups)
        if len(groups) > 1 and (max(prefixes) > PADDED * min(prefixes) or read > PREFILL_TOKENS):
            return False
        return asked <= PREFILL_TOKENS and self._fit(groups)

    def _fit(self, groups: Sequence[Sequence[Branch]]) -> bool:
        """Whether the cache has room for these beside those that run, all answers at their longest."""
        if self._cells is None:
            return True
        rows = [row for row in (*self._rows, *groups) if row]
        width = (
            max(row[0].prefix for row in rows)
            + max(sum(branch.length for branch in row) for row in rows)
            + max(map(len, rows)) * max(branch.room for branch in chain(*rows))
        )  # fmt: skip
        return len(rows) * width * ROOM <= self._cells

    @torch.inference_mode()
    def _admit(self, groups: list[list[Branch]]) -> None:
        self._entering = list(chain(*groups))
        if self._running is not None:
            self._drop(self._running)  # `_fit` counts on it, and joining copies all of it anyway
        for group in groups:
            for number, branch in enumerate(group, start=1):
                self._begin(branch, number)
        if self._decoding.num_beams > 1:
            for branch in self._entering:
                images = self._reader.pixels(branch.request.images)
                beams = self._decoding.num_beams
                for token in self._reader.beam_search(branch.ids, images, beams, branch.room):
                    self._take(branch, token)
        scored = any(branch.choices for branch in self._entering)
        if self._decoding.num_beams == 1 or scored:
            entering, logits = self._prefill(groups)
            if scored:
                self._score_choices(entering, groups, logits)
            if self._decoding.num_beams == 1:
                self._choose(groups, logits)
        self._done += [branch for branch in self._entering if branch.done or self._decoding.num_beams > 1]
        rows = [[branch for branch in group if branch not in self._done] for group in groups]
        if any(rows):
            if self._running is None:
                self._running = entering
            else:
                self._running.join(entering)
            self._rows += rows
        self._entering = []

    def _begin(self, branch: Branch, number: int) -> None:
        decoding = self._decoding
        branch.number = number
        branch.answer, branch.scores, branch.done, branch.truncated = [], [], False, False
        branch.text = AnswerText(self._reader.tokenizer, decoding.stop) if decoding.stop else None
        branch.draw = Random(f"{decoding.seed}:{branch.request.question_id}")

    def _prefill(self, groups: list[list[Branch]]) -> tuple[BranchedKVCache, Tensor]:
        """Read each picture's prefix, then all the questions; their cache, and the logits behind them: (rows,
        most questions of a row, vocabulary)."""
        device = self._reader.model.device
        branches = BranchedKVCache(len(groups), device)
        prefixes = [group[0].prefix for group in groups]
        if longest := max(prefixes):
            # padding stands behind, where no token of the prefix sees it: the mask is the plain causal one
            padding = [[self._reader.pad_id] * (longest - prefix) for prefix in prefixes]
            read = [[*g[0].ids[: g[0].prefix], *pad] for g, pad in zip(groups, padding, strict=True)]
            ids = torch.tensor(read, device=device)
            images = [made for g in groups for made in self._reader.pixels(g[0].request.images)]
            positions = torch.arange(longest, device=device).expand_as(ids)
            self._reader.read(ids, torch.ones_like(ids), positions, branches.cache, images)
            held = positions < torch.tensor(prefixes, device=device)[:, None]
            branches.append(torch.where(held, PREFIX, PADDING))
        # the last token of each question behind all the others, so that the logits wanted are the last ones
        bodies = [
            [(b.ids[at], b.number, at, b.number) for b in group for at in range(b.prefix, len(b.ids) - 1)]
            for group in groups
        ]
        width = max(map(len, bodies))
        fed = [
            [*body, *[self._filling] * (width - len(body)), *map(_last, group)]
            for body, group in zip(bodies, groups, strict=True)
        ]
        return branches, self._read(branches, fed, keep=max(map(len, groups)))

    def _read(self, branches: BranchedKVCache, fed: Sequence[Sequence[_Token]], keep: int) -> Tensor:
        """Read the tokens of each row; the logits (rows, keep, vocabulary) of the last `keep`."""
        width = max(map(len, fed))
        padded = [[*row, *[self._filling] * (width - len(row))] for row in fed]
        tokens = torch.tensor(padded, device=self._reader.model.device)
        ids, branch, positions, parent = tokens.unbind(dim=-1)
        seen = branches.sees(branch, parent)
        logits = self._reader.read(ids, seen, positions, branches.cache, keep=keep)
        branches.append(branch)
        return logits

    def _score_choices(self, branches: BranchedKVCache, groups: list[list[Branch]], logits: Tensor) -> None:
        """Set the `scores` of those that have choices: the log-probability of each, its end of turn included.

        All choices of all questions are read in one forward pass, as branches that see their question too;
        the cache is left as it was found. `logits` are those behind the questions.
        """
        columns = branches.owner.shape[1]
        fed: list[list[_Token]] = []
        for group in groups:
            row: list[_Token] = []
            number = len(group)
            for branch in group:
                for choice in branch.choices:
                    number += 1
                    start = len(branch.ids)
                    row += [
                        (token, number, start + at, branch.number) for at, token in enumerate(choice[:-1])
                    ]
            fed.append(row)
        width = max(map(len, fed))
        later = self._read(branches, fed, keep=width) if width else logits[:, :0]
        branches.cut(columns)
        for index, group in enumerate(groups):  # a row at a time: float32 of all is several times the memory
            scores = torch.cat([logits[index], later[index]]).float().log_softmax(dim=-1)
            at = logits.shape[1]
            where: list[tuple[int, int]] = []  # (position, token) of all the choices' tokens
            for place, branch in enumerate(group):
                for choice in branch.choices:
                    where += [(place, choice[0])]
                    where += [(at + number, token) for number, token in enumerate(choice[1:])]
                    at += len(choice) - 1
            if not where:
                continue
            positions, tokens = torch.tensor(where, device=scores.device).unbind(dim=1)
            found = iter(scores[positions, tokens].tolist())
            for branch in group:
                branch.scores = [sum(islice(found, len(choice))) for choice in branch.choices]

    # --- token by token -------------------------------------------------------------------------------

    @torch.inference_mode()
    def _step(self) -> None:
        """Read the last token of every branch, and choose its next."""
        assert self._running is not None
        logits = self._read(
            self._running, [list(map(_last, row)) for row in self._rows], max(map(len, self._rows))
        )
        self._choose(self._rows, logits)
        for index, row in enumerate(self._rows):
            self._done += [branch for branch in row if branch.done]
            self._rows[index] = [branch for branch in row if not branch.done]

    def _choose(self, rows: Sequence[Sequence[Branch]], logits: Tensor) -> None:
        """The next token of each branch from the logits (rows, branches of a row, vocabulary)."""
        where = [(row, place) for row, group in enumerate(rows) for place in range(len(group))]
        branches = [branch for row in rows for branch in row]
        row, place = torch.tensor(where, device=logits.device).unbind(dim=1)
        tokens = next_tokens(logits[row, place].float(), self._decoding, [b.draw for b in branches])
        for branch, token in zip(branches, tokens.tolist(), strict=True):
            self._take(branch, token)

    def _take(self, branch: Branch, token: int) -> None:
        if branch.done:
            return
        if token in self._reader.end_ids:
            branch.done = True
            return
        branch.answer.append(token)
        if branch.text is not None:
            branch.text.push(token)
            branch.done = branch.text.stopped
        if not branch.done and len(branch.answer) >= branch.room:
            branch.done = branch.truncated = True

    # --- leaving --------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _tidy(self) -> None:
        """Drop what the cache holds of those that are done, once that is half of it: dropping copies the
        rest."""
        if self._running is None:
            return
        if not any(self._rows):
            self._running, self._rows = None, []
            return
        alive = sum(row[0].prefix + sum(branch.length for branch in row) for row in self._rows if row)
        if 2 * alive <= self._running.owner.numel():
            self._drop(self._running)

    def _drop(self, running: BranchedKVCache) -> None:
        """Copy what the cache holds of those that are on their way, and nothing else."""
        left = [index for index, row in enumerate(self._rows) if row]
        self._rows = [self._rows[index] for index in left]
        running.keep(left, [[branch.number for branch in row] for row in self._rows])

    def _shrink(self) -> None:
        """Begin again with half as many at a time; those that are done stay done. A question that does not
        even fit alone is done with an error, and the others run together again; the very first ends it."""
        unfinished = [b for b in chain(*self._rows, self._entering) if b not in self._done]
        self._running, self._rows, self._entering = None, [], []
        if self._limit > 1:
            self._waiting.extendleft(reversed(unfinished))
            self._limit = self._reader.most_at_once = max(1, len(unfinished) // 2)
        elif not self._answered:
            raise InputError(f"not even one question at a time fits in the memory; {REMEDY}")
        else:
            (alone,) = unfinished
            alone.answer, alone.scores, alone.text = [], [], None
            alone.error = f"the question does not fit in the memory, though asked alone; {REMEDY}"
            self._done.append(alone)
            self._limit, self._reader.most_at_once = self._most, None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _last(branch: Branch) -> _Token:
    """The last token of the question or of the answer so far."""
    token = branch.answer[-1] if branch.answer else branch.ids[-1]
    return token, branch.number, branch.prefix + branch.length - 1, branch.number


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA's has a class of its own, the CPU's and cuBLAS's only words."""
    words = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in words)


def cells_that_fit(model: Any) -> int:
    """How many tokens' keys and values the free memory of the model's device has room for."""
    device = model.device
    config = model.config.text_config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + reusable
    else:
        free = min(psutil.virtual_memory().available, container_room())
    return max(1, int(CACHE_SHARE * free / each))


def container_room(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container still leaves to this process (Linux's cgroup files, version 2 or 1); infinite
    without a limit. File pages that the kernel can drop count as free."""
    for folder, limit, usage, dropped in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            most, used = ((folder / name).read_text() for name in (limit, usage))
            return max(0.0, float(most.replace("max", "inf")) - int(used) + int(pages.get(dropped, 0)))
        except (OSError, ValueError):  # no such files here
            continue
    return float("inf")
