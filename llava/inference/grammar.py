"""Keep answers to a JSON schema: which tokens may come next, branch by branch.

The parsing is llguidance's: it refuses a schema that it cannot hold an answer to, where xgrammar leaves out
some keywords without a word, and bounds what a schema may cost in each step.

An answer is one line, as `json.dumps` writes it (and as the recipes' reports are): one space after each comma
and colon, keys in the order of the schema's properties. So it cannot run on in white space. One space may
come before it, which a model of Llama's kind has learned to write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.common.environment import how_to_install
from llava.common.errors import InputError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_SCHEMA_LENGTH = 64 * 1024
"""In characters: the time to compile a schema grows with it."""
MAX_GRAMMAR_SIZE = 50_000
MAX_LEXER_STATES = 50_000
"""Of one answer, about 300 bytes each. An ordinary schema has some hundred."""
ONE_LINE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
ANSWER = '%llguidance {"no_forcing": true}\nstart: " "? @answer'
"""JSON, after a space or none. Where the schema leaves only one text, the model still chooses its tokens;
llguidance would tokenize that text itself, and take an `</s>` in it for the special token."""
NOT_KEPT = "no answer can be held to the JSON schema"
"""How the error of an answer begins whose schema turned out so while it was written."""


class Grammars:
    """Makes the grammars of one model's answers, from any thread."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_token_ids: frozenset[int]) -> None:
        self._tokenizer: Any = tokenizer
        self._stop_token_ids = sorted(stop_token_ids)
        self._tables: LLTokenizer | None = None
        self._making_tables = Lock()

    def compile(self, schema: str) -> Grammar:
        """Return the grammar of one answer. It shares nothing that changes with any other.

        Args:
            schema: A JSON schema, as text.

        Raises:
            InputError: no answer can be held to the schema, or llguidance is not installed.
        """
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError:
            raise InputError(f"a JSON schema needs llguidance: {how_to_install('grammar')}") from None
        if len(schema) > MAX_SCHEMA_LENGTH:
            raise InputError(
                f"the JSON schema has {len(schema)} characters, at most {MAX_SCHEMA_LENGTH} are taken"
            )
        limits = LLParserLimits(
            max_grammar_size=MAX_GRAMMAR_SIZE, max_lexer_states=MAX_LEXER_STATES, verbose_errors=False
        )
        matcher = LLMatcher(self._token_tables(), _grammar_text(schema), log_level=0, limits=limits)
        if matcher.is_error():
            raise InputError(f"{NOT_KEPT}: {_reason(matcher)}")
        return Grammar(matcher, self._stop_token_ids)

    def _token_tables(self) -> LLTokenizer:
        """Return what the tokens are in bytes; it is made once, which takes about a second."""
        from llguidance.hf import from_tokenizer

        with self._making_tables:
            if self._tables is None:
                highest = max(*self._tokenizer.get_vocab().values(), *self._stop_token_ids)
                try:
                    self._tables = from_tokenizer(self._tokenizer, n_vocab=highest + 1)
                except ValueError as error:
                    raise InputError(f"a JSON schema does not work with this tokenizer: {error}") from None
            return self._tables


class Grammar:
    """How one answer may go on. `error` says why it cannot go on at all."""

    def __init__(self, matcher: LLMatcher, stop_token_ids: Sequence[int]) -> None:
        self.error: str | None = None
        self._matcher = matcher
        stops = np.array(stop_token_ids)
        self._stop_bits = np.zeros(len(matcher.compute_bitmask()) // 4, np.uint32)
        np.bitwise_or.at(self._stop_bits, stops // 32, np.uint32(1) << (stops % 32).astype(np.uint32))

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing can follow."""
        return self.error is None and self._matcher.is_stopped() and self._matcher.is_accepting()

    def restart(self, answer_ids: Sequence[int]) -> None:
        """Begin anew, with the tokens of the answer so far."""
        self._matcher.reset()
        self._matcher.consume_tokens(list(answer_ids))
        self._find_error()

    def advance(self, token: int) -> None:
        """Add the answer's next token."""
        self._matcher.consume_token(token)
        self._find_error()

    def allowed(self) -> NDArray[np.uint32]:
        """Return the tokens that may come next, a bit each; all, with `error` set, where there are none.

        Stop tokens are among them exactly where the answer may end, whatever their text is.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        ended = self._matcher.is_accepting()
        bits = bits | self._stop_bits if ended else bits & ~self._stop_bits
        self._find_error()
        if self.error is None and not bits.any():
            self.error = f"{NOT_KEPT}: the model has no token with which the answer could go on"
        return np.full_like(bits, 0xFFFFFFFF) if self.error else bits

    def _find_error(self) -> None:
        if self._matcher.is_error():
            self.error = f"{NOT_KEPT}: it is too complex ({_reason(self._matcher)})"


def mask_logits(logits: Tensor, grammars: Sequence[Grammar | None]) -> Tensor:
    """Return logits that are -inf where a row's grammar does not allow the token.

    Args:
        logits: (rows, vocabulary) float; they stay as they are.
        grammars: One for each row, or None; a row whose grammar gets an `error` has no next token.
    """
    if not any(grammars):
        return logits
    forbidden = np.zeros(logits.shape, bool)
    for row, grammar in enumerate(grammars):
        if grammar is not None:  # `count`: the model may have words beyond the tokenizer's, which are none
            bits = np.unpackbits(grammar.allowed().view(np.uint8), count=logits.shape[1], bitorder="little")
            forbidden[row] = bits == 0
    return logits.masked_fill(torch.from_numpy(forbidden).to(logits.device), -torch.inf)


def _grammar_text(schema: str) -> str:
    """Return llguidance's grammar of an answer: a JSON schema, after a space or none.

    Raises:
        InputError: the schema is no JSON object, or asks for multiples of a number, for which no limit of
            llguidance holds: a kilobyte of such may take half a minute to compile.
    """
    try:
        found = json.loads(schema)
        if not isinstance(found, dict):
            raise InputError('a JSON schema is a JSON object, such as {"type": "object"}')
        if any(_multiples(found)):
            raise InputError(
                "a JSON schema cannot ask for `multipleOf`; use `minimum` and `maximum`, or `enum`"
            )
        found["x-guidance"] = ONE_LINE
        whole = {"lark_grammar": ANSWER}
        return json.dumps({"grammars": [whole, {"name": "answer", "json_schema": found}]})
    except ValueError as error:
        raise InputError(f"the JSON schema is not JSON: {error}") from None
    except RecursionError:
        raise InputError("the JSON schema is nested too deeply") from None


def _multiples(value: Any) -> Iterator[bool]:
    """Yield True for each `multipleOf` in a schema. A property of that name has a schema, not a number."""
    if isinstance(value, dict):
        yield isinstance(value.get("multipleOf"), int | float)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _multiples(item)


def _reason(matcher: LLMatcher) -> str:
    """Return the first line of the matcher's error."""
    return matcher.get_error().partition("\n")[0][:200]
