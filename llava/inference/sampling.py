"""Choose next tokens from logits, end answers at stop strings, and decode them while they arrive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.common.errors import InputError

MAX_TOP_LOGPROBS = 20
REPLACEMENT = "\ufffd"  # what a tokenizer decodes the bytes of an incomplete character to


@dataclass(frozen=True)
class SamplingOptions:
    """Says how an answer is sampled. InputError where a value is out of range."""

    max_new_tokens: int = 512
    """The longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy: the same question gives the same answer."""
    top_p: float | None = None
    """Sample only among the most probable tokens that together reach this probability; None for all."""
    num_beams: int = 1
    """Above 1 for beam search, which does not sample."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer besides the template's own; they are not part of it."""
    seed: int = 0
    """Of sampling, with a temperature."""
    top_logprobs: int | None = None
    """Give each token's log-probability, and those of so many most probable tokens; None for neither."""
    json_schema: str | None = None
    """Hold the answer to this JSON schema (grammar.py); one that ends by itself, not at `max_new_tokens`, is
    valid. `{"type": "object"}` asks for any JSON object."""

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
        if self.num_beams > 1 and self.json_schema is not None:
            raise InputError("beam search does not keep to a JSON schema: use num_beams 1")
        if self.stop and self.json_schema is not None:
            raise InputError(
                "stop strings and a JSON schema do not go together: the schema says where it ends"
            )
        if "" in self.stop:
            raise InputError("a stop string is empty")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise InputError(f"top_logprobs is {self.top_logprobs}; it must be 0 to {MAX_TOP_LOGPROBS}")

    def with_ends(self, ends: Sequence[str]) -> SamplingOptions:
        """Return the options with a template's ends before the other stop strings.

        With a JSON schema there are none: the answer ends where the schema says, and what looks like an end
        is a part of one of its strings.
        """
        return self if self.json_schema is not None else replace(self, stop=(*ends, *self.stop))


@dataclass(frozen=True)
class TokenLogprobs:
    """Says how probable a token of an answer was to the model: before temperature, `top_p` and JSON schema.

    `top` are the most probable tokens in its place, each with its log-probability, the most probable first.
    """

    token: int
    logprob: float
    top: list[tuple[int, float]]


def next_tokens(logits: Tensor, options: Sequence[SamplingOptions], generators: Sequence[Random]) -> Tensor:
    """Choose the next token of each row.

    Args:
        logits: (rows, vocabulary) float.
        options: One for each row; the temperature and `top_p` are used.
        generators: One for each row, so that a sampled answer does not depend on which other questions share
            its batch.

    Returns:
        (rows,) token ids.
    """
    tokens = logits.argmax(dim=-1)
    sampled = [row for row, option in enumerate(options) if option.temperature > 0]
    if not sampled:
        return tokens

    def column(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64, device=logits.device)[:, None]

    temperature = column(options[row].temperature for row in sampled)
    probabilities = (logits[sampled] / temperature).softmax(dim=-1)
    top_p = column(math.inf if (top_p := options[row].top_p) is None else top_p for row in sampled)
    if top_p.isfinite().any():
        ordered, order = probabilities.sort(dim=-1, descending=True)
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p
        probabilities = probabilities.masked_fill(dropped.scatter(1, order, dropped), 0.0)
    # in the vocabulary's order: among tokens that are nearly as probable, rounding would decide another order
    cumulative = probabilities.cumsum(dim=-1)
    uniform = column(generators[row].random() for row in sampled)
    chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    last = probabilities.shape[1] - 1 - (probabilities.flip(1) > 0).int().argmax(dim=-1, keepdim=True)
    tokens[sampled] = chosen.minimum(last).squeeze(1)
    return tokens


def token_logprobs(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """Return how probable each row's token is.

    Args:
        logits: (rows, vocabulary) float.
        tokens: The token that was chosen in each row.
        counts: How many of the most probable tokens are wanted of each row.
    """
    scores = logits.log_softmax(dim=-1)
    chosen = scores.gather(1, torch.tensor(tokens, device=scores.device)[:, None]).squeeze(1).tolist()
    top_scores, top_tokens = (values.tolist() for values in scores.topk(max(counts), dim=-1))
    return [
        TokenLogprobs(token, chosen[row], list(zip(top_tokens[row], top_scores[row], strict=True))[:count])
        for row, (token, count) in enumerate(zip(tokens, counts, strict=True))
    ]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of `ids` exactly as the model wrote it, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class AnswerText:
    """Decodes an answer while its tokens arrive. The pieces that it returns, joined, are `text`.

    It holds back, until the next token decides, an incomplete character (byte pieces), what may be the
    beginning of a stop string, and trailing space. Leading space is never returned. `stopped` becomes True
    with the token that completes a stop string.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []

    def push(self, token: int) -> str:
        """Add the next token; returns the piece of text that is now certain, possibly empty."""
        self._ids.append(token)
        return self._advance(final=False)

    def finish(self) -> str:
        """End the answer; returns the piece that was still held back."""
        return self._advance(final=True)

    def _advance(self, final: bool) -> str:
        text = decode_text(self._tokenizer, self._ids)
        ends = [text.find(stop) for stop in self._stop if stop in text]
        if ends:
            self.stopped = True
            text = text[: min(ends)]
        elif not final:
            text = text.rstrip(REPLACEMENT)
            text = text[: len(text) - self._possible_stop_length(text)]
        piece = text.strip()[len(self.text) :]
        self.text += piece
        return piece

    def _possible_stop_length(self, text: str) -> int:
        """Return how many of the last characters of `text` may be the beginning of a stop string."""
        lengths = ((stop, n) for stop in self._stop for n in range(1, min(len(stop), len(text) + 1)))
        return max((n for stop, n in lengths if text.endswith(stop[:n])), default=0)
