"""From logits to text: which token comes next, when an answer ends, and what of it may be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.common.errors import InputError

REPLACEMENT = "\ufffd"  # what a tokenizer shows for the bytes of an unfinished character


@dataclass(frozen=True)
class SamplingOptions:
    """How an answer is drawn. Temperature 0 is greedy: the same question gives the same answer.

    `max_new_tokens` counts tokens; `top_p` keeps the most probable tokens that together reach that share
    (None keeps all); `stop` strings end an answer besides the template's own and are not part of it.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or a number above")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.num_beams < 1:
            raise InputError(f"num_beams is {self.num_beams}; it must be at least 1")
        if self.num_beams > 1 and self.temperature > 0:
            raise InputError("beam search does not sample: use temperature 0 or num_beams 1")
        if "" in self.stop:
            raise InputError("a stop string is empty")


def next_tokens(logits: Tensor, decoding: SamplingOptions, draws: Sequence[Random]) -> Tensor:
    """The next token of each row: (rows, vocabulary) float logits -> (rows,) token ids.

    Every row has its own source of chance, so a sampled answer does not depend on which other questions
    happened to share its batch.
    """
    if decoding.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, order = (logits / decoding.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    total = probabilities.cumsum(dim=-1)
    if decoding.top_p is not None:
        probabilities = probabilities.masked_fill(total - probabilities >= decoding.top_p, 0.0)
        total = probabilities.cumsum(dim=-1)
    points = torch.tensor([[draw.random()] for draw in draws], dtype=total.dtype, device=total.device)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    chosen = torch.searchsorted(total, points * total[:, -1:], right=True).minimum(last)
    return order.gather(1, chosen).squeeze(1)


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of `ids` exactly as the model wrote it, special tokens left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class AnswerText:
    """The text of an answer while its tokens arrive. The pieces given out, joined, are `text`.

    Held back until the next token decides: an unfinished character (byte pieces), what may be the
    beginning of a stop string, and trailing space. Leading space is never given out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []

    def push(self, token: int) -> str:
        """Take the next token; the piece of text that it settles, possibly empty."""
        self._ids.append(token)
        return self._advance(final=False)

    def finish(self) -> str:
        """The piece that was still held back when the answer ended."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        settled = decode_text(self._tokenizer, self._ids)
        ends = [settled.find(stop) for stop in self._stop if stop in settled]
        if ends:
            self.stopped = True
            settled = settled[: min(ends)]
        elif not final:
            settled = settled.rstrip(REPLACEMENT)
            settled = settled[: len(settled) - self._undecided(settled)]
        piece = settled.strip()[len(self.text) :]
        self.text += piece
        return piece

    def _undecided(self, text: str) -> int:
        """How many last characters of `text` may be the beginning of a stop string."""
        return max(
            (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
        )
